"""Invariants of docs/design.md, on every path."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import (
    NUM_SLOTS,
    OPTIMIZERS,
    Watch,
    arrays,
    classifier,
    compiled,
    keras,
    name_of,
    optimizer_cases,
    seed,
    slots,
)

pytestmark = pytest.mark.smoke


def pruned_at(weight, sparsity):
    """The positions of the smallest magnitudes, by the plainest rule there is."""
    flat = np.abs(weight).ravel()
    order = np.argsort(flat, kind="stable")[: round(flat.size * sparsity)]
    mask = np.zeros(flat.size, bool)
    mask[order] = True
    return mask.reshape(weight.shape)


def kernels(model):
    return [weight.numpy() for weight in dsd.weights(model)]


@pytest.mark.parametrize("name", optimizer_cases("adam", slow=["momentum"]))
def test_first_dense_phase_is_plain_bit_for_bit(digits, name):
    trained = []
    for arm in ("plain", "dsd"):
        seed(3)
        model = classifier("conv")
        callbacks = []
        if arm == "dsd":
            model = dsd.apply(model, 0.5)
            callbacks = [dsd.DSDSchedule(phases=[dsd.DensePhase(2)])]
        compiled(model, OPTIMIZERS[name]())
        seed(4)
        history = model.fit(*digits, epochs=2, verbose=0, callbacks=callbacks)
        model = dsd.strip(model) if arm == "dsd" else model
        trained.append((arrays(model), history.history["loss"]))
    (plain, plain_loss), (ours, our_loss) = trained
    assert plain_loss == our_loss
    assert len(plain) == len(ours)
    assert all(np.array_equal(a, b) for a, b in zip(plain, ours, strict=True))


def test_tensors_of_every_size_are_pruned():
    """By size they are masked with others, alone, or in parts that a cache holds."""
    seed(5)
    layers = [keras.layers.Dense(units) for units in (1100, 1100, 10)]
    model = dsd.apply(keras.Sequential([keras.layers.Input((9,)), *layers]), 0.3)
    watch = Watch(kernels)
    random = np.random.default_rng(0)
    compiled(model).fit(
        random.normal(size=(20, 9)), random.integers(0, 10, 20), batch_size=10, epochs=3,
        verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), watch],
    )  # fmt: skip
    masks = [pruned_at(weight, 0.3) for weight in watch.of_epoch(0)[-1]]
    for batch in watch.of_epoch(1):
        for weight, pruned in zip(batch, masks, strict=True):
            assert np.array_equal(weight == 0, pruned)
    assert all(weight.all() for weight in watch.of_epoch(2)[-1])


@pytest.mark.parametrize(("kind", "name"), [
    ("mlp", "momentum"), ("conv", "adam"),
    pytest.param("mlp", "adamw", marks=[pytest.mark.slow, pytest.mark.exhaustive]),
])  # fmt: skip
def test_the_three_phases_batch_by_batch(digits, name, kind):
    seed(5)
    model = compiled(dsd.apply(classifier(kind), 0.3), OPTIMIZERS[name]())
    watch = Watch(kernels)
    history = model.fit(
        *digits, epochs=6, verbose=0, callbacks=[dsd.DSDSchedule(2, 2, 2), watch]
    ).history

    dense_end = watch.of_epoch(1)[-1]
    masks = [pruned_at(weight, 0.3) for weight in dense_end]
    sparse = watch.of_epoch(2) + watch.of_epoch(3)
    assert len(sparse) == 20
    for batch in sparse:
        for weight, pruned in zip(batch, masks, strict=True):
            assert not weight[pruned].any()
            assert np.count_nonzero(weight == 0) == round(weight.size * 0.3)
    for before, after, pruned in zip(
        watch.of_epoch(3)[-1], watch.of_epoch(4)[0], masks, strict=True
    ):
        assert not before[pruned].any()
        assert after[pruned].any()
    returned = [w[p] != 0 for w, p in zip(watch.of_epoch(5)[-1], masks, strict=True)]
    assert np.mean(np.concatenate(returned)) > 0.25  # the others see dead pixels and units
    assert history["dsd_phase"] == [0, 0, 1, 1, 2, 2]
    zeros = sum(pruned.sum() for pruned in masks) / sum(pruned.size for pruned in masks)
    assert history["dsd_sparsity"][2:4] == pytest.approx([zeros, zeros], abs=1e-12)
    assert history["dsd_sparsity"][0] == 0 and history["dsd_sparsity"][5] < 0.15


@pytest.mark.parametrize("name", optimizer_cases("momentum", "adam"))
def test_redense_starts_at_zero_without_momentum(digits, name):
    seed(6)
    model = compiled(dsd.apply(classifier(), 0.4), OPTIMIZERS[name]())

    class AtFirstBatch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.epoch == 3 and batch == 0:
                self.weights = [(w.numpy(), slots(self.model, w)) for w in dsd.weights(model)]

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch
            if epoch == 3:
                self.masks = [w.mask for w in dsd.weights(model)]

    class BeforeIt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                self.masks = [w.mask for w in dsd.weights(model)]
                self.slots = [slots(self.model, w) for w in dsd.weights(model)]

    before, first = BeforeIt(), AtFirstBatch()
    model.fit(*digits, epochs=4, verbose=0, callbacks=[before, dsd.DSDSchedule(1, 2, 1), first])
    assert first.masks == [None] * 2
    for mask, earlier, (weight, now) in zip(before.masks, before.slots, first.weights, strict=True):
        assert np.count_nonzero(~mask) == round(mask.size * 0.4)
        assert not weight[~mask].any()
        assert len(now) == NUM_SLOTS[name]
        for slot_name, slot in now.items():
            assert earlier[slot_name][~mask].any()
            assert not slot[~mask].any()
            assert np.array_equal(slot[mask], earlier[slot_name][mask])


def test_the_mask_is_read_back_off_the_weights(digits):
    seed(7)
    model = compiled(dsd.apply(classifier(), 0.5))
    with pytest.warns(UserWarning, match="ended with pruned weights"):
        model.fit(*digits, epochs=2, verbose=0, callbacks=[dsd.DSDSchedule(
            phases=[dsd.DensePhase(1), dsd.SparsePhase(1)])])  # fmt: skip
    for weight in dsd.weights(model):
        assert np.array_equal(weight.mask, ~pruned_at(weight.numpy(), 0.5))
        assert np.array_equal(weight.mask, weight.numpy() != 0)


def test_a_second_sparse_phase_prunes_less_from_the_same_weights(digits):
    seed(8)
    model = compiled(dsd.apply(classifier(), 0.5))
    phases = [
        dsd.SparsePhase(1), dsd.DensePhase(1), dsd.SparsePhase(1, sparsity=0.25), dsd.DensePhase(1),
    ]  # fmt: skip
    history = model.fit(*digits, epochs=4, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases)])
    assert history.history["dsd_phase"] == [0, 1, 2, 3]
    assert history.history["dsd_sparsity"][0] == pytest.approx(0.5, abs=1e-3)
    assert history.history["dsd_sparsity"][2] == pytest.approx(0.25, abs=1e-3)


def test_a_lower_sparsity_right_after_a_sparse_phase_returns_weights(digits):
    seed(8)
    model = compiled(dsd.apply(classifier(), 0.5), OPTIMIZERS["momentum"]())
    phases = [dsd.SparsePhase(1), dsd.SparsePhase(1, sparsity=0.25), dsd.DensePhase(1)]
    watch = Watch(lambda model: [weight.mask for weight in dsd.weights(model)])
    model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases), watch])
    for first, second in zip(watch.of_epoch(0)[-1], watch.of_epoch(1)[0], strict=True):
        assert np.count_nonzero(~second) == round(second.size * 0.25)
        assert not (first & ~second).any()


def test_strip_leaves_no_trace(digits, tmp_path):
    results = []
    for arm in ("plain", "dsd"):
        keras.backend.clear_session()
        seed(9)
        model = classifier("conv")
        if arm == "dsd":
            model = dsd.strip(dsd.apply(compiled(model), 0.3))
        results.append(model)
    plain, stripped = results
    assert type(plain) is type(stripped)
    assert plain.get_config() == stripped.get_config()
    assert [name_of(w) for w in plain.weights] == [name_of(w) for w in stripped.weights]
    assert [w.shape for w in plain.weights] == [w.shape for w in stripped.weights]
    stripped.set_weights(plain.get_weights())
    assert np.array_equal(
        plain.predict(digits[0], verbose=0), stripped.predict(digits[0], verbose=0)
    )


def test_strip_shares_weights_and_stays_compiled(digits):
    seed(10)
    original = classifier("conv")
    wrapped = compiled(dsd.apply(original, 0.3))
    wrapped.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    stripped = dsd.strip(wrapped)
    assert all(a is b for a, b in zip(original.weights, stripped.weights, strict=True))
    assert stripped.optimizer is wrapped.optimizer
    assert stripped.evaluate(*digits, verbose=0) == wrapped.evaluate(*digits, verbose=0)
    features = keras.Model(stripped.inputs, stripped.layers[0].output)
    assert features.predict(digits[0], verbose=0).shape == (320, 6, 6, 6)
