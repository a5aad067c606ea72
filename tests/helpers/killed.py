"""Trainings that are killed: forked from a process that has imported all, but computed nothing.

    python -m tests.helpers.killed FOLDER SCENARIO [SCENARIO ...]

A scenario is a JSON object: see `train`. Each runs in a child process, which writes its results
to FOLDER/<name>.npz unless it is killed. Prints the name and exit status of each scenario.
"""

import functools
import importlib
import json
import os
import pathlib
import signal
import sys
import time

import numpy as np

import keras_dsd as dsd
from tests.helpers import digits, paths, programs

keras = paths.keras
EPOCHS = 6
# A training imports these late: each child would, for seconds.
for late in ("tensorflow", *["tensorflow_model_optimization"] * (paths.PATH == "tf_keras")):
    importlib.import_module(late)


class Kill(keras.callbacks.Callback):
    """Ends the process as a power cut would, when a hook is called.

    Args:
        hook: Its name.
        count: When it is called for this time, counted from 0.
    """

    def __init__(self, hook, count):
        super().__init__()
        self.left = count
        setattr(self, hook, self._called)

    def _called(self, *args, **kwargs):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


class Quality(keras.callbacks.Callback):
    """Measures something that gets better and worse."""

    def on_epoch_end(self, epoch, logs=None):
        logs["quality"] = [2.0, 3.0, 1.0, 2.0, 3.0, 3.0][epoch]


class Masks(keras.callbacks.Callback):
    """Keeps the masks of the sparse phase's last epoch."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 3:
            masks = [weight.mask for weight in dsd.weights(self.model)]
            self.masks = [mask for mask in masks if mask is not None]


def classifier():
    """Returns a model with state besides its weights; no dropout: tf_keras restores no seeds."""
    layers = keras.layers
    return keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(6, 3), layers.BatchNormalization(), layers.ReLU(),
        layers.Flatten(), layers.Dense(16, activation="relu"), layers.Dense(10),
    ])  # fmt: skip


def schedule_of(kind, folder):
    """Returns the schedule of a scenario: most prune for epochs 2 and 3, counted from 0."""
    if kind == "steps":
        phases = [dsd.DensePhase(steps=14), dsd.SparsePhase(steps=23), dsd.DensePhase(steps=18)]
        return dsd.DSDSchedule(phases=phases, remaining_epochs="stop")
    if kind in ("rates", "rates, steps"):
        given = {"steps": 17} if kind == "rates, steps" else {"epochs": 2}
        shape = dsd.Decay("linear", start=0.5, end=0.1)
        phases = [dsd.DensePhase(2, lr="cosine"), dsd.SparsePhase(**given, lr=shape)]
        return dsd.DSDSchedule(phases=[*phases, dsd.DensePhase(2, lr=lambda step: 0.9**step)])
    if kind == "dense":
        return dsd.DSDSchedule(phases=[dsd.DensePhase(EPOCHS)])
    if kind == "ways":
        last = dsd.DensePhase(2, lr=0.5, regrow_fraction=0.5, regrow_decay=2.0, ema=0.9)
        phases = [dsd.DensePhase(1), dsd.SparsePhase(3, criterion="taylor", ramp=2), last]
        return dsd.DSDSchedule(phases=phases, backup_dir=folder)
    if kind != "until":
        return dsd.DSDSchedule(2, 2, 2, reset="all" if kind == "all" else "pruned")
    until = dsd.Plateau("quality", mode="min", patience=1, restore_best=True)
    phases = [dsd.DensePhase(3, until=until), dsd.SparsePhase(2, until=until), dsd.DensePhase(1)]
    return dsd.DSDSchedule(phases=phases, backup_dir=folder)


def train(name, folder, kind="three", backup=None, save_freq="epoch", last=False, kill=None):
    """Trains, and writes what came of it: weights, slots, masks, phases.

    Args:
        name: Of the scenario.
        folder: Where to write.
        kind: `"three"`, `"all"` (`reset`), `"until"`, `"steps"`, `"dense"`, or `"plain"`: without
            DSD.
        backup: A folder's name for BackupAndRestore, or None.
        save_freq: Its argument.
        last: Whether it stands after DSDSchedule in the list of callbacks.
        kill: Hook, how many calls to let pass, and the place in the list of callbacks: after
            as many others.
    """
    x, y = digits.images()
    if save_freq != "epoch":  # each batch the same: tf_keras starts with the first one again
        x, y = np.tile(x[:32], (10, 1, 1, 1)), np.tile(y[:32], 10)
    paths.seed(1)
    model, callbacks, masks = classifier(), [Quality()], Masks()
    if kind != "plain":
        model = dsd.apply(model, 0.5)
        callbacks += [schedule_of(kind, folder / f"{backup}_dsd"), masks]
    model = paths.compiled(model, keras.optimizers.Adam(0.003), metrics=None)
    if backup:
        saves = keras.callbacks.BackupAndRestore(str(folder / backup), save_freq)
        callbacks.insert(len(callbacks) if last else 1, saves)
    if kill:
        callbacks.insert(kill[2], Kill(*kill[:2]))
    history = model.fit(x, y, epochs=EPOCHS, verbose=0, shuffle=False, callbacks=callbacks).history
    optimizer = model.optimizer
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    model = model if kind == "plain" else dsd.strip(model)
    values = [*paths.arrays(model), *(np.asarray(each.numpy()) for each in variables)]
    of_masks = {f"mask_{i}": mask for i, mask in enumerate(masks.masks)}
    phases = history.get("dsd_phase", [])
    np.savez(folder / f"{name}.npz", *values, **of_masks, phases=phases)


def main(folder, scenarios):
    """Forks a child for each scenario, one after another; kills it after `kill_after` seconds."""
    for scenario in map(json.loads, scenarios):
        seconds = scenario.pop("kill_after", None)
        child = programs.fork(functools.partial(train, folder=pathlib.Path(folder), **scenario))
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        print(scenario["name"], os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
