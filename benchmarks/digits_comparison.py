"""DSD beside plain training on scikit-learn's digits, at several sparsities and seeds.

`dsd.compare` trains every arm from the same first weights and for as many epochs, and reports test
data that nothing was chosen on. The tables in docs/why.md are what this prints.

    python benchmarks/digits_comparison.py --seeds=5 --sparsities=0.3,0.5,0.7
"""

import keras
from absl import app, flags
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_dsd as dsd

FLAGS = flags.FLAGS
flags.DEFINE_integer("seeds", 5, "How many seeds, counted from 0.")
flags.DEFINE_list("sparsities", ["0.3", "0.5", "0.7"], "Shares of each weight tensor to prune.")
flags.DEFINE_integer("epochs", 10, "Epochs of each of the three phases.")
flags.DEFINE_integer("parallel", 1, "How many seeds to train at a time.")


def build():
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(32, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def read():
    """Returns 1,005 images to train on, 252 to choose by, 540 for the result."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=0.3, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, random_state=0)
    return {"train": (x, y), "validation": (x_val, y_val), "test": (x_test, y_test)}


def main(argv):
    del argv
    phases = dsd.timelines.dsd(FLAGS.epochs, FLAGS.epochs, FLAGS.epochs)
    for sparsity in map(float, FLAGS.sparsities):
        result = dsd.compare(
            build, read(), phases=phases, sparsity=sparsity, seeds=FLAGS.seeds,
            fit_options={"batch_size": 64}, parallel=FLAGS.parallel,
        )  # fmt: skip
        print(f"==== sparsity {sparsity:g}\n{result}\n", flush=True)


if __name__ == "__main__":
    app.run(main)
