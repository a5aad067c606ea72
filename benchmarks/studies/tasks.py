"""The tasks of the protocol. What each needs is in docs/results.md, with where a user gets it."""

import functools
import pathlib

import keras
import numpy as np
from protocol import Lengths, Setting
from trials import Split, Task, scanned

layers = keras.layers
BATCH = 128
SHIFT = 3


def _compiled(model: keras.Model, setting: Setting) -> keras.Model:
    model.compile(
        keras.optimizers.SGD(setting.lr, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="nll"),
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        ],
    )
    return model


def small_mlp(setting: Setting) -> keras.Model:
    """Returns an MLP 784-100-50-10."""
    dense = functools.partial(layers.Dense, kernel_regularizer=keras.regularizers.L2(setting.l2))
    return _compiled(
        scanned(keras.Sequential, BATCH)([
            layers.Input((784,), dtype="uint8"), layers.Rescaling(1 / 255), dense(100, "relu"),
            dense(50, "relu"), dense(10, name="last"),
        ]),
        setting,
    )  # fmt: skip


@functools.cache
def _images(path: pathlib.Path) -> tuple[np.ndarray, ...]:
    with np.load(path) as found:
        x, y, x_test, y_test = (found[n] for n in ("x_train", "y_train", "x_test", "y_test"))
    return x, y.astype("int32"), x_test, y_test.astype("int32")


def shifted_images(path: pathlib.Path, seed: int) -> Split:
    """Returns 50,000 of the training images, shifted anew in every epoch; the rest to choose by."""
    x, y, x_test, y_test = _images(path)
    order = np.random.default_rng([seed, 0]).permutation(len(x))
    chosen, held_out = order[:50_000], order[50_000:]
    padded = np.pad(x[chosen], ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    labels = y[chosen]

    def epoch(number: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = np.random.default_rng([seed, 1, number])
        order = drawn.permutation(len(padded))[: len(padded) // BATCH * BATCH]
        width = 2 * SHIFT + 1
        shifts = drawn.integers(0, width**2, len(order))
        images = np.empty((len(order), 28, 28), np.uint8)
        for shift in range(width**2):
            rows, columns = divmod(shift, width)
            places = np.flatnonzero(shifts == shift)
            moved = padded[order[places], rows : rows + 28, columns : columns + 28]
            images[places] = moved
        return images.reshape(len(order), -1), labels[order]

    def flat(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)

    return Split(epoch, (flat(x[held_out]), y[held_out]), (flat(x_test), y_test))


TASKS = [
    Task(
        "mnist-shifts",
        "MNIST, 50,000 of the 60,000 training images a seed, the other 10,000 to choose by, 10,000 "
        "to report on; each image shifted by up to 3 pixels either way, anew at every step of "
        "training; MLP 784-100-50-10, 40 % of all kernels but the last; SGD at 0.1 with momentum "
        "0.9, batches of 128",
        "mnist.npz, as keras.datasets.mnist.load_data fetches it",
        small_mlp, shifted_images, BATCH, Lengths(30, 10, 10),
        bases=[(0.1, l2) for l2 in (3e-5, 1e-4, 3e-4, 1e-3)], sparsities=(0.4,), exclude=("last/",),
    ),
]  # fmt: skip
