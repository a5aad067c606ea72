"""Trains on scikit-learn's digits with DSD, and logs the run with Weights & Biases.

The W&B callback reads phase, sparsity, remaining epochs and the learning rate in use from the logs,
as it comes after DSDSchedule. Nothing leaves this machine until you send it:
`wandb sync wandb/offline-run-*`.

    KERAS_BACKEND=jax python examples/tracking/wandb_run.py --sparsity=0.5
"""

import importlib
import os

from absl import app, flags
from sklearn.datasets import load_digits

import keras_dsd as dsd

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it reports its own errors
import wandb

FLAGS = flags.FLAGS
flags.DEFINE_enum("keras", "3", ["2", "3"], "2: tf_keras. 3: Keras 3, on $KERAS_BACKEND.")
flags.DEFINE_enum("mode", "offline", ["offline", "online"], "online needs `wandb login`.")
flags.DEFINE_string("folder", ".", "Where W&B makes its folder `wandb`.")
flags.DEFINE_float("sparsity", 0.5, "Fraction of each weight tensor to prune, in [0, 1).")
flags.DEFINE_integer("dense", 10, "Epochs of the first, dense phase.")
flags.DEFINE_integer("sparse", 10, "Epochs of the sparse phase.")
flags.DEFINE_integer("redense", 10, "Epochs of the last phase, dense again.")
flags.DEFINE_integer("seed", 0, "Seed of the weights and the batches.")


def build(keras):
    layers = keras.layers
    hidden = [layers.Dense(64, activation="relu"), layers.Dense(32, activation="relu")]
    return keras.Sequential([layers.Input((64,)), *hidden, layers.Dense(10, activation="softmax")])


def main(argv):
    del argv
    if FLAGS.keras == "2":
        os.environ["TF_USE_LEGACY_KERAS"] = "1"  # W&B takes tf.keras to be tf_keras
    keras = importlib.import_module("tf_keras" if FLAGS.keras == "2" else "keras")
    callbacks = importlib.import_module("wandb.integration.keras")
    images, labels = load_digits(return_X_y=True)
    keras.utils.set_random_seed(FLAGS.seed)
    model = dsd.apply(build(keras), sparsity=FLAGS.sparsity)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    schedule = dsd.DSDSchedule(FLAGS.dense, FLAGS.sparse, FLAGS.redense)
    config = {"sparsity": FLAGS.sparsity, "phases": str(schedule.timeline)}
    with wandb.init(project="dsd", mode=FLAGS.mode, dir=FLAGS.folder, config=config) as run:
        model.fit(
            images / 16, labels, epochs=schedule.timeline.epochs, validation_split=0.3, verbose=2,
            callbacks=[schedule, callbacks.WandbMetricsLogger()],
        )  # fmt: skip
        run.summary["phases"] = wandb.Image(schedule.timeline.plot())
    print(f"Weights & Biases has run {run.id} in {run.dir}")


if __name__ == "__main__":
    app.run(main)
