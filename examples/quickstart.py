"""Trains a small convolutional network on scikit-learn's digits with DSD, beside plain training.

Both start from the same weights and train for as many epochs. The model that DSD trained is
exported, as a .keras file on PyTorch, and a fresh process loads it to predict the same.

    KERAS_BACKEND=jax python examples/quickstart.py --keras=3 --sparsity=0.5 --redense=20
"""

import importlib
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from absl import app, flags, logging
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_dsd as dsd

FLAGS = flags.FLAGS
flags.DEFINE_enum("keras", "3", ["2", "3"], "2: tf_keras. 3: Keras 3, on $KERAS_BACKEND.")
flags.DEFINE_float("sparsity", 0.3, "Share of each weight tensor to prune, in [0, 1).")
flags.DEFINE_integer("dense", 10, "Epochs of the first, dense phase.")
flags.DEFINE_integer("sparse", 10, "Epochs of the sparse phase.")
flags.DEFINE_integer("redense", 10, "Epochs of the last phase, dense again.")
flags.DEFINE_integer("seed", 0, "Seed of the weights, the split and the batches.")
flags.DEFINE_string("export_dir", "saved_model", "Where to export the model.")


def build(keras):
    layers = keras.layers
    return keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(32, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def train(keras, model, train_data, test_data, schedule=None):
    """Trains `model`; returns the test error, in percent, at the end of each phase."""
    ends = np.cumsum([FLAGS.dense, FLAGS.sparse, FLAGS.redense])
    errors = []

    def at_epoch_end(epoch, logs):
        if epoch + 1 in ends:
            predicted = model.predict(test_data[0], verbose=0).argmax(axis=1)
            errors.append(100 * np.mean(predicted != test_data[1]))
        if epoch + 1 == ends[1] and schedule is not None:
            print(f"At the end of the sparse phase:\n{dsd.report(model)}")

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=at_epoch_end)]
    callbacks += [] if schedule is None else [schedule]
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    keras.utils.set_random_seed(FLAGS.seed)
    model.fit(*train_data, epochs=ends[-1], verbose=0, callbacks=callbacks)
    return errors


def main(argv):
    del argv
    keras = importlib.import_module("tf_keras" if FLAGS.keras == "2" else "keras")
    logging.set_verbosity(logging.INFO)  # DSDSchedule says when a phase begins
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    split = train_test_split(images, labels, test_size=0.3, random_state=FLAGS.seed)
    train_data, test_data = split[::2], split[1::2]
    keras.utils.set_random_seed(FLAGS.seed)
    model, plain = build(keras), build(keras)
    plain.set_weights(model.get_weights())

    model = dsd.apply(model, sparsity=FLAGS.sparsity)
    schedule = dsd.DSDSchedule(FLAGS.dense, FLAGS.sparse, FLAGS.redense)
    ours = train(keras, model, train_data, test_data, schedule)
    model = dsd.strip(model)
    theirs = train(keras, plain, train_data, test_data)
    print(f"{'test error after phase':24}{'dsd':>8}{'plain':>8}")
    phases = ["dense", "sparse", "re-dense"][-len(ours) :]
    for row in zip(phases, ours, theirs, strict=True):
        print("{:24}{:7.2f}%{:7.2f}%".format(*row))
    print(f"One seed on {len(test_data[1])} test images: a demonstration, not evidence.")

    logging.set_verbosity(logging.WARNING)
    on_torch = keras.backend.backend() == "torch"
    exported = FLAGS.export_dir + ".keras" * on_torch
    (model.save if on_torch else model.export)(exported)
    with tempfile.NamedTemporaryFile(suffix=".npz") as data:
        np.savez(data, images=test_data[0], predicted=model.predict(test_data[0], verbose=0))
        data.flush()
        load_exported = pathlib.Path(__file__).with_name("load_exported.py")
        subprocess.run([sys.executable, load_exported, exported, data.name], check=True)


if __name__ == "__main__":
    app.run(main)
