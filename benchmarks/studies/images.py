"""The networks and data of tasks with images."""

import functools
import io
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
from building import classifier, compiled, dense_with
from keras import ops
from protocol import Setting
from trials import Part, Split, scanned

layers = keras.layers
SMALL_BATCH, LARGE_BATCH = 64, 128


class Convolution(layers.Conv2D):
    """`Conv2D` of square images with the padding "same", trained as a product of matrices.

    XLA rewrites the gradients of convolutions for its fast kernels on a CPU, but not inside a loop,
    such as that over batches: there they are 30 times slower. Products are fast in both.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the convolved images."""
        if not training or jax.default_backend() != "cpu":
            return super().call(inputs)
        (size, _), (stride, _), length = self.kernel_size, self.strides, inputs.shape[1]
        last = stride * ((length - 1) // stride)
        added = max(last + size - length, 0)
        around = (added // 2, added - added // 2)
        padded = ops.pad(inputs, ((0, 0), around, around, (0, 0)))
        starts = [slice(first, first + last + 1, stride) for first in range(size)]
        patches = ops.concatenate([padded[:, row, col] for row in starts for col in starts], -1)
        product = ops.matmul(patches, ops.reshape(self.kernel, (-1, self.filters)))
        return self.activation(product if self.bias is None else product + self.bias)


def small_mlp(setting: Setting) -> keras.Model:
    """Returns an MLP 784-100-50-10."""
    dense = dense_with(setting)
    return classifier(
        [layers.Input((784,), dtype="uint8"), layers.Rescaling(1 / 255), dense(100, "relu"),
         dense(50, "relu"), dense(10, name="last")],
        setting, 128,
    )  # fmt: skip


def _convolution(setting: Setting) -> Callable[..., keras.layers.Layer]:
    decay = keras.regularizers.L2(setting.l2)
    return functools.partial(
        Convolution, kernel_size=3, padding="same", kernel_initializer="he_normal",
        kernel_regularizer=decay,
    )  # fmt: skip


def small_vgg(setting: Setting, shape: tuple[int, ...]) -> keras.Model:
    """Returns a small VGG that halves its images by strides instead of pooling.

    It has convolutions of 8, 16 and 32 channels and dense layers of 64 and 10 units: a core trains
    it on 20,000 images in about a second.
    """
    convolution = functools.partial(_convolution(setting), strides=2, activation="relu")
    dense = dense_with(setting)
    return classifier(
        [layers.Input(shape, dtype="uint8"), layers.Rescaling(1 / 64, -2),
         layers.Reshape((*shape[:2], -1)), convolution(8, name="first"), convolution(16),
         convolution(32), layers.Flatten(), dense(64, "relu"), dense(10, name="last")],
        setting, SMALL_BATCH,
    )  # fmt: skip


def cifar_vgg(setting: Setting) -> keras.Model:
    """Returns a small VGG for 32 by 32 pixels in colour."""
    return small_vgg(setting, (32, 32, 3))


def fashion_vgg(setting: Setting) -> keras.Model:
    """Returns a small VGG for 28 by 28 pixels in grey."""
    return small_vgg(setting, (28, 28))


def cifar_resnet(setting: Setting) -> keras.Model:
    """Returns ResNet-20: a convolution, nine blocks of two, and the last layer."""
    convolution = functools.partial(_convolution(setting), use_bias=False)
    images = layers.Input((32, 32, 3), dtype="uint8")
    outputs = convolution(16, name="first")(layers.Rescaling(1 / 64, -2)(images))
    outputs = layers.ReLU()(layers.BatchNormalization()(outputs))
    for channels, stride in [(16, 1)] * 3 + [(32, 2)] + [(32, 1)] * 2 + [(64, 2)] + [(64, 1)] * 2:
        inputs = outputs
        outputs = layers.BatchNormalization()(convolution(channels, strides=stride)(inputs))
        outputs = convolution(channels)(layers.ReLU()(outputs))
        if stride > 1:
            inputs = convolution(channels, kernel_size=1, strides=stride)(inputs)
        outputs = layers.ReLU()(layers.Add()([inputs, layers.BatchNormalization()(outputs)]))
    outputs = dense_with(setting)(10, name="last")(layers.GlobalAveragePooling2D()(outputs))
    model = scanned(keras.Model, LARGE_BATCH)(images, outputs)
    return compiled(model, keras.optimizers.SGD(setting.lr, momentum=0.9))


@functools.cache
def _images(path: pathlib.Path) -> tuple[np.ndarray, ...]:
    """Returns training and test data, of a file that may hold the images as JPEGs."""
    with np.load(path) as found:
        if "jpeg_train" in found:
            x, x_test = (_decoded(found[f"jpeg_{n}"], found[f"end_{n}"]) for n in ("train", "test"))
        else:
            x, x_test = found["x_train"], found["x_test"]
        return x, _labels(found["y_train"]), x_test, _labels(found["y_test"])


def _labels(found: np.ndarray) -> np.ndarray:
    return found.reshape(-1).astype("int32")


def _decoded(jpegs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    import PIL.Image

    files = np.split(jpegs, ends[:-1])
    return np.stack([np.asarray(PIL.Image.open(io.BytesIO(each.tobytes()))) for each in files])


def shifted_images(path: pathlib.Path, seed: int) -> Split:
    """Returns 50,000 of the training images, flat, and shifted by up to 3 pixels."""
    split = augmented(path, seed, (50_000, 10_000), 128, shift=3)

    def flat(part: Part) -> Part:
        return part[0].reshape(len(part[0]), -1), part[1]

    return Split(lambda number: flat(split.epoch(number)), flat(split.validation), flat(split.test))


def fashion_images(path: pathlib.Path, seed: int) -> Split:
    """Returns 20,000 of the training images, shifted by up to 2 pixels."""
    return augmented(path, seed, (20_000, 5_000), SMALL_BATCH, shift=2)


def cifar_images(path: pathlib.Path, seed: int) -> Split:
    """Returns 20,000 of the training images, shifted by up to 4 pixels and mirrored."""
    return augmented(path, seed, (20_000, 5_000), SMALL_BATCH, shift=4, mirror=True)


def all_cifar_images(path: pathlib.Path, seed: int, batch_size: int = SMALL_BATCH) -> Split:
    """Returns 45,000 of the training images, changed alike; the others for validation."""
    return augmented(path, seed, (45_000, 5_000), batch_size, shift=4, mirror=True)


def augmented(
    path: pathlib.Path, seed: int, sizes: tuple[int, int], batch_size: int, shift: int,
    mirror: bool = False,
) -> Split:  # fmt: skip
    """Returns some of the training images, changed in every epoch, and others for validation.

    Args:
        path: A file of images.
        seed: The seed: of which images, and of what each epoch does to them.
        sizes: Numbers of images for training and for validation.
        batch_size: Images a step; an epoch has full batches only.
        shift: The most pixels that an image is shifted by, either way; zeros take their place.
        mirror: Whether half of the images are mirrored, at random.
    """
    x, y, x_test, y_test = _images(path)
    order = np.random.default_rng([seed, 0]).permutation(len(x))[: sum(sizes)]
    chosen, held_out = np.split(order, sizes[:1])
    around = [(0, 0), (shift, shift), (shift, shift), (0, 0)]
    padded, labels = np.pad(x[chosen], around[: x.ndim]), y[chosen]
    (height, length), width = x.shape[1:3], 2 * shift + 1

    def epoch(number: int) -> Part:
        drawn = np.random.default_rng([seed, 1, number])
        order = drawn.permutation(len(padded))[: len(padded) // batch_size * batch_size]
        shifts = drawn.integers(0, width**2, len(order))
        images = np.empty((len(order), *x.shape[1:]), np.uint8)
        for each in range(width**2):
            row, column = divmod(each, width)
            found = np.flatnonzero(shifts == each)
            window = padded[:, row : row + height, column : column + length]
            images[found] = window[order[found]]
        if mirror:
            found = np.flatnonzero(drawn.integers(0, 2, len(order)))
            images[found] = images[found, :, ::-1]
        return images, labels[order]

    return Split(epoch, (x[held_out], y[held_out]), (x_test, y_test))
