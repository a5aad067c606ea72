"""Fits shorter than the timeline, one after another, end as one fit of all its epochs."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import paths
from tests.helpers.paths import PATH, arrays, keras

# The dense phase ends after 3 epochs, the second being the best; training ends after 8.
QUALITY = [3.0, 2.0, 9.0, 8.0, 7.0, 5.0, 4.0, 4.5]


class Measure(keras.callbacks.Callback):
    """Puts a quantity into the logs, whatever the model does."""

    def on_epoch_end(self, epoch, logs=None):
        logs["quality"] = QUALITY[epoch]


def schedule(kept, **options):
    until = dsd.Plateau("quality", mode="min", patience=1, restore_best=True)
    phases = [
        dsd.DensePhase(4, until=until), dsd.SparsePhase(2), dsd.DensePhase(3, lr=0.1, until=until),
    ]  # fmt: skip
    return dsd.DSDSchedule(phases=phases, observers=[kept], **options)


def applied():
    paths.fresh()
    paths.seed(1)
    model = dsd.apply(paths.classifier(), 0.5)
    optimizer = keras.optimizers.Adam(0.003, name="adam")
    return paths.compiled(model, optimizer, metrics=None, run_eagerly=True)


def fit(model, digits, first, end, callback):
    x, y = (part[:64] for part in digits)
    history = model.fit(x, y, initial_epoch=first, epochs=end, shuffle=False, verbose=0,
                        callbacks=[Measure(), callback])  # fmt: skip
    return history.history["dsd_phase"]


def state(model):
    found = model.optimizer.variables
    return [*arrays(model), *map(np.array, found() if callable(found) else found)]


@pytest.fixture(scope="module")
def whole(digits):
    model, kept = applied(), dsd.WeightHistory()
    phases = fit(model, digits, 0, 9, schedule(kept))
    assert phases == [0, 0, 0, 1, 1, 2, 2, 2]
    return state(model), phases, kept.snapshots


def reloaded(model, path):
    model.save(path)
    loaded = keras.saving.load_model(path)
    loaded = loaded if PATH == "tf_keras" else dsd.apply(loaded, 0.5)
    loaded.run_eagerly = True
    return loaded


@pytest.mark.filterwarnings("ignore:Training ended")
@pytest.mark.parametrize("ends", [range(1, 9), (2, 5, 8)], ids=["each epoch", "brackets"])
def test_of_one_model(ends, whole, digits):
    model, kept, phases = applied(), dsd.WeightHistory(), []
    for first, end in zip([0, *ends], ends, strict=False):
        phases += fit(model, digits, first, end, schedule(kept))
    expected, all_phases, snapshots = whole
    assert phases == all_phases and kept.snapshots == snapshots
    for one, two in zip(expected, state(model), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.filterwarnings("ignore:Training ended")
def test_of_models_from_files(whole, digits, tmp_path):
    """As in a new process: nothing of the earlier model is there but what was written."""
    model, phases, folder = applied(), [], tmp_path / "dsd"
    for first, end in ((0, 2), (2, 5), (5, 8)):
        model = reloaded(model, tmp_path / "model.keras") if first else model
        kept = dsd.WeightHistory(tmp_path / "weights.json")
        phases += fit(model, digits, first, end, schedule(kept, backup_dir=folder))
    expected, all_phases, snapshots = whole
    assert phases == all_phases
    assert [each.name for each in kept.snapshots] == [each.name for each in snapshots]
    for one, two in zip(expected, state(model), strict=True):
        assert np.array_equal(one, two)
