"""Histograms of the weights at each boundary equal those of NumPy, on every path."""

import json

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.engine.observers import Observer
from tests.helpers.paths import classifier, compiled, keras

pytestmark = pytest.mark.once_per_keras

NAMES = [
    "before pruning", "after pruning", "end of sparse", "first re-dense epoch",
    "last re-dense epoch",
]  # fmt: skip
PHASES = [dsd.DensePhase(1), dsd.SparsePhase(1), dsd.DensePhase(2)]


class Arrays(Observer):
    """Keeps all values at each moment, and the masks."""

    def __init__(self):
        self.values, self.masks = {}, {}

    def on_moment(self, moment, weights):
        self.values[moment.name] = [weight.numpy() for weight in weights]
        self.masks[moment.name] = [weight.mask for weight in weights]


class StopAfter(keras.callbacks.Callback):
    """Stops a run after so many epochs."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.epochs


def fit(digits, kept, initial_epoch=0, model=None, epochs=None):
    """Trains, watched by `kept` and by what keeps the arrays themselves."""
    arrays = Arrays()
    schedule = dsd.DSDSchedule(phases=PHASES, observers=[kept, arrays])
    model = model or compiled(dsd.apply(classifier(), sparsity=0.3), "adam", metrics=None)
    model.fit(*digits, epochs=schedule.timeline.epochs, initial_epoch=initial_epoch, verbose=0,
              callbacks=[schedule, StopAfter(epochs)])  # fmt: skip
    return arrays, model


@pytest.fixture(scope="module")
def seen(digits):
    kept = dsd.WeightHistory()
    return kept, *fit(digits, kept)


def check(counted, values, threshold):
    """Checks a histogram against the values themselves."""
    present = values[values != 0]
    assert np.array_equal(np.histogram(present, counted.edges)[0], counted.counts)
    assert sum(counted.counts) == present.size
    assert (counted.num_zeros, counted.num_not_finite) == (values.size - present.size, 0)
    assert counted.num_large == (None if threshold is None else sum(np.abs(values) >= threshold))


@pytest.mark.parametrize("name", NAMES)
def test_all_values_are_counted_at_each_moment(seen, name):
    kept, arrays, model = seen
    assert [snapshot.name for snapshot in kept.snapshots] == NAMES
    snapshot = kept.snapshots[NAMES.index(name)]
    assert [w.path for w in snapshot.weights] == [w.short_path for w in dsd.weights(model)]
    for weight, values in zip(snapshot.weights, arrays.values[name], strict=True):
        assert weight.shape == values.shape
        check(weight.values, values.ravel(), weight.threshold)


def test_what_is_pruned_is_counted_apart_and_so_is_what_returned_until_the_end(seen):
    kept, arrays, _ = seen
    masks = arrays.masks["after pruning"]
    before, after, *_ = kept.snapshots
    assert [w.num_pruned for w in before.weights] == [0, 0]
    assert all(w.returned is w.stayed is w.threshold is None for w in before.weights)
    num_pruned = [round(0.3 * mask.size) for mask in masks]
    assert [w.num_pruned for w in after.weights] == num_pruned
    assert [w.values.num_zeros for w in after.weights] == num_pruned
    for name, snapshot in zip(NAMES[1:], kept.snapshots[1:], strict=True):
        for weight, mask, values in zip(snapshot.weights, masks, arrays.values[name], strict=True):
            check(weight.returned, values[~mask], weight.threshold)
            check(weight.stayed, values[mask], weight.threshold)
            assert weight.returned.size == round(0.3 * mask.size)
            assert weight.stayed.size == mask.size - weight.returned.size
        assert snapshot.note == ""
    assert [w.num_pruned for w in kept.snapshots[-1].weights] == [0, 0]
    assert any(w.returned.counts for w in kept.snapshots[3].weights)


def test_the_threshold_parts_what_was_pruned_from_what_was_kept(seen):
    kept, arrays, _ = seen
    dense, masks = arrays.values["before pruning"], arrays.masks["after pruning"]
    for place, (values, mask) in enumerate(zip(dense, masks, strict=True)):
        (threshold,) = {snapshot.weights[place].threshold for snapshot in kept.snapshots[1:]}
        assert np.abs(values[~mask]).max() <= threshold == np.abs(values[mask]).min()


def test_a_run_resumes_with_its_file(digits, tmp_path):
    path = tmp_path / "run" / "weights.json"
    with pytest.warns(UserWarning, match="ended with pruned weights"):
        _, model = fit(digits, dsd.WeightHistory(path), epochs=2)
    first = json.loads(path.read_text())
    assert [snapshot["name"] for snapshot in first["snapshots"]] == NAMES[:2]
    kept = dsd.WeightHistory(path)
    arrays, _ = fit(digits, kept, initial_epoch=2, model=model)
    assert [snapshot.name for snapshot in kept.snapshots] == NAMES
    assert json.loads(path.read_text()) == kept.to_dict() == json.loads(kept.to_json())
    assert kept.to_dict()["snapshots"][:2] == first["snapshots"]
    for weight, mask in zip(kept.snapshots[-1].weights, arrays.masks["end of sparse"], strict=True):
        assert weight.returned.size == np.count_nonzero(~mask)
        assert weight.threshold > 0 and weight.returned.num_large is not None
    assert dsd.WeightHistory(path).snapshots == kept.snapshots
