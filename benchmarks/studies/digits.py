"""Study: scikit-learn's digits, a small convolutional network.

It needs no data but what scikit-learn brings:

    python benchmarks/studies/digits.py --seeds=10
"""

import os

# On a CPU convolutions take a third of the time that they take on JAX.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from study import Task, error, keras, main

layers = keras.layers


def build():
    model = keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"),
        layers.Conv2D(32, 3, activation="relu"), layers.Flatten(),
        layers.Dense(64, activation="relu"), layers.Dense(10),
    ])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    return model


def read():
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    x, x_test, y, y_test = train_test_split(images, labels, test_size=0.3, random_state=0)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, random_state=0)
    return {"train": (x, y), "validation": (x_val, y_val), "test": (x_test, y_test)}


TASKS = [Task(
    "digits",
    "scikit-learn's digits, 1,005 images to train on, 252 to choose by, 540 to report on; two "
    "convolutions and two dense layers, 38,282 weights; Adam at 0.001",
    build, read, error, "error, in percent", (10, 10, 10), batch_size=64,
)]  # fmt: skip

if __name__ == "__main__":
    main(TASKS)
