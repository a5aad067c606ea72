"""Trains a small convolutional network on scikit-learn's digits with DSD, beside plain training.

Both start from the same weights and train for the same number of epochs. The model that DSD
trained is exported as a SavedModel, which a fresh process loads to predict the same.

    python examples/quickstart.py --sparsity=0.5 --dense=10 --sparse=10 --redense=10
"""

import subprocess
import sys
import tempfile

import numpy as np
import tf_keras
from absl import app, flags, logging
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_dsd as dsd

FLAGS = flags.FLAGS
flags.DEFINE_float("sparsity", 0.3, "Share of each weight tensor to prune, in [0, 1).")
flags.DEFINE_integer("dense", 10, "Epochs of the first, dense phase.")
flags.DEFINE_integer("sparse", 10, "Epochs of the sparse phase.")
flags.DEFINE_integer("redense", 10, "Epochs of the last phase, dense again.")
flags.DEFINE_integer("seed", 0, "Seed of the weights, the split and the batches.")
flags.DEFINE_string("export_dir", "saved_model", "Where to export the SavedModel.")

FRESH_PROCESS = """
import sys, numpy as np, tensorflow as tf
data = np.load(sys.argv[2])
model = tf.saved_model.load(sys.argv[1])
served = model.serve(data["images"]).numpy()
np.testing.assert_allclose(served, data["predicted"], atol=1e-5)
print(f"A fresh process loaded {sys.argv[1]} and predicts the same for {len(served)} images.")
"""


def build():
    layers = tf_keras.layers
    return tf_keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(32, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def train(model, train_data, test_data, schedule=None):
    """Trains `model`; returns the test error, in percent, at the end of each phase."""
    ends = np.cumsum([FLAGS.dense, FLAGS.sparse, FLAGS.redense])
    errors = []

    def at_epoch_end(epoch, logs):
        if epoch + 1 in ends:
            predicted = model.predict(test_data[0], verbose=0).argmax(axis=1)
            errors.append(100 * np.mean(predicted != test_data[1]))
        if epoch + 1 == ends[1] and schedule is not None:
            print(f"At the end of the sparse phase:\n{dsd.report(model)}")

    callbacks = [tf_keras.callbacks.LambdaCallback(on_epoch_end=at_epoch_end)]
    callbacks += [] if schedule is None else [schedule]
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    tf_keras.utils.set_random_seed(FLAGS.seed)
    model.fit(*train_data, epochs=ends[-1], verbose=0, callbacks=callbacks)
    return errors


def main(argv):
    del argv
    logging.set_verbosity(logging.INFO)  # DSDSchedule says when a phase begins
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    split = train_test_split(images, labels, test_size=0.3, random_state=FLAGS.seed)
    train_data, test_data = split[::2], split[1::2]
    tf_keras.utils.set_random_seed(FLAGS.seed)
    model, plain = build(), build()
    plain.set_weights(model.get_weights())

    model = dsd.apply(model, sparsity=FLAGS.sparsity)
    schedule = dsd.DSDSchedule(FLAGS.dense, FLAGS.sparse, FLAGS.redense)
    ours = train(model, train_data, test_data, schedule)
    model = dsd.strip(model)
    theirs = train(plain, train_data, test_data)
    print(f"{'test error after phase':24}{'dsd':>8}{'plain':>8}")
    phases = ["dense", "sparse", "re-dense"][-len(ours) :]
    for row in zip(phases, ours, theirs, strict=True):
        print("{:24}{:7.2f}%{:7.2f}%".format(*row))
    print(f"One seed on {len(test_data[1])} test images: a demonstration, not evidence.")

    logging.set_verbosity(logging.WARNING)
    model.export(FLAGS.export_dir)
    with tempfile.NamedTemporaryFile(suffix=".npz") as data:
        np.savez(data, images=test_data[0], predicted=model.predict(test_data[0], verbose=0))
        data.flush()
        command = [sys.executable, "-c", FRESH_PROCESS, FLAGS.export_dir, data.name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    app.run(main)
