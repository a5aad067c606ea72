"""Trains a small convolutional network on scikit-learn's digits with DSD, beside plain training.

Both start from the same weights and train for as many epochs. The model that DSD trained is
exported, on PyTorch or without TensorFlow as a .keras file, and a new process loads it to predict
the same.

    KERAS_BACKEND=jax python examples/quickstart.py --keras=3 --sparsity=0.5 --redense=20
"""

import contextlib
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import rich.box
from absl import app, flags, logging
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_dsd as dsd
from keras_dsd.utils.quiet import quiet_stderr

FLAGS = flags.FLAGS
flags.DEFINE_enum("keras", "3", ["2", "3"], "2: tf_keras. 3: Keras 3, on $KERAS_BACKEND.")
flags.DEFINE_float("sparsity", 0.3, "Fraction of each weight tensor to prune, in [0, 1).")
flags.DEFINE_integer("dense", 10, "Epochs of the first, dense phase.")
flags.DEFINE_integer("sparse", 10, "Epochs of the sparse phase.")
flags.DEFINE_integer("redense", 10, "Epochs of the last phase, dense again.")
flags.DEFINE_integer("seed", 0, "Seed of the weights, the split and the batches.")
flags.DEFINE_string("export_dir", "saved_model", "Where to export the model.")
flags.DEFINE_string("figure", "learning_curves.png", "Where to draw the learning curves.")


def build(keras):
    layers = keras.layers
    return keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(32, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def train(keras, model, data, name, schedule=None):
    """Trains `model`, and returns its history and the test error in percent after each phase."""
    train_data, test_data = data
    phases = {"dense": FLAGS.dense, "sparse": FLAGS.sparse, "re-dense": FLAGS.redense}
    ends = dict(zip(np.cumsum([*phases.values()]).tolist(), phases, strict=True))
    errors = {}

    def at_epoch_end(epoch, logs):
        if (phase := ends.get(epoch + 1)) is not None:
            predicted = model.predict(test_data[0], verbose=0).argmax(axis=1)
            errors[phase] = 100 * np.mean(predicted != test_data[1])
            more = f", {phase}, {logs['dsd_sparsity']:.1%} sparsity" if schedule else ""
            print(f"{name}, epoch {epoch + 1}: test error {errors[phase]:.2f}%{more}")

    # What reads the logs comes after the schedule.
    callbacks = [schedule] if schedule else []
    callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=at_epoch_end))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    keras.utils.set_random_seed(FLAGS.seed)
    epochs = sum(phases.values())
    history = model.fit(*train_data, epochs=epochs, verbose=0, callbacks=callbacks)
    return history, errors


def export(model, images, is_keras_file):
    """Exports `model`, and has a new process compare its predictions."""
    path = FLAGS.export_dir + ".keras" * is_keras_file
    (model.save if is_keras_file else model.export)(path)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, images=images, predicted=model.predict(images, verbose=0))
        file.flush()
        load_exported = pathlib.Path(__file__).with_name("load_exported.py")
        command = [sys.executable, load_exported, path, file.name]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(ran.stderr)
    print(ran.stdout, end="")


def main(argv):
    del argv
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of TensorFlow, once it is imported
    with quiet_stderr():
        with contextlib.suppress(ImportError):  # Keras imports it on any backend, to save files
            importlib.import_module("tensorflow")
        keras = importlib.import_module("tf_keras" if FLAGS.keras == "2" else "keras")
    keras.utils.disable_interactive_logging()  # the export then logs, and
    logging.set_verbosity(logging.ERROR)  # nothing is logged
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    split = train_test_split(images, labels, test_size=0.3, random_state=FLAGS.seed)
    data = split[::2], split[1::2]
    test_images = data[1][0]
    keras.utils.set_random_seed(FLAGS.seed)
    model, plain = build(keras), build(keras)
    plain.set_weights(model.get_weights())

    model = dsd.apply(model, sparsity=FLAGS.sparsity)
    schedule = dsd.DSDSchedule(FLAGS.dense, FLAGS.sparse, FLAGS.redense)
    history, ours = train(keras, model, data, "DSD", schedule)
    model = dsd.strip(model)
    _, theirs = train(keras, plain, data, "plain")
    table = Table("test error after", "DSD", "plain", box=rich.box.SIMPLE)
    for phase, error in ours.items():
        table.add_row(phase, f"{error:.2f}%", f"{theirs[phase]:.2f}%")
    rich.print(table)
    print(f"One seed on {len(test_images)} test images: a demonstration, not evidence.")
    dsd.plots.learning_curves(history, timeline=schedule).savefig(FLAGS.figure)
    print(f"Learning curves of the run with DSD: {FLAGS.figure}")
    # Keras exports a SavedModel with TensorFlow, which JAX users may not have.
    is_keras_file = keras.backend.backend() == "torch" or "tensorflow" not in sys.modules
    export(model, test_images, is_keras_file)


if __name__ == "__main__":
    app.run(main)
