"""Sensitivity scans of a real model, on every path."""

import json
import re

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import (
    IN,
    PATH,
    arrays,
    classifier,
    compiled,
    double_precision,
    keras,
    seed,
)

LEVELS = (0.3, 0.6, 0.9)


@pytest.fixture
def model(digits):
    """A model of digits, trained a little, that went through apply."""
    trained = compiled(classifier("conv"), keras.optimizers.Adam(1e-2), metrics=[])
    trained.fit(*digits, epochs=2, verbose=0)
    return dsd.apply(trained, 0.3)


@pytest.fixture
def loss(digits):
    return lambda model: model.evaluate(*digits, verbose=0)


def pruned(values, level):
    """Zeros at the smallest magnitudes, by the plainest rule there is."""
    flat = values.ravel().copy()
    flat[np.argsort(np.abs(flat), kind="stable")[: round(flat.size * level)]] = 0
    return flat.reshape(values.shape)


def bits(values):
    return [value.tobytes() for value in values]


def test_each_weight_is_pruned_alone_and_all_are_put_back(model, loss):
    before = arrays(model)
    kernels = dsd.weights(model)
    alike = [np.flatnonzero([np.array_equal(w.numpy(), b) for b in before]) for w in kernels]
    places = [int(place) for (place,) in alike]
    seen = []

    def evaluate(given):
        assert given is model
        seen.append((arrays(model), loss(model)))
        return seen[-1][1]

    scan = dsd.sensitivity(model, evaluate, LEVELS, progress=False)

    assert len(seen) == 1 + len(kernels) * len(LEVELS) == 10
    assert bits(seen[0][0]) == bits(before)
    points = iter(seen[1:])
    for place in places:
        for level in LEVELS:
            expected = list(before)
            expected[place] = pruned(before[place], level)
            assert bits(next(points)[0]) == bits(expected)
    assert bits(arrays(model)) == bits(before)
    assert scan.baseline == seen[0][1] == loss(model)
    assert [v for point in scan.points for v in point.values] == [v for _, v in seen[1:]]
    assert [(p.path, p.shape) for p in scan.points] == [(w.short_path, w.shape) for w in kernels]
    assert len({v for _, v in seen}) == 10  # what is set takes effect in the compiled step
    assert all(weight.mask is None for weight in dsd.weights(model))


class Interrupt(keras.callbacks.Callback):
    """Raises in the middle of an evaluation, where JAX keeps the values outside of the model."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_test_batch_end(self, batch, logs=None):
        if batch == 4:
            raise self.error


@pytest.mark.parametrize(
    ("at", "error"), [(0, RuntimeError), (2, KeyboardInterrupt), (4, RuntimeError)]
)
@pytest.mark.once_per_keras
def test_a_scan_that_stopped_leaves_no_trace_and_resumes(digits, model, loss, tmp_path, at, error):
    path = tmp_path / "scan.json"
    whole = dsd.sensitivity(model, loss, LEVELS, progress=False)
    before = arrays(model)
    values = []

    def stopped(model):
        if len(values) == at:
            model.evaluate(*digits, verbose=0, callbacks=[Interrupt(error)])
        values.append(loss(model))
        return values[-1]

    def resumed(model):
        values.append(loss(model))
        return values[-1]

    with pytest.raises(error):
        dsd.sensitivity(model, stopped, LEVELS, path=path, progress=False)
    assert bits(arrays(model)) == bits(before)
    assert len(values) == at
    assert loss(model) == whole.baseline
    found = dsd.sensitivity(model, resumed, LEVELS, path=path, progress=False)
    assert found == whole
    assert values == [whole.baseline, *(v for point in whole.points for v in point.values)]
    assert bits(arrays(model)) == bits(before)
    assert json.loads(path.read_text())["baseline"] == whole.baseline


@pytest.mark.filterwarnings("ignore:fit has trained model=")
@pytest.mark.once_per_keras
def test_the_model_trains_on_as_if_it_had_not_been_scanned(digits, loss):
    trained = []
    for scanned in (False, True):
        keras.backend.clear_session()
        seed(7)
        model = compiled(dsd.apply(classifier()), metrics=[])
        model.fit(*digits, epochs=1, shuffle=False, verbose=0)
        if scanned:
            dsd.sensitivity(model, loss, [0.5], progress=False)
        model.fit(*digits, epochs=3, shuffle=False, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
        trained.append(arrays(model))
    assert bits(trained[0]) == bits(trained[1])


@pytest.mark.once_per_keras
def test_apply_takes_what_is_recommended(model, loss):
    scan = dsd.sensitivity(model, loss, LEVELS, progress=False)
    spread = scan.recommend(overall=0.4)
    model = dsd.apply(dsd.strip(model), spread)
    asked = {"^" + re.escape(w.short_path) + "$": w.sparsity for w in dsd.weights(model)}
    assert len(asked) == 3
    sizes = [int(np.prod(w.shape)) for w in dsd.weights(model)]
    assert np.average([*asked.values()], weights=sizes) == pytest.approx(0.4, abs=1e-3)
    assert asked == {key: level for key, level in spread.items() if level}
    bounded = scan.recommend(max_drop=0.2)
    model = dsd.apply(dsd.strip(model), bounded)
    assert {w.sparsity for w in dsd.weights(model)} <= set(LEVELS)


@pytest.mark.once_per_keras
def test_a_scan_fits_the_model_that_its_file_loads(model, loss, tmp_path):
    scan = dsd.sensitivity(model, loss, LEVELS, path=tmp_path / "scan.json", progress=False)
    dsd.strip(model).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = dsd.apply(loaded, scan.recommend(overall=0.4))
    assert sum(w.sparsity > 0 for w in dsd.weights(again)) == 3
    again = dsd.apply(dsd.strip(again), 0.3)
    found = dsd.sensitivity(again, pytest.fail, LEVELS, path=tmp_path / "scan.json", progress=False)
    assert found == scan


@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
@pytest.mark.once_per_keras
def test_a_total_counts_what_a_pattern_leaves_dense_at_edges(digits, loss):
    pattern = dsd.Block(3, 3)  # leaves a row of 64 dense, a column of 16 and of 10
    model = compiled(dsd.apply(classifier(), pattern=pattern), metrics=[])
    scan = dsd.sensitivity(model, loss, LEVELS, progress=False)
    model = dsd.apply(dsd.strip(model), scan.recommend(overall=0.4), pattern=pattern)
    phases = [dsd.SparsePhase(1)]
    model.fit(*digits, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases)])
    assert dsd.report(model).sparsity == pytest.approx(0.4, abs=9 / 1184)


@pytest.mark.once_per_keras
def test_a_frozen_weight_that_was_named_is_named_by_what_is_recommended(digits, loss):
    model = classifier()
    model.layers[1].trainable = False
    frozen = IN + "dense/kernel"
    model = compiled(dsd.apply(model, {frozen: 0.3, "dense_1": 0.3}), metrics=[])
    scan = dsd.sensitivity(model, loss, LEVELS, progress=False)
    assert [point.path for point in scan.points] == ["dense/kernel", "dense_1/kernel"]
    model = dsd.apply(dsd.strip(model), scan.recommend(overall=0.5))
    assert [weight.path for weight in dsd.weights(model)] == [frozen, IN + "dense_1/kernel"]


@pytest.mark.once_per_keras
def test_a_sparse_phase_is_refused(digits, model, loss):
    with pytest.warns(UserWarning, match="pruned weights"):
        model.fit(*digits, verbose=0, callbacks=[dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])])
    before = arrays(model)
    with pytest.raises(ValueError, match=f"dense phase.*active mask of {IN}conv2d/kernel"):
        dsd.sensitivity(model, pytest.fail, LEVELS)
    assert bits(arrays(model)) == bits(before)


@pytest.mark.filterwarnings("ignore:fit has trained model=")
@pytest.mark.once_per_keras
def test_it_may_be_scanned_inside_of_fit(digits, model, loss):
    class Scan(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            before = arrays(self.model)
            scans.append(dsd.sensitivity(self.model, value, [0.5], progress=False))
            assert bits(arrays(self.model)) == bits(before)

    scans, value = [], lambda model: np.abs(arrays(model)[0]).sum()
    model.fit(*digits, epochs=2, verbose=0, callbacks=[Scan()])
    assert len(scans) == 2
    assert all(scan.points[0].values[0] < scan.baseline for scan in scans)


@pytest.mark.parametrize(
    "thing", [None, "model", keras.optimizers.SGD()], ids=["None", "str", "SGD"]
)
@pytest.mark.once_per_keras
def test_other_than_a_model_is_refused(thing):
    with pytest.raises(TypeError, match="Expected `model` to be a .*model or layer"):
        dsd.sensitivity(thing, pytest.fail)


@pytest.mark.once_per_keras
def test_a_model_that_is_not_ready_is_refused(mlp):
    with pytest.raises(ValueError, match=r"through apply\(\).*model='sequential'"):
        dsd.sensitivity(mlp(), pytest.fail)
    layers = keras.layers
    later = dsd.apply(keras.Sequential([layers.Dense(4), layers.Dense(2)], name="later"))
    with pytest.raises(ValueError, match="built model.*model='later'.*Build or train it"):
        dsd.sensitivity(later, pytest.fail)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_are_put_back_to_the_bit(dtype):
    if PATH == "tf_keras" and dtype == "bfloat16":
        dtype = "float16"
    with double_precision():
        layer = keras.layers.Dense(8, dtype=dtype)
        model = dsd.apply(keras.Sequential([keras.layers.Input((16,)), layer]))
        before, seen = arrays(model), []
        dsd.sensitivity(model, lambda m: seen.append(arrays(m)) or len(seen), [0.5], progress=False)
        assert bits(arrays(model)) == bits(before) == bits(seen[0])
        assert np.count_nonzero(seen[1][0] == 0) == 64


@pytest.mark.once_per_keras
def test_blocks_are_pruned_as_blocks_and_what_fixes_its_sparsity_is_refused(loss):
    model = compiled(dsd.apply(classifier("mlp"), 0.3, pattern=dsd.Block(4, 2)), metrics=[])
    seen = []

    def evaluate(given):
        seen.append([w.numpy() for w in dsd.weights(given)])
        return 1.0

    dsd.sensitivity(model, evaluate, [0.5], progress=False)
    blocks = seen[1][0].reshape(16, 4, 8, 2) == 0
    assert np.array_equal(blocks.all(axis=(1, 3)), blocks.any(axis=(1, 3)))
    assert blocks.mean() == 0.5
    grouped = dsd.apply(classifier("mlp"), pattern=dsd.NM(2, 4))
    with pytest.raises(ValueError, match=r"at every level.*NM\(n=2, m=4\), which fixes"):
        dsd.sensitivity(grouped, loss, progress=False)
