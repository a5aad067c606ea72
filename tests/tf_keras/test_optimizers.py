"""Every built-in optimizer, old and new: zeros at each batch end, slots cleared at the boundary."""

import numpy as np
import pytest
import tf_keras

import keras_dsd as dsd
from keras_dsd.adapters.tf_keras import optimizer as ours
from tests.helpers import optimizers as optimizers_of_both

optimizers = tf_keras.optimizers
legacy = optimizers.legacy
CASES = {
    **optimizers_of_both.OPTIMIZERS,
    "clipped": lambda: optimizers.SGD(0.05, momentum=0.9, global_clipnorm=0.1),
    "loss scaling": lambda: tf_keras.mixed_precision.LossScaleOptimizer(optimizers.Adam()),
    "legacy SGD": lambda: legacy.SGD(0.05, momentum=0.9),
    "legacy Adam": lambda: legacy.Adam(amsgrad=True),
    "legacy RMSprop": lambda: legacy.RMSprop(momentum=0.9, centered=True),
    "legacy Adagrad": lambda: legacy.Adagrad(0.05, initial_accumulator_value=0.2),
    "legacy Adadelta": lambda: legacy.Adadelta(0.5),
    "legacy Adamax": lambda: legacy.Adamax(),
    "legacy Nadam": lambda: legacy.Nadam(),
    "legacy Ftrl": lambda: legacy.Ftrl(0.05, initial_accumulator_value=0.2),
    "legacy loss scaling": lambda: tf_keras.mixed_precision.LossScaleOptimizer(legacy.Adam()),
}
SLOTS = {
    "SGD": 1, "Adam": 3, "AdamW": 2, "RMSprop": 3, "Adagrad": 1, "Adadelta": 2, "Adamax": 2,
    "Nadam": 2, "Ftrl": 2, "Lion": 1, "Adafactor": 1, "clipped": 1, "loss scaling": 2,
}  # fmt: skip


def all_slots(model):
    """Every optimizer variable of a weight's shape, found without the code under test."""
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    variables = inner.variables() if callable(inner.variables) else inner.variables
    found = []
    for weight in dsd.weights(model):
        name = weight.path + (":0" if "legacy" not in type(inner).__module__ else "/")
        found.append({
            v.name: v.numpy() for v in variables
            if tuple(v.shape) == weight.shape and name in v.name
        })  # fmt: skip
    return found


# test_masked_updates trains compiled steps with the others.
COMPILED = ("loss scaling", "legacy Adam", "legacy loss scaling")


@pytest.mark.parametrize("case", optimizers_of_both.cases(CASES, *COMPILED))
def test_zeros_at_every_batch_end_and_fresh_slots_after(case, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.4), CASES[case](), run_eagerly=case not in COMPILED)
    zeros, before, after = [], [], []

    class Look(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch
            if epoch == 2:
                before.extend(all_slots(model))
                masks.extend(w.mask for w in dsd.weights(model))

        def on_train_batch_begin(self, batch, logs=None):
            if self.epoch == 2 and batch == 0:
                after.extend(all_slots(model))

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == 1:
                zeros.append([np.sum(w.numpy() == 0) for w in dsd.weights(model)])

    masks = []
    # Four batches. Adafactor divides by zero where a pixel is always 0.
    x, y = digits[0][:128] + 0.05, digits[1][:128]
    model.fit(x, y, epochs=3, verbose=0, callbacks=[Look(), dsd.DSDSchedule(1, 1, 1)])
    assert zeros == [[round(64 * 16 * 0.4), round(16 * 10 * 0.4)]] * 4
    start = 0.2 if "Ftrl" in case or "Adagrad" in case else 0.0
    num_slots = SLOTS.get(case.replace("legacy ", ""), 1)
    for mask, earlier, now in zip(masks, before, after, strict=True):
        assert len(now) == num_slots
        for name in now:
            began = start if "accumulator" in name else 0.0
            assert (now[name][~mask] == np.float32(began)).all(), name
            assert np.array_equal(now[name][mask], earlier[name][mask]), name
        assert any((earlier[name][~mask] != now[name][~mask]).any() for name in now)
    for weight, mask in zip(dsd.weights(model), masks, strict=True):
        assert weight.numpy()[~mask].any()


@pytest.mark.parametrize("frequency", [None, 3])
def test_averages_are_masked_too(frequency, digits, compiled, mlp):
    adam = optimizers.Adam(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=frequency)
    model = compiled(dsd.apply(mlp(), 0.4), adam)
    seen = []

    class Look(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for w in dsd.weights(model):
                if w.mask is not None:
                    average = ours.average_of(adam, w.variable).numpy()
                    seen.append((w.numpy()[~w.mask].any(), average[~w.mask].any(), average.any()))

    with pytest.warns(UserWarning, match="pruned weights"):
        model.fit(*digits, epochs=2, verbose=0, callbacks=[
            dsd.DSDSchedule(phases=[dsd.DensePhase(1), dsd.SparsePhase(1)]), Look()])  # fmt: skip
    assert seen == [(False, False, True)] * 20
    for weight in dsd.weights(model):  # Keras has put the averages in the weights by now
        assert np.sum(weight.numpy() == 0) == round(weight.numpy().size * 0.4)


def test_a_users_constraint_is_applied_before_the_mask(digits, compiled):
    layers = tf_keras.layers
    limit = tf_keras.constraints.MaxNorm(0.5, axis=0)
    plain = tf_keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, kernel_constraint=limit)]
    )
    model = compiled(dsd.apply(plain, 0.4), optimizers.SGD(0.5))
    kernel = dsd.weights(model)[0]
    norms = []
    look = tf_keras.callbacks.LambdaCallback(
        on_batch_end=lambda *_, **__: norms.append(
            (np.linalg.norm(kernel.numpy(), axis=0).max(), np.sum(kernel.numpy() == 0))
        )
    )
    model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), look])
    assert max(norm for norm, _ in norms) < 0.5001
    assert min(norm for norm, _ in norms) > 0.4
    assert [zeros for _, zeros in norms[10:20]] == [256] * 10
    assert plain.layers[-1].kernel.constraint is limit


def test_averages_of_a_constrained_weight_are_masked_too(digits, compiled):
    layers = tf_keras.layers
    limit = tf_keras.constraints.MaxNorm(5, axis=0)
    plain = tf_keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, kernel_constraint=limit)]
    )
    adam = optimizers.Adam(use_ema=True, ema_momentum=0.5)
    model = compiled(dsd.apply(plain, 0.4), adam)
    kernel = dsd.weights(model)[0]
    kept = []

    class Look(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kept.append(np.count_nonzero(ours.average_of(adam, kernel.variable)) / 640)

    model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), Look()])
    assert kept[10:20] == [0.6] * 10
    assert kept[9] > 0.9 and kept[29] > 0.7
