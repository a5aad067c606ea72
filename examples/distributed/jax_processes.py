"""Trains a Keras 3 model on JAX in several processes, each with all of every weight or a part.

Every process runs this program, and KERAS_DISTRIBUTION_* tell each which one it is. README.md
beside this file says how to start them; on one machine:

    python examples/distributed/launch_local.py --program=examples/distributed/jax_processes.py \
        --workers=2 -- --layout=model
"""

import hashlib
import os
import pathlib

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
from absl import app, flags, logging
from jax.experimental import multihost_utils
from sklearn.datasets import load_digits

import keras_dsd as dsd


def define_flags():
    flags.DEFINE_float("sparsity", 0.5, "Share of each weight tensor to prune, in [0, 1).")
    flags.DEFINE_list("phases", [5, 5, 5], "Epochs of the dense, the sparse and the last phase.")
    flags.DEFINE_enum("layout", "data", ["data", "model"], "Of weights: copies of all, or parts.")
    flags.DEFINE_integer("batch_size", 64, "Images in a batch of all processes together.")
    flags.DEFINE_integer("seed", 0, "Seed of the weights and the batches, the same everywhere.")
    flags.DEFINE_string(
        "checkpoint_dir", None, "Shared folder of Orbax checkpoints, to resume from."
    )
    flags.DEFINE_string("tensorboard_dir", None, "Where the first process writes for TensorBoard.")


def distribution_of(layout):
    """Returns where weights and batches go: over all devices of all processes."""
    devices = keras.distribution.list_devices()
    if layout == "data":
        return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    mesh = keras.distribution.DeviceMesh((1, len(devices)), ("batch", "model"), devices)
    parts = keras.distribution.LayoutMap(mesh)
    parts[".*dense(_1)?/kernel"] = (None, "model")  # outputs are cut
    return keras.distribution.ModelParallel(layout_map=parts, auto_shard_dataset=False)


def load(layout, size, seed):
    """Returns images to train on and to test on, with their labels, and the size of a batch.

    Where devices have copies of the weights, each process has its part of every batch; where they
    have parts, each has all.
    """
    x, y = load_digits(return_X_y=True)
    x, number = (x / 16).astype("float32"), keras.distribution.distribution().num_processes
    parts, index = (number, jax.process_index()) if layout == "data" else (1, 0)

    def part(images, labels):
        batches = len(images) // size
        pairs = [each[: batches * size] for each in (images, labels)]
        cut = [each.reshape(batches, parts, size // parts, *each.shape[1:]) for each in pairs]
        return [each[:, index].reshape(-1, *each.shape[3:]) for each in cut]

    order = np.random.default_rng(seed).permutation(1280)
    return part(x[:1280][order], y[:1280][order]), part(x[1280:], y[1280:]), size // parts


def build():
    layers = keras.layers
    return keras.Sequential([
        layers.Input((64,)), layers.Dense(64, activation="relu", name="dense"),
        layers.Dense(64, activation="relu", name="dense_1"), layers.Dense(10, name="dense_2"),
    ], name="digits")  # fmt: skip


class PhaseEnds(keras.callbacks.Callback):
    """Keeps each phase's last logs, and a digest of each mask, by which processes are compared."""

    def __init__(self):
        super().__init__()
        self.logs = {}
        self.digests = {}

    def on_epoch_end(self, epoch, logs=None):
        """Overwrites what the epoch before left."""
        self.logs[logs["dsd_phase"]] = {"epoch": epoch + 1, **logs}
        for weight in dsd.weights(self.model):
            mask = weight.mask_tensor()  # where the weight is: no process need have all of it
            if mask is not None:
                whole = multihost_utils.process_allgather(mask, tiled=True)
                digest = hashlib.sha256(np.packbits(whole)).hexdigest()
                self.digests[weight.path] = digest[:16]


def resume(model, folder):
    """Loads the last checkpoint into a model, and returns the epoch that comes next."""
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    if not steps:
        return 0
    model.optimizer.build(model.trainable_variables)
    model.load_weights(folder)
    return max(steps) + 1


def train(sparsity, phases, layout, batch_size, seed, checkpoint_dir, tensorboard_dir, further=()):
    """Trains in all processes; `further` callbacks come last. Prints how it went."""
    keras.utils.set_random_seed(seed)
    keras.distribution.set_distribution(distribution_of(layout))
    (x, y), test_data, size = load(layout, batch_size, seed)
    # All processes have the same observers: to measure a weight in parts takes all. One writes.
    observers = [dsd.DSDTensorBoard(tensorboard_dir)] if tensorboard_dir else []
    schedule, ends = dsd.DSDSchedule(*map(int, phases), observers=observers), PhaseEnds()
    model = dsd.apply(build(), sparsity=sparsity)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    callbacks, first = [schedule, ends], 0
    if checkpoint_dir is not None:
        folder = pathlib.Path(checkpoint_dir).absolute()
        first = resume(model, folder)
        callbacks.append(keras.callbacks.OrbaxCheckpoint(folder, max_to_keep=2))
    model.fit(
        x, y, size, schedule.timeline.epochs, initial_epoch=first, shuffle=False,
        validation_data=test_data, validation_batch_size=size,
        callbacks=[*callbacks, *further], verbose=0,
    )  # fmt: skip
    dsd.strip(model)
    shape = model.layers[0].kernel.value.sharding.shard_shape(model.layers[0].kernel.shape)
    print(f"{jax.process_count()} processes, {jax.device_count()} devices; first kernel in parts "
          f"of {' x '.join(map(str, shape))}")  # fmt: skip
    for phase, logs in ends.logs.items():
        print(f"phase {phase} ended with epoch {logs['epoch']}: sparsity "
              f"{logs['dsd_sparsity']:.2%}, test accuracy {logs['val_accuracy']:.2%}")  # fmt: skip
    for path, digest in ends.digests.items():
        print(f"mask of {path}: {digest}")


def start():
    """Connects the processes, as the launcher's environment describes them."""
    logging.set_verbosity(logging.WARNING)  # Orbax says much of each checkpoint
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of use without a GPU alone
    keras.distribution.initialize()


def given():
    """Returns the flags above as the arguments of `train`."""
    names = (
        "sparsity",
        "phases",
        "layout",
        "batch_size",
        "seed",
        "checkpoint_dir",
        "tensorboard_dir",
    )
    return {name: flags.FLAGS[name].value for name in names}


def main(argv):
    del argv
    start()
    train(**given())


if __name__ == "__main__":
    define_flags()
    app.run(main)
