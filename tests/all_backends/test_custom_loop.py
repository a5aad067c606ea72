"""Training loops of the user's own, on every path: the phases that `fit` goes through."""

import re

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import forked
from tests.helpers.paths import IMPORTS, OPTIMIZERS, arrays, compiled, keras
from tests.helpers.steps import BACKEND, EXAMPLE, run, trainer

MASKED = pytest.mark.filterwarnings("ignore:Training ended with pruned weights")


def slots(optimizer, shape):
    """Returns the optimizer's variables of a shape, as arrays."""
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    return [np.array(each) for each in variables if tuple(each.shape) == tuple(shape)]


def with_averages():
    return keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.5)


def zeros(model):
    return [int((weight.numpy() == 0).sum()) for weight in dsd.weights(model)]


def rate(optimizer):
    return float(np.array(optimizer.learning_rate))


@pytest.mark.parametrize("made", OPTIMIZERS)
def test_it_goes_through_the_phases_as_fit_does(made, digits, mlp):
    fitted, model, optimizer = mlp(), mlp(), OPTIMIZERS[made]()
    model.set_weights(arrays(fitted))
    fitted, model = compiled(dsd.apply(fitted, 0.5), OPTIMIZERS[made]()), dsd.apply(model, 0.5)
    schedule = dsd.DSDSchedule(dense=1, sparse=2, redense=1)
    history = fitted.fit(*digits, epochs=4, verbose=0, shuffle=False, callbacks=[schedule]).history
    seen, rates, begun = [], [], {}

    def look(epoch):
        seen.append((epoch, zeros(model)))
        rates.append(rate(optimizer))
        begun.setdefault(epoch, [w.mask for w in dsd.weights(model)])

    with dsd.DSDLoop(model, optimizer, schedule) as loop:
        said = run(loop, trainer(model, optimizer, loop), digits, 4, look=look)
    sizes = [int(np.prod(weight.shape)) for weight in dsd.weights(model)]
    sparse = [counted for epoch, counted in seen if epoch in (1, 2)]
    assert sparse == [[size // 2 for size in sizes]] * 20
    assert begun[0] == begun[3] == [None, None] and all(m is not None for m in begun[2])
    assert np.unique(rates[:30]) == rate(optimizer)
    assert np.unique(rates[30:]) == np.float32(np.float32(rate(optimizer)) * np.float32(0.1))
    for name in ("dsd_phase", "dsd_sparsity"):
        assert [logs[name] for logs in said] == history[name]
    for one, two in zip(arrays(fitted), arrays(model), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


@MASKED
def test_averages_are_masked_and_slots_begin_anew(digits, mlp):
    model, optimizer = dsd.apply(mlp(), 0.5), with_averages()
    schedule = dsd.DSDSchedule(phases=[dsd.DensePhase(1), dsd.SparsePhase(1), dsd.DensePhase(1)])
    with dsd.DSDLoop(model, optimizer, schedule) as loop:
        train = trainer(model, optimizer, loop)
        run(loop, train, digits, 2)
        weight = dsd.weights(model)[0]
        pruned = ~weight.mask
        momentum_and_average = slots(optimizer, weight.shape)
        assert len(momentum_and_average) == 2
        assert sorted(bool(np.any(each[pruned])) for each in momentum_and_average) == [False, True]
        loop.begin_epoch(2)
        for before, now in zip(momentum_and_average, slots(optimizer, weight.shape), strict=True):
            assert not np.any(now[pruned]) and np.array_equal(now[~pruned], before[~pruned])
        assert weight.mask is None and not np.any(weight.numpy()[pruned])


@MASKED
def test_masks_are_for_those_variables_that_are_pruned(digits, mlp):
    model, optimizer = dsd.apply(mlp(), {"dense_1/kernel": 0.5}), with_averages()
    with dsd.DSDLoop(model, optimizer, dsd.DSDSchedule(0, 1, 1)) as loop:
        for early in (loop.masks, loop.apply_masks, loop.end_epoch):
            with pytest.raises(ValueError, match="begin_epoch.. before"):
                early()
        loop.begin_epoch(0)
        with pytest.raises(ValueError, match="end_epoch.. before the next begin_epoch"):
            loop.begin_epoch(1)
        with pytest.raises(TypeError, match="logs=0.5"):
            loop.end_epoch(0.5)
        train = trainer(model, optimizer, loop)
        train([tuple(part[:32] for part in digits)])
        masks = loop.masks()
        assert [mask is None for mask in masks] == [True, True, False, True]
        (weight,) = dsd.weights(model)
        assert np.array_equal(np.array(masks[2]), weight.mask) and weight.mask.dtype == bool
        assert np.array(masks[2]).dtype == bool
        kept = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
        assert sum(mask is not None for mask in loop.masks(kept)) == 1


def test_an_exception_gives_the_learning_rate_back(digits, mlp):
    model, optimizer = dsd.apply(mlp(), 0.5), keras.optimizers.SGD(0.05)
    schedule = dsd.DSDSchedule(phases=[dsd.DensePhase(1, lr=0.5)])
    with pytest.raises(RuntimeError), dsd.DSDLoop(model, optimizer, schedule) as loop:
        loop.begin_epoch(0)
        assert rate(optimizer) == np.float32(0.025)
        raise RuntimeError("disk")
    assert rate(optimizer) == np.float32(0.05)


def test_what_the_user_does_to_the_learning_rate_counts(mlp):
    model, optimizer = dsd.apply(mlp(), 0.5), keras.optimizers.SGD(0.05)
    schedule = dsd.DSDSchedule(phases=[dsd.DensePhase(3, lr=0.5)])
    with dsd.DSDLoop(model, optimizer, schedule) as loop:
        loop.begin_epoch(0)
        optimizer.learning_rate = 0.01  # within an epoch: the rate in use
        loop.end_epoch()
        assert rate(optimizer) == np.float32(0.02)
        optimizer.learning_rate = 0.04  # between epochs: the user's own
        loop.begin_epoch(1)
        assert rate(optimizer) == np.float32(0.02)
        loop.end_epoch()


@MASKED
def test_errors(digits, mlp):
    model, optimizer = dsd.apply(mlp(), 0.5), keras.optimizers.SGD(0.05)
    schedule = dsd.DSDSchedule(1, 1, 1)
    computed = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    for arguments, error, said in [
        ((model, optimizer, 3), TypeError, "to be a DSDSchedule.*schedule=3"),
        ((model, "sgd", schedule), TypeError, "Expected `optimizer` to be of.*optimizer='sgd'"),
        ((mlp(), optimizer, schedule), ValueError, "went through apply"),
        ((model, keras.optimizers.SGD(computed), schedule), ValueError, "rate is a number"),
    ]:
        with pytest.raises(error, match=said):
            dsd.DSDLoop(*arguments)
    same = dsd.DSDSchedule(0, 1, 1, redense_lr=1.0)
    with dsd.DSDLoop(model, keras.optimizers.SGD(computed), same) as loop:
        with pytest.raises(ValueError, match="begin_epoch.. before apply_masks"):
            loop.apply_masks()
        loop.begin_epoch(0)
        if BACKEND == "tensorflow":
            import tensorflow as tf

            with pytest.raises(ValueError, match="outside of tf.function"):
                tf.function(loop.apply_masks)()
        loop.apply_masks()


@pytest.mark.slow
def test_the_example_runs():
    flags = ["--keras=2" if keras.__name__ == "tf_keras" else "--keras=3", "--epochs=1"]
    done = forked.run(EXAMPLE, *flags, imports=IMPORTS)
    assert done.returncode == 0, done.stderr[-3000:]
    phases = re.findall(r"^epoch +\d, phase (\d): sparsity (\d+\.\d\d)%", done.stdout, re.M)
    assert [phase for phase, _ in phases] == ["0", "1", "2"] and phases[1][1] == "50.00"
