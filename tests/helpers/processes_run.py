"""Keras 3 on JAX: trains on devices of several processes, of which one may be killed.

    python -m tests.helpers.processes_run FOLDER SCENARIO [SCENARIO ...]

A scenario is a JSON object: see `run`. Its processes are forked from this one, which has imported
everything and computed nothing. There are four devices in all. Each process writes what it saw to
FOLDER/<name>_<layout>_<index>.npz. Printed: a line a scenario, its name and its exit statuses.
"""

import functools
import importlib
import json
import os
import pathlib
import signal
import sys
import time

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

import keras_dsd as dsd
from keras_dsd.adapters.registry import adapter_of
from tests.helpers import digits, programs

importlib.import_module("tensorflow")  # Keras imports it late: each process would, for seconds
layers = keras.layers
BATCH, SECONDS = 64, 300
QUALITY = [2.0, 1.0, 1.0, 2.0, 2.0, 2.0]  # the first sparse epoch is the best one


def whole(value):
    """Returns an array whose parts are in several processes, in each of them."""
    return np.asarray(multihost_utils.process_allgather(value, tiled=True))


class Kill(keras.callbacks.Callback):
    """Ends the process at the end of a batch, as a power cut would."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), -1

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.at == (self.epoch, batch):
            os.kill(os.getpid(), signal.SIGKILL)


class Seen(keras.callbacks.Callback):
    """Keeps the weights at every batch end, the masks with them, and the sparsity."""

    def __init__(self):
        super().__init__()
        self.values, self.masks, self.sparsity = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        weights = dsd.weights(self.model)
        self.values.append(np.concatenate([whole(each.tensor()).ravel() for each in weights]))
        masks = [each.mask_tensor() for each in weights]
        if masks[0] is not None:
            for weight, mask in zip(weights, masks, strict=True):
                assert mask.sharding.is_equivalent_to(weight.tensor().sharding, mask.ndim)
            self.masks.append(np.concatenate([whole(each).ravel() for each in masks]))

    def on_epoch_end(self, epoch, logs=None):
        self.sparsity.append(logs["dsd_sparsity"])


class Quality(keras.callbacks.Callback):
    """Measures something of which the best epoch of the sparse phase is not the last one."""

    def on_epoch_end(self, epoch, logs=None):
        logs["quality"] = QUALITY[epoch]


def distribution_of(layout):
    """Returns a distribution over devices of all processes.

    Args:
        layout: `"data"`: a copy on one device of each process; `"four"`: on all devices;
            `"across"`: every kernel cut into a part for each process; `"within"`: into parts on the
            devices of each process, which have a copy each and a part of the batch; `"both"`: into
            a part for each process, whose devices have a copy each and a part of the batch.
    """
    devices = np.array(keras.distribution.list_devices()).reshape(2, 2)
    if layout in ("data", "four"):
        given = (devices[:, 0] if layout == "data" else devices.ravel()).tolist()
        return keras.distribution.DataParallel(devices=given, auto_shard_dataset=False)
    grid = {"across": devices[None, :, 0], "within": devices, "both": devices.T}[layout]
    mesh = keras.distribution.DeviceMesh(grid.shape, ("batch", "model"), grid)
    found = keras.distribution.LayoutMap(mesh)
    found[".*kernel"] = (None, "model")
    return keras.distribution.ModelParallel(
        layout_map=found, batch_dim_name="batch", auto_shard_dataset=False
    )


def data_of(layout, number, index):
    """Returns this process's part of each batch, and its size."""
    x, y = digits.rows()
    parts = number if layout in ("data", "four", "within") else 1
    x, y = (
        each.reshape(-1, parts, BATCH // parts, *each.shape[1:])[:, index % parts]
        for each in (x, y)
    )
    return x.reshape(-1, x.shape[-1]), y.ravel(), BATCH // parts


def refuses(call, *texts):
    """Checks that a call is refused, by a message with these texts."""
    try:
        call()
    except ValueError as error:
        assert all(text in str(error) for text in texts), error
    else:
        raise AssertionError(texts)


def by_scores(criterion):
    """Returns a schedule whose sparse phase ranks weights by a criterion."""
    sparse = dsd.SparsePhase(1, criterion=criterion)
    return dsd.DSDSchedule(phases=[dsd.DensePhase(1), sparse, dsd.DensePhase(1)])


def check_comparison(fit, index):
    """Ranks weights by scores that differ between the processes."""

    def of_process(weight):
        return np.random.default_rng(index).random(weight.shape)

    phases = [dsd.SparsePhase(1, criterion=of_process), dsd.DensePhase(1)]
    refuses(lambda: fit(dsd.DSDSchedule(phases=phases)), "other masks in one of the processes")


def check_refusals(model, fit, index):
    """Asks for what no process has, and for an observer in one process alone."""
    for criterion in ("movement", lambda weight: weight.numpy()):
        refuses(lambda given=criterion: fit(by_scores(given)), "sharded over processes", "phases[1")
    weight = dsd.weights(model)[0]
    has_parts = f"{weight.path}, sharded over devices of 2 processes"
    weight.apply_mask(weight.arrays.all_kept(weight.tensor()))
    refuses(weight.numpy, has_parts)
    refuses(lambda: weight.mask, has_parts)
    weight.remove_mask()
    refuses(lambda: dsd.sensitivity(model, lambda model: 0.0), has_parts)
    refuses(lambda: adapter_of(model).training_state.read(model), has_parts)  # as compare does
    history = dsd.WeightHistory()
    alone = dsd.DSDSchedule(1, 1, 1, observers=[history] * (index == 0))
    refuses(lambda: fit(alone), "Expected the same arguments", "Give all the same observers")
    assert not history.snapshots


def compiled():
    """Returns a model to train: Orbax goes by the names of layers."""
    keras.utils.set_random_seed(1)
    body = [layers.Dense(16, "tanh", name="one"), layers.Dense(10, name="two")]
    model = keras.Sequential([layers.Input((64,)), *body], name="net")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3, name="adam"), loss)
    return dsd.apply(model, 0.4)


def schedule_of(at, observers):
    """Returns two epochs of each phase; the sparse one ends with the weights of its first."""
    best = dsd.Plateau("quality", mode="min", patience=9, restore_best=True)
    phases = [dsd.DensePhase(2), dsd.SparsePhase(2, until=best), dsd.DensePhase(2, lr=0.1)]
    return dsd.DSDSchedule(phases=phases, observers=observers, backup_dir=f"{at}_dsd")


def train(layout, name, folder, number, index, save=None, kill=None):
    """Trains, and writes what was seen; with `save`, what came of it alone."""
    keras.distribution.set_distribution(distribution_of(layout))
    model, (x, y, size) = compiled(), data_of(layout, number, index)

    def fit(*callbacks, first=0):
        given = {"shuffle": False, "verbose": 0, "initial_epoch": first}
        return model.fit(x, y, size, 6, callbacks=list(callbacks), **given)

    at, found = folder / f"{name}_{layout}", {}
    if save is None:
        history, seen = dsd.WeightHistory(f"{at}.json"), Seen()
        # Copies can be read in each process: so one of them may have an observer alone.
        boards = [dsd.DSDTensorBoard(f"{at}_logs")] * (layout != "data" or index == 0)
        schedule = schedule_of(at, [history, *boards])
        if number > 1 and layout in ("across", "both"):
            check_refusals(model, fit, index)
        elif number > 1:
            check_comparison(fit, index)
        fit(Quality(), schedule, seen)
        found = {"values": seen.values, "masks": seen.masks, "sparsity": seen.sparsity,
                 "report": dsd.report(model).to_json(), "history": history.to_json()}  # fmt: skip
    else:
        first, saves = resumed(model, folder / f"{name}_{save}", save, index)
        kills = [Kill(*kill)] if kill and index else []
        fit(Quality(), schedule_of(at, []), *kills, saves, first=first)
    weights = [whole(each.value) for each in dsd.strip(model).weights]
    np.savez(f"{at}_{index}.npz", *weights, **found)


def resumed(model, path, save, index):
    """Returns the epoch to resume at, of which the model gets the weights, and what saves it."""
    if save == "backup":  # finds the epoch by itself
        return 0, keras.callbacks.BackupAndRestore(f"{path}_{index}")
    steps = [int(each.name) for each in path.glob("*") if each.name.isdecimal()]
    if steps:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(path)
    saves = keras.callbacks.OrbaxCheckpoint(path, save_on_background=False)
    return max(steps, default=-1) + 1, saves


def child(layouts, number, index, address, **scenario):
    """Is one process of a scenario."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count="
    os.environ["XLA_FLAGS"] = f"{flags}{4 // number}"
    if number > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(address, number, index)
    for layout in layouts:
        train(layout, number=number, index=index, **scenario)


def run(name, folder, layouts, number=1, save=None, kill=None):
    """Runs a scenario.

    Args:
        name: Its name.
        folder: Where to write; a scenario of the same name resumes.
        layouts: Of the weights: see `distribution_of`.
        number: Of processes.
        save: `"orbax"`, `"backup"` or None.
        kill: Epoch and batch in which the second process is killed, or None.
    """
    address = programs.address()
    given = {"name": name, "folder": folder, "save": save, "kill": kill, "address": address}
    children = [
        programs.fork(functools.partial(child, layouts, number, index, **given))
        for index in range(number)
    ]
    left, end = dict.fromkeys(children), time.monotonic() + SECONDS
    codes = {}
    while left and time.monotonic() < end and not any(codes.values()):
        for process in [*left]:
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                codes[process] = os.waitstatus_to_exitcode(status)
                del left[process]
        time.sleep(0.02)
    for process in left:  # they can't continue without one that is gone
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    print(name, *(codes.get(process, "ended") for process in children), flush=True)


def main(folder, scenarios):
    """Runs scenarios one after another."""
    for scenario in map(json.loads, scenarios):
        run(folder=pathlib.Path(folder), **scenario)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
