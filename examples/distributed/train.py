"""Dense-Sparse-Dense training of a tf_keras model on one device, on several, or on many machines.

Every worker runs this program, with its own TF_CONFIG. README.md in this folder describes how to
start them; on one machine:

    python examples/distributed/launch_local.py --workers=2 -- --sparsity=0.5
"""

import hashlib
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
import tf_keras
from absl import app, flags, logging
from sklearn.datasets import load_digits

import keras_dsd as dsd

STRATEGIES = {
    "workers": tf.distribute.MultiWorkerMirroredStrategy,
    "mirrored": tf.distribute.MirroredStrategy,
    "one": tf.distribute.get_strategy,
}


def define_flags():
    flags.DEFINE_float("sparsity", 0.5, "Fraction of each weight tensor to prune, in [0, 1).")
    flags.DEFINE_list("phases", [5, 5, 5], "Epochs of the dense, the sparse and the last phase.")
    flags.DEFINE_integer("batch_size", 32, "Images in a batch of each replica.")
    flags.DEFINE_integer("seed", 0, "Seed of the weights and the batches, the same on all workers.")
    flags.DEFINE_string("mnist", None, "An mnist.npz as Keras has it; none: scikit-learn's digits.")
    flags.DEFINE_string("backup_dir", None, "Shared folder to resume from after a failure.")
    flags.DEFINE_string("export_dir", None, "Where the chief exports the model.")


def given():
    """Returns the flags above as the arguments of `train`."""
    names = ("sparsity", "phases", "batch_size", "seed", "mnist", "backup_dir", "export_dir")
    return {name: flags.FLAGS[name].value for name in names}


def load(mnist):
    """Returns images of one channel and their labels, those to train on and those to test on."""
    if mnist is not None:
        with np.load(mnist) as data:
            pairs = [(data["x_train"], data["y_train"]), (data["x_test"], data["y_test"])]
        return [(as_floats(x, 255), y) for x, y in pairs]
    x, y = load_digits(return_X_y=True)
    x = as_floats(x.reshape(-1, 8, 8), 16)
    return (x[:1280], y[:1280]), (x[1280:], y[1280:])


def as_floats(images, largest):
    return (images / largest).astype("float32")[..., np.newaxis]


def batches(data, size, seed=None):
    """Returns batches of `size` images, of which each worker reads its own part.

    With a seed they are shuffled before each worker takes its part: all workers need the same seed.
    An incomplete batch is dropped, as its images would have a larger weight.
    """
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    dataset = tf.data.Dataset.from_tensor_slices(data)
    if seed is not None:
        dataset = dataset.shuffle(len(data[0]), seed=seed)
    return dataset.batch(size, drop_remainder=seed is not None).with_options(options)


def build(shape):
    layers = tf_keras.layers
    return tf_keras.Sequential([
        layers.Input(shape), layers.Conv2D(16, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def digest_of(mask):
    return hashlib.sha256(np.packbits(mask)).hexdigest()[:16]


class PhaseEnds(tf_keras.callbacks.Callback):
    """Stores the last logs of each phase, and a digest of each mask to compare workers."""

    def __init__(self):
        super().__init__()
        self.logs = {}
        self.digests = {}

    def on_epoch_end(self, epoch, logs=None):
        """Overwrites the values of the previous epoch."""
        self.logs[logs["dsd_phase"]] = {"epoch": epoch + 1, **logs}
        for weight in dsd.weights(self.model):
            if weight.mask is not None:
                self.digests[weight.path] = digest_of(weight.mask)


def export(model, folder, is_chief):
    """Exports the model: all workers do, since they may have to read variables together."""
    with tempfile.TemporaryDirectory() as passing:
        model.export(folder if is_chief else pathlib.Path(passing, "model"))


def train(strategy, sparsity, phases, batch_size, seed, mnist, backup_dir, export_dir, further=()):
    """Trains on all replicas of `strategy`; `further` callbacks come last. Prints the results."""
    logging.set_verbosity(logging.WARNING)  # TensorFlow logs each collective operation
    is_chief = strategy.extended.should_checkpoint
    train_data, test_data = load(mnist)
    size = batch_size * strategy.num_replicas_in_sync
    schedule = dsd.DSDSchedule(*map(int, phases))
    ends = PhaseEnds()
    callbacks = [schedule, ends]
    if backup_dir is not None:  # Only the chief's stays; the others write beside it for a moment.
        callbacks.append(tf_keras.callbacks.BackupAndRestore(backup_dir))
    tf_keras.utils.set_random_seed(seed)
    with strategy.scope():
        model = dsd.apply(build(train_data[0].shape[1:]), sparsity=sparsity)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        batches(train_data, size, seed), validation_data=batches(test_data, size),
        epochs=schedule.timeline.epochs, callbacks=[*callbacks, *further],
        verbose=2 if is_chief else 0,
    )  # fmt: skip
    if export_dir is not None:
        export(dsd.strip(model), export_dir, is_chief)
    print(f"{strategy.num_replicas_in_sync} replicas, batches of {size} images in all")
    for phase, logs in ends.logs.items():
        print(f"phase {phase} ended with epoch {logs['epoch']}: sparsity "
              f"{logs['dsd_sparsity']:.2%}, test accuracy {logs['val_accuracy']:.2%}")  # fmt: skip
    for path, digest in ends.digests.items():
        print(f"mask of {path}: {digest}")


def main(argv):
    del argv
    train(STRATEGIES[flags.FLAGS.strategy](), **given())


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_enum("strategy", "workers", list(STRATEGIES), "Workers, one's GPUs, one device.")
    app.run(main)
