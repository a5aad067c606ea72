"""Every built-in optimizer: zeros at each batch end, slots and averages cleared at the boundary."""

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import optimizers as optimizers_of_both
from tests.helpers.watching import Zeros, pruned, run

optimizers = keras.optimizers
CASES = {
    **optimizers_of_both.OPTIMIZERS,
    "Lamb": lambda: optimizers.Lamb(0.01),
    "Muon": lambda: optimizers.Muon(0.01),
    "loss scaling": lambda: optimizers.LossScaleOptimizer(optimizers.Adam()),
    "clipped": lambda: optimizers.SGD(0.05, momentum=0.9, global_clipnorm=0.1),
    "clipped by norm": lambda: optimizers.Adam(clipnorm=0.1),
    "weight decay": lambda: optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01),
    "accumulated": lambda: optimizers.SGD(0.05, momentum=0.9, gradient_accumulation_steps=3),
    "averages": lambda: optimizers.Adam(use_ema=True, ema_momentum=0.5),
    "overwriting": lambda: optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.5,
                                          ema_overwrite_frequency=3),
}  # fmt: skip
NUM_SLOTS = {
    "Adam": 3, "AdamW": 2, "RMSprop": 3, "Adadelta": 2, "Adamax": 2, "Nadam": 2, "Ftrl": 2,
    "Lamb": 2, "loss scaling": 2, "clipped by norm": 2, "accumulated": 2, "averages": 3,
    "overwriting": 2,
}  # fmt: skip


def slots(model):
    """Every optimizer variable of a weight's shape, found without the code under test."""
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return [
        {
            v.name: np.array(v) for v in inner.variables
            if tuple(v.shape) == w.shape and v.name.startswith(w.path.replace("/", "_") + "_")
        }
        for w in dsd.weights(model)
    ]  # fmt: skip


class Boundary(keras.callbacks.Callback):
    """Keeps masks and slots from the end of the sparse phase, and slots as re-dense starts."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if epoch == 2:
            self.masks = [weight.mask for weight in dsd.weights(self.model)]
            self.before = slots(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        if self.epoch == 2 and batch == 0:
            self.after = slots(self.model)


# What these do depends on the step's number, which is traced. The others run the same lines
# compiled or not, which test_compile_options compares.
COMPILED = ("accumulated", "loss scaling", "overwriting", "Adam")


@pytest.mark.parametrize("case", optimizers_of_both.cases(CASES, *COMPILED))
def test_zeros_at_every_batch_end_and_fresh_slots_after(case, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.4), CASES[case](), run_eagerly=case not in COMPILED)
    look = Boundary()
    # Four batches. Adafactor divides by zero where a pixel is always 0.
    x, y = digits[0][:128] + 0.05, digits[1][:128]
    watch, schedule = Zeros(), dsd.DSDSchedule(1, 1, 1)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[look, schedule, watch])
    assert watch.seen[1] == [pruned(model)] * 4
    start = 0.2 if case in ("Ftrl", "Adagrad") else 0.0
    for mask, earlier, now in zip(look.masks, look.before, look.after, strict=True):
        assert len(now) in (NUM_SLOTS.get(case, 1), 2 if case == "Muon" else None)
        for name in now:
            began = start if name.endswith("accumulator") and case != "accumulated" else 0.0
            assert (now[name][~mask] == np.float32(began)).all(), name
            assert np.array_equal(now[name][mask], earlier[name][mask]), name
        assert any((earlier[name][~mask] != now[name][~mask]).any() for name in now)
    for weight, mask in zip(dsd.weights(model), look.masks, strict=True):
        assert weight.numpy()[~mask].any()


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("frequency", [None, 3])
def test_averages_are_masked_too(frequency, constrained, digits, compiled):
    layers = keras.layers
    limit = keras.constraints.MaxNorm(5, axis=0) if constrained else None
    plain = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, kernel_constraint=limit)]
    )
    adam = optimizers.Adam(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=frequency)
    model = compiled(dsd.apply(plain, 0.4), adam)
    kept = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            averages = self.model.optimizer._model_variables_moving_average
            kept.append(np.count_nonzero(np.array(averages[0])))

    run(model, *digits, callbacks=[Look()])
    assert kept[10:20] == [640 - 256] * 10
    assert kept[9] > 550 and kept[29] > 450


@pytest.mark.parametrize("first", [True, False], ids=["swap first", "swap last"])
def test_swapped_averages_never_bring_pruned_weights_back(first, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.4), optimizers.Adam(use_ema=True, ema_momentum=0.9))
    zeros = []

    class AtTestEnd(keras.callbacks.Callback):
        def on_test_end(self, logs=None):
            zeros.append([int(np.sum(w.numpy() == 0)) for w in dsd.weights(self.model)])

    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    callbacks = [dsd.DSDSchedule(1, 2, 1)]
    callbacks.insert(0 if first else 1, swap)
    watch = Zeros()
    model.fit(*digits, epochs=4, verbose=0, validation_data=digits,
              callbacks=[*callbacks, watch, AtTestEnd()])  # fmt: skip
    assert watch.seen[1] + watch.seen[2] == [pruned(model)] * 20
    assert all(n >= p for row in zeros[1:3] for n, p in zip(row, pruned(model), strict=True))


def test_a_users_constraint_is_applied_before_the_mask(digits, compiled):
    layers = keras.layers
    limit = keras.constraints.MaxNorm(0.5, axis=0)
    plain = keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, kernel_constraint=limit)]
    )
    model = compiled(dsd.apply(plain, 0.4), optimizers.SGD(0.5))
    norms = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            norms.append(np.linalg.norm(dsd.weights(self.model)[0].numpy(), axis=0))

    run(model, *digits, callbacks=[Look()])
    assert np.max(norms) < 0.5001
    assert np.max(norms[0]) > 0.4999
    assert np.max(norms[10:20]) < 0.4999  # what the constraint let through lost its pruned part
    assert plain.layers[-1].kernel.constraint is limit


class Own(optimizers.SGD):
    """An optimizer of the user's that updates in a custom way."""

    def apply_gradients(self, grads_and_vars):
        for gradient, variable in grads_and_vars:
            variable.assign(variable - 0.05 * gradient)


@pytest.mark.only_on("tensorflow")  # Keras calls apply_gradients there only
def test_an_optimizer_with_a_custom_update(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.4), Own())
    run(model, *digits)
