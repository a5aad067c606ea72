"""Studies on MNIST: LeNet-300-100, LeNet-5, a small VGG; 1,000 to 50,000 images; noise, shifts.

$STUDY_DATA is the folder of mnist.npz, as Keras has it. Of the last 10,000 training images, as many
as are trained on are those to choose by, and the test images those to report on.

    STUDY_DATA=data python benchmarks/studies/mnist.py --only=lenet5-1000 --seeds=10
"""

import functools
import os
import pathlib

# On a CPU convolutions take a third of the time that they take on JAX.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
from study import Task, error, keras, main

layers = keras.layers


def lenet_300_100(*first):
    body = [layers.Flatten(), layers.Dense(300, "relu"), layers.Dense(100, "relu")]
    return compiled([*first, *body])


class Shifted(layers.Layer):
    """Moves each image by up to two pixels either way at random, anew at every step of training."""

    def __init__(self):
        super().__init__()
        self.random = keras.random.SeedGenerator()

    def call(self, images, training=False):
        """Returns the images, or them moved; what is moved in is zero."""
        if not training:
            return images
        of_rows, of_columns = (self._moves(images) for _ in range(2))
        moved = keras.ops.matmul(of_rows, images[..., 0])
        return keras.ops.matmul(moved, keras.ops.swapaxes(of_columns, 1, 2))[..., None]

    def _moves(self, images):
        """Returns a matrix for each image, which moves what it is multiplied with."""
        by = keras.random.randint((keras.ops.shape(images)[0], 1), -2, 3, seed=self.random)
        return keras.ops.one_hot(
            by + keras.ops.arange(images.shape[1], dtype=by.dtype), images.shape[1]
        )


def shifted_lenet_300_100():
    return lenet_300_100(Shifted())


def lenet5():
    return compiled([
        layers.Conv2D(6, 5, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(16, 5, activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dense(120, "relu"), layers.Dense(84, "relu"),
    ])  # fmt: skip


def vgg():
    body = [layers.AveragePooling2D(2)]
    for filters in (16, 32, 64):
        for _ in range(2):
            body += [layers.Conv2D(filters, 3, padding="same", use_bias=False),
                     layers.BatchNormalization(momentum=0.9), layers.ReLU()]  # fmt: skip
        body.append(layers.MaxPooling2D())
    return compiled([*body, layers.Flatten(), layers.Dense(128, "relu")])


def compiled(body):
    model = keras.Sequential([layers.Input((28, 28, 1)), *body, layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    return model


@functools.cache  # every arm asks for them
def read(num_images, noise=0.0):
    """Returns the data, with a share `noise` of the training labels drawn anew at random."""
    with np.load(pathlib.Path(os.environ["STUDY_DATA"], "mnist.npz")) as found:
        x, y, x_test, y_test = (found[n] for n in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = ((each / 255).astype("float32")[..., None] for each in (x, x_test))
    y, y_test = y.astype("int32"), y_test.astype("int32")
    drawn = np.random.default_rng(0)
    chosen = drawn.permutation(50_000)[:num_images]
    labels = y[chosen]
    wrong = drawn.random(num_images) < noise
    labels[wrong] = (labels[wrong] + drawn.integers(1, 10, wrong.sum())) % 10
    return {
        "train": (x[chosen], labels),
        "validation": (x[50_000:][:num_images], y[50_000:][:num_images]),
        "test": (x_test, y_test),
    }


NETWORKS = {
    "lenet300": (lenet_300_100, "LeNet-300-100"),
    "lenet300-shifted": (
        shifted_lenet_300_100,
        "LeNet-300-100, each image moved by up to two pixels at random at every step",
    ),
    "lenet5": (lenet5, "LeNet-5"),
    "vgg": (
        vgg,
        "images of half the size, six convolutions with batch normalisation, 16 to 64 channels",
    ),
}
LENGTHS = {1000: (20, 20, 20), 5000: (10, 10, 10), 50_000: (3, 3, 3)}


def task(name, num_images, noise=0.0, **options):
    build, words = NETWORKS[name]
    options.setdefault("phases", LENGTHS[num_images])
    return Task(
        f"{name}-{num_images}" + "-noise" * (noise > 0),
        f"MNIST, {num_images:,} images to train on"
        + f", {noise:.0%} of their labels wrong" * (noise > 0)
        + f", {min(num_images, 10_000):,} to choose by, 10,000 to report on; {words}; "
        + "SGD at 0.05 with momentum 0.9",
        build, functools.partial(read, num_images, noise), error, "error, in percent",
        **options,
    )  # fmt: skip


# Without nine tenths of its weights the small VGG learns 1,000 images far worse than with all.
LEARNT = {"sparsities": (0.3, 0.5, 0.7)}
TASKS = [
    *(task(name, number) for number in (1000, 5000) for name in ("lenet300", "lenet5")),
    *(task(name, 50_000) for name in ("lenet300", "lenet5")),
    task("vgg", 1000),
    task("vgg", 5000, **LEARNT),
    task("vgg", 50_000, phases=(2, 2, 2), **LEARNT),
    task("lenet300", 50_000, noise=0.2),
    task("lenet300-shifted", 50_000, phases=(6, 6, 6)),
]

if __name__ == "__main__":
    main(TASKS)
