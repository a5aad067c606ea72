"""Keras's own callbacks in the last phase alone: the model kept is not the sparse one."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import arrays, keras

# The best epoch of all is a sparse one; of the last phase, the second.
QUALITY = [5.0, 4.0, 0.1, 3.0, 2.0, 2.5, 2.6, 2.7]
BEST, STOPPED = 4, 6


class Scripted(keras.callbacks.Callback):
    """Puts a quantity into the logs, and keeps the weights of each epoch."""

    def __init__(self):
        super().__init__()
        self.weights = {}

    def on_epoch_end(self, epoch, logs=None):
        logs["val_quality"] = QUALITY[epoch]
        self.weights[epoch] = arrays(self.model)


def assert_same(model, weights):
    for ours, theirs in zip(arrays(model), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.smoke
def test_checkpoint_and_early_stopping_keep_the_best_of_the_last_phase(
    digits, compiled, mlp, tmp_path, capsys
):
    model = compiled(dsd.apply(mlp(), 0.5), run_eagerly=True)
    schedule, scripted = dsd.DSDSchedule(2, 1, 5), Scripted()
    path = tmp_path / "best.weights.h5"
    options = {"monitor": "val_quality", "mode": "min"}
    best = keras.callbacks.ModelCheckpoint(
        str(path), save_best_only=True, save_weights_only=True, **options
    )
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True, **options)
    kept = [schedule.in_last_phase(each) for each in (best, stop)]
    x, y = digits
    # Warnings, such as that a monitor is missing, are errors here.
    history = model.fit(x[:64], y[:64], epochs=8, verbose=0, callbacks=[schedule, scripted, *kept])
    assert len(history.epoch) == STOPPED + 1 and kept[1].stopped_epoch == STOPPED
    assert_same(model, scripted.weights[BEST])
    assert best.best == QUALITY[BEST]
    model.set_weights(scripted.weights[2])  # sparse
    model.load_weights(path)
    assert_same(model, scripted.weights[BEST])
    assert not any(weight.mask is not None for weight in dsd.weights(model))
    assert dsd.report(model).sparsity < 0.5
    assert "Can save best model only" not in capsys.readouterr().err
