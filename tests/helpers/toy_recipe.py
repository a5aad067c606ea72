"""A recipe that takes seconds: scikit-learn's digits and a small network.

$STOP_AT ends the process as a power cut would, once as many evaluations are done; $DEVICES is how
many devices a CPU counts as; $DROPOUT is a rate.
"""

import os
import signal

import tensorflow as tf
from absl import flags

from recipes import problems, running
from recipes.chosen_keras import keras
from tests.helpers import digits

FLAGS = flags.FLAGS
DROPOUT = float(os.environ.get("DROPOUT", "0"))
STOP_AT = int(os.environ.get("STOP_AT", "0"))
X, Y = digits.rows(1797)
DEFAULTS = {"learning_rate": 0.05, "batch_size": 64, "sparsity": 0.3}
evaluations = 0


def build():
    pixels = keras.Input((64,))
    hidden = keras.layers.Dense(16, activation="relu", name="hidden")
    print(f"computes in {hidden.compute_dtype}")
    drawn = keras.layers.Dropout(DROPOUT)(hidden(pixels))
    scores = keras.layers.Dense(10, name="out")(drawn)
    return keras.Model(pixels, keras.layers.Activation("softmax", dtype="float32")(scores))


def compile_model(model):
    optimizer = keras.optimizers.SGD(FLAGS.learning_rate, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy")


def train_batches(seed):
    data = tf.data.Dataset.from_tensor_slices((X[:1024], Y[:1024]))
    return data.shuffle(1024, seed=seed).batch(FLAGS.batch_size, drop_remainder=True)


def evaluate(model):
    global evaluations
    evaluations += 1
    wrong = model.predict(X[1024:], verbose=0).argmax(axis=1) != Y[1024:]
    if evaluations == STOP_AT:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"error": 100 * float(wrong.mean())}


def main():
    count = int(os.environ.get("DEVICES", "1"))
    if count > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        devices = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, devices)
    if FLAGS.data == "nowhere":
        raise problems.MissingData("Expected data. Received: data='nowhere'.")
    running.use_defaults(DEFAULTS)
    better = {"error": "min"}
    recipe = running.Recipe(
        "toy", build, compile_model, train_batches, evaluate, better, prune=("hidden/",)
    )
    running.run(recipe)


if __name__ == "__main__":
    running.main(main)
