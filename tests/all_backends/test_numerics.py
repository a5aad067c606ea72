"""Weights that are NaN, infinite, or have underflowed to zero, on every path."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import Watch, arrays, classifier, compiled, keras, left_behind

callbacks = keras.callbacks
SPARSITY = 0.5


class Spoil(callbacks.Callback):
    """Sets one value of a weight at the end of an epoch, and keeps all weights as they are then."""

    def __init__(self, epoch, value):
        super().__init__()
        self.epoch, self.value = epoch, value

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            weight = dsd.weights(self.model)[1]
            values = weight.numpy()
            values[np.unravel_index(np.argmax(np.abs(values)), values.shape)] = self.value
            weight.assign(values)
            self.left = arrays(self.model)
            self.masks = [each.mask for each in dsd.weights(self.model)]


def same(some, others):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(some, others, strict=True))


SLOW = pytest.mark.slow
EXHAUSTIVE = (SLOW, pytest.mark.exhaustive)


@pytest.mark.parametrize(("epoch", "value"), [
    (1, np.nan), pytest.param(0, -np.inf, marks=SLOW), pytest.param(0, np.nan, marks=EXHAUSTIVE),
    pytest.param(1, np.inf, marks=EXHAUSTIVE),
])  # fmt: skip
def test_a_phase_does_not_start_with_weights_that_are_nan(epoch, value, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), SPARSITY), "sgd")
    schedule, spoil, good = dsd.DSDSchedule(1, 1, 1), Spoil(epoch, value), arrays(model)
    path = dsd.weights(model)[1].path
    said = f"Received: {path} with 1 of 160 values.*No weight is changed"
    with pytest.raises(ValueError, match=said):
        model.fit(*digits, epochs=3, verbose=0, callbacks=[schedule, spoil])
    assert same(arrays(model), spoil.left)
    for before, weight in zip(spoil.masks, dsd.weights(model), strict=True):
        assert np.array_equal(before, weight.mask)
        assert (weight.mask is None) == (epoch == 0)
    model.set_weights(good)
    history = model.fit(*digits, epochs=3, verbose=0, callbacks=[schedule]).history
    assert history["dsd_phase"] == [0, 1, 2] and history["dsd_sparsity"][1] == SPARSITY
    assert left_behind(model) == set() and np.isfinite(np.concatenate(flat(model))).all()


ENDS = [(0, False), (1, True), (2, True)]


def flat(model):
    return [each.ravel() for each in arrays(model)]


@pytest.mark.parametrize(("epoch", "last"), [
    (1, False), (0, True), pytest.param(2, False, marks=SLOW),
    *(pytest.param(*each, marks=EXHAUSTIVE) for each in ENDS),
])  # fmt: skip
def test_terminate_on_nan_ends_a_run_wherever_it_stands(epoch, last, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), SPARSITY), "sgd")
    good = arrays(model)

    class Diverge(callbacks.Callback):
        def on_epoch_begin(self, epoch_, logs=None):
            if epoch_ == epoch:
                bias = self.model.trainable_variables[-1]
                bias.assign(np.full(bias.shape, np.nan, "float32"))

    watch = Watch(lambda model: None)
    listed = [dsd.DSDSchedule(1, 1, 1), callbacks.TerminateOnNaN()]
    listed = [Diverge(), *(listed if last else listed[::-1]), watch]
    schedule = listed[1 if last else 2]

    def train():
        model.fit(*digits, epochs=3, verbose=0, callbacks=listed)

    if epoch == 1:
        with pytest.warns(UserWarning, match="Training ended with pruned weights") as caught:
            train()
        # Nothing is said of a mask that did not hold: NaN times a mask is NaN.
        assert [each.category for each in caught].count(UserWarning) == 1
    else:
        train()
    assert len(watch.of_epoch(epoch)) == 1 and not watch.of_epoch(epoch + 1)
    assert left_behind(model) == set()
    model.set_weights(good)
    compiled(model, "sgd")  # the optimizer's slots are NaN too
    history = model.fit(*digits, epochs=3, verbose=0, callbacks=[schedule]).history
    assert history["dsd_phase"] == [0, 1, 2] and history["dsd_sparsity"][1] == SPARSITY


@pytest.fixture(params=["float16", pytest.param("mixed_float16", marks=SLOW)])
def policy(request):
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy("float32")


def underflowing():
    """Returns a model in which each step takes three quarters of what the first kernel holds.

    That is all there is to those of its weights that stand behind pixels that are always black.
    """
    model = dsd.apply(classifier(), SPARSITY)
    optimizer = keras.optimizers.SGD(0.05, weight_decay=15.0)
    kernel = dsd.weights(model)[0].variable
    others = [variable for variable in model.trainable_variables if variable is not kernel]
    optimizer.exclude_from_weight_decay(var_list=others)
    return compiled(model, optimizer, metrics=None)


def kept_zeros(model):
    """Returns how many weights that are kept are zero, as the layers compute with them."""
    return sum(
        int(np.count_nonzero((weight.numpy().astype("float16") == 0) & weight.mask))
        for weight in dsd.weights(model)
    )


class Fail(callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 2:
            raise RuntimeError("stop")


def test_what_underflows_is_not_taken_for_pruned(policy, digits):
    model, schedule = underflowing(), dsd.DSDSchedule(1, 3, 1)
    watch = Watch(lambda model: [weight.mask for weight in dsd.weights(model)])
    with pytest.raises(RuntimeError, match="stop"):
        model.fit(*digits, epochs=5, verbose=0, callbacks=[schedule, watch, Fail()])
    assert kept_zeros(model) > 50
    assert dsd.report(model).sparsity == SPARSITY
    assert {row.masked for row in dsd.report(model).weights} == {True}
    # A resumed run computes its masks again, from weights with many zeros.
    history = model.fit(*digits, epochs=5, initial_epoch=3, verbose=0,
                        callbacks=[schedule, watch]).history  # fmt: skip
    assert history["dsd_sparsity"][0] == SPARSITY
    for epoch in (2, 3):
        for masks in watch.of_epoch(epoch):
            assert all(map(np.array_equal, masks, watch.of_epoch(1)[0]))
    # It ended without a warning, though nearly as many weights are zero as were pruned, or more.
    assert policy != "float16" or history["dsd_sparsity"][1] > 0.4
