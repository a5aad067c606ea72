"""Converts a model to LiteRT after DSD and after plain training, and compares the files.

DSD does not shrink a model: pruned weights have regrown, and the file has the same size as that of
plain training. Needs Keras 3 on TensorFlow 2.17 or later: the converter of 2.16 aborts.

    KERAS_BACKEND=tensorflow python examples/convert_to_litert.py --dsd_epochs=5 --out_dir=litert
"""

import pathlib

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_dsd as dsd

FLAGS = flags.FLAGS
flags.DEFINE_float("sparsity", 0.3, "Fraction of each weight tensor to prune, in [0, 1).")
flags.DEFINE_integer("dsd_epochs", 5, "Epochs of each of the three phases.")
flags.DEFINE_integer("seed", 0, "Seed of the weights, the split and the batches.")
flags.DEFINE_string("out_dir", "litert", "Folder for the two .tflite files.")


def build():
    layers = keras.layers
    return keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip


def train(data, callbacks, under_dsd):
    """Returns a model trained with or without DSD, for the same number of epochs."""
    keras.utils.clear_session()  # both get the same names, which the file holds
    keras.utils.set_random_seed(FLAGS.seed)
    model = build()
    if under_dsd:
        model = dsd.apply(model, FLAGS.sparsity)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*data, epochs=3 * FLAGS.dsd_epochs, verbose=0, callbacks=callbacks)
    return dsd.strip(model) if under_dsd else model


def predict(path, images):
    """Returns what LiteRT's interpreter makes of `images`."""
    interpreter = tf.lite.Interpreter(str(path))
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(inputs["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])


def main(argv):
    del argv
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    split = train_test_split(images, labels, test_size=0.3, random_state=FLAGS.seed)
    train_data, test_data = split[::2], split[1::2]
    schedule = dsd.DSDSchedule(*[FLAGS.dsd_epochs] * 3)
    folder = pathlib.Path(FLAGS.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, callbacks in (("dsd", [schedule]), ("plain", [])):
        model = train(train_data, callbacks, under_dsd=bool(callbacks))
        path = folder / f"{name}.tflite"
        model.export(str(path), format="litert", verbose=False)
        predicted = predict(path, test_data[0])
        np.testing.assert_allclose(predicted, model.predict(test_data[0], verbose=0), atol=1e-5)
        error = 100 * np.mean(predicted.argmax(axis=1) != test_data[1])
        print(f"{name:6s} {path.stat().st_size:,} bytes, test error {error:.2f}%, "
              f"LiteRT predicts what Keras does for {len(predicted)} images")  # fmt: skip


if __name__ == "__main__":
    app.run(main)
