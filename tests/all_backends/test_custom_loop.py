"""Custom training loops on every path: the phases of `fit`."""

import re

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import forked
from tests.helpers.paths import IMPORTS, OPTIMIZERS, arrays, compiled, keras, optimizer_cases
from tests.helpers.steps import BACKEND, EXAMPLE, run, trainer
from tests.helpers.unit_gradient import members_of_optimizers, net

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


@pytest.mark.parametrize("made", optimizer_cases("adam", slow=["momentum"]))
def test_it_has_the_phases_of_fit(made, digits, mlp):
    fitted, model, optimizer = mlp(), mlp(), OPTIMIZERS[made]()
    model.set_weights(arrays(fitted))
    fitted, model = compiled(dsd.apply(fitted, 0.5), OPTIMIZERS[made]()), dsd.apply(model, 0.5)
    schedule = dsd.DSDSchedule(dense=1, sparse=2, redense=1)
    history = fitted.fit(*digits, epochs=4, verbose=0, shuffle=False, callbacks=[schedule]).history
    seen, begun = [], {}

    def look(epoch):
        seen.append((epoch, zeros(model)))
        begun.setdefault(epoch, [w.mask for w in dsd.weights(model)])

    with dsd.DSDLoop(model, optimizer, schedule) as loop:
        said = run(loop, trainer(model, optimizer, loop), digits, 4, look=look)
    sizes = [int(np.prod(weight.shape)) for weight in dsd.weights(model)]
    sparse = [counted for epoch, counted in seen if epoch in (1, 2)]
    assert sparse == [[size // 2 for size in sizes]] * 20
    assert begun[0] == begun[3] == [None, None] and all(m is not None for m in begun[2])
    for name in ("dsd_phase", "dsd_sparsity", "dsd_learning_rate"):
        assert [logs[name] for logs in said] == history[name]
    for one, two in zip(arrays(fitted), arrays(model), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


@MASKED
def test_averages_are_masked_and_optimizer_state_is_reset(digits, mlp):
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


def test_learning_rates_are_multiplied_within_an_epoch():
    """Of several optimizers, one with a schedule; what the user sets in between counts."""
    decay = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.4, 0.2])
    model = dsd.apply(net(), 0.5)
    kernel, bias = (keras.optimizers.SGD(each) for each in (0.1, decay))
    phases = [dsd.DensePhase(1), dsd.DensePhase(2, lr=0.1)]
    moves, said = [], []
    with dsd.DSDLoop(model, [kernel, bias], dsd.DSDSchedule(phases=phases)) as loop:
        for epoch in range(3):
            loop.begin_epoch(epoch)
            for _ in range(2):
                before = arrays(model)[:2]
                for each, variable in zip((kernel, bias), model.trainable_variables, strict=True):
                    one = keras.ops.ones if BACKEND != "tensorflow" else np.ones
                    each.apply_gradients([(one(variable.shape, "float32"), variable)])
                moves.append([b.flat[0] - a.flat[0]
                              for b, a in zip(before, arrays(model)[:2], strict=True)])  # fmt: skip
            assert rate(kernel) == np.float32([0.1, 0.1, 0.3][epoch])
            kernel.learning_rate = 0.3 if epoch else 0.1
            said.append(loop.end_epoch()["dsd_learning_rate"])
    kernels, biases = np.transpose(moves)
    assert kernels == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.03, 0.03], rel=1e-4)
    assert biases == pytest.approx([0.4, 0.4, 0.04, 0.04, 0.02, 0.02], rel=1e-4)
    assert said == pytest.approx([0.1, 0.03, 0.03])


def test_what_is_left_behind_by_an_exception(mlp):
    before, optimizer = members_of_optimizers(), keras.optimizers.SGD(0.05)
    schedule = dsd.DSDSchedule(phases=[dsd.DensePhase(1, lr=0.5)])
    model = dsd.apply(mlp(), 0.5)
    with pytest.raises(RuntimeError), dsd.DSDLoop(model, optimizer, schedule) as loop:
        loop.begin_epoch(0)
        assert members_of_optimizers() != before
        raise RuntimeError("disk")
    assert rate(optimizer) == np.float32(0.05) and members_of_optimizers() == before


@MASKED
def test_errors(digits, mlp):
    model, optimizer = dsd.apply(mlp(), 0.5), keras.optimizers.SGD(0.05)
    schedule = dsd.DSDSchedule(1, 1, 1)
    for arguments, error, said in [
        ((model, optimizer, 3), TypeError, "to be a DSDSchedule.*schedule=3"),
        ((model, "sgd", schedule), TypeError, "Expected `optimizer` to be of.*optimizer='sgd'"),
        ((mlp(), optimizer, schedule), ValueError, "was passed through apply"),
        ((model, [optimizer, "sgd"], schedule), TypeError, "optimizer='sgd' of type builtins.str"),
    ]:
        with pytest.raises(error, match=said):
            dsd.DSDLoop(*arguments)
    with dsd.DSDLoop(model, optimizer, dsd.DSDSchedule(0, 1, 1)) as loop:
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
