"""Phases that end when they have converged, on every path: early ends, leftovers, restarts."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import arrays, keras

SCRIPT = [3.0, 2.0, 2.5, 2.6, 9.0, 8.0, 7.0, 7.5, 5.0, 4.0, 4.5, 4.6]


class Scripted(keras.callbacks.Callback):
    """Puts the given values into the logs; stops after an epoch if given one."""

    def __init__(self, stop=None):
        super().__init__()
        self.stop = stop

    def on_epoch_end(self, epoch, logs=None):
        logs["quality"] = SCRIPT[epoch]
        if epoch == self.stop:
            self.model.stop_training = True


class Keep(keras.callbacks.Callback):
    """Keeps the weights of every epoch's last batch."""

    def __init__(self):
        super().__init__()
        self.ends = {}

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.ends[self.epoch] = [weight.numpy() for weight in dsd.weights(self.model)]


def schedule(restore_best=False, **options):
    until = dsd.Plateau("quality", mode="min", patience=2, restore_best=restore_best)
    phases = [dsd.DensePhase(6, until=until), dsd.SparsePhase(3, until=until), dsd.DensePhase(3)]
    return dsd.DSDSchedule(phases=phases, **options)


def train(model, data, *callbacks, first=0):
    return model.fit(*data, epochs=12, initial_epoch=first, verbose=0, shuffle=False,
                     callbacks=list(callbacks)).history  # fmt: skip


@pytest.mark.parametrize(
    "optimizer", [pytest.param("sgd", marks=pytest.mark.once_per_keras), "adam"]
)
def test_the_best_weights_of_a_phase_come_back(optimizer, digits, compiled, mlp):
    keep = Keep()
    model = compiled(dsd.apply(mlp(), 0.5), optimizer)
    entered = {}

    class Enter(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            entered[epoch] = [w.numpy() for w in dsd.weights(self.model)]

    train(model, digits, Scripted(), schedule(restore_best=True), keep, Enter())
    for before, now in zip(keep.ends[1], entered[4], strict=True):  # SCRIPT[1] was the best
        zero = now == 0
        assert zero.mean() == 0.5 and np.array_equal(before[~zero], now[~zero])
    for before, now in zip(keep.ends[6], entered[7], strict=True):  # and SCRIPT[6], the last
        assert np.array_equal(before, now)


@pytest.mark.parametrize(
    "stop", [*(pytest.param(stop, marks=pytest.mark.once_per_keras) for stop in (2, 3, 6)), 5]
)
@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
def test_a_run_resumes_with_its_backup_dir(stop, digits, compiled, mlp, tmp_path):
    def make():
        return compiled(dsd.apply(mlp(), 0.5), "sgd")

    whole = make()
    start = arrays(whole)
    history = train(whole, digits, Scripted(), schedule(restore_best=True))
    stopped, again = make(), make()
    stopped.set_weights(start)
    first = train(stopped, digits, Scripted(stop), schedule(restore_best=True, backup_dir=tmp_path))
    again.set_weights(arrays(stopped))
    rest = train(
        again, digits, Scripted(), schedule(restore_best=True, backup_dir=tmp_path), first=stop + 1
    )
    assert first["dsd_phase"] + rest["dsd_phase"] == history["dsd_phase"]
    for one, two in zip(arrays(whole), arrays(again), strict=True):
        assert np.array_equal(one, two)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
