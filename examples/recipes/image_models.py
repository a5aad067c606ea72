"""The six ImageNet networks of the DSD paper, as published, each ending in a softmax in float32.

VGG-16 and ResNet-50 are those of keras.applications, so its files of weights fit; the others are
written out. GoogLeNet comes without its two auxiliary classifiers, of use in training alone.
"""

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from recipes.chosen_keras import IS_LEGACY, keras
from recipes.problems import ProblemError

layers = keras.layers
Model = Any
pad = tf.pad if IS_LEGACY else keras.ops.pad


def build(
    name: str,
    image_size: int,
    num_classes: int,
    weight_decay: float,
    dropout: float | None = None,
    width: float | None = None,
) -> Model:
    """Returns a new network, not compiled.

    Args:
        name: A key of `NETWORKS`.
        image_size: Height and width of the images, in pixels.
        num_classes: Number of classes.
        weight_decay: L2 coefficient in the gradient of each kernel. Biases and normalisation have
            none.
        dropout: Dropout rate. None: as published.
        width: Fraction of the published channels of ResNet-18. None: 1.

    Raises:
        ProblemError: The network has no dropout layer, or no width, and one is given.
    """
    options = {"dropout": dropout, "width": width}
    options = {option: value for option, value in options.items() if value is not None}
    for option in options.keys() - inspect.signature(NETWORKS[name]).parameters.keys():
        raise ProblemError(
            f"Expected no --{option} for {name}, which has none. "
            f"Received: --{option}={options[option]}. Leave it out, or take another --model."
        )
    network = NETWORKS[name](image_size, num_classes, **options)
    # So that no layer above has to name it; those of keras.applications would not take it either.
    changes = {"kernel_regularizer": {"class_name": "L2", "config": {"l2": weight_decay / 2}}}
    if name == "resnet50":
        changes["kernel_initializer"] = "he_normal"
    return keras.models.clone_model(network, clone_function=lambda layer: _changed(layer, changes))


def _changed(layer: Any, changes: dict[str, Any]) -> Any:
    config = layer.get_config()
    return type(layer).from_config(config | {k: v for k, v in changes.items() if k in config})


def alexnet(image_size: int, num_classes: int, dropout: float = 0.5) -> Model:
    """Returns Caffe's AlexNet: two groups, as on the two GPUs it was first trained on."""
    images = layers.Input((image_size, image_size, 3))
    # Caffe takes images of 227 pixels; torchvision pads those of 224 by 2 instead.
    x = layers.ZeroPadding2D(2)(images)
    x = _gaussian(96, 11, strides=4, padding="valid")(x)
    x = layers.MaxPooling2D(3, 2)(LocalResponseNormalization()(x))
    x = _gaussian(256, 5, groups=2, bias=0.1)(x)
    x = layers.MaxPooling2D(3, 2)(LocalResponseNormalization()(x))
    x = _gaussian(384, 3)(x)
    x = _gaussian(384, 3, groups=2, bias=0.1)(x)
    x = _gaussian(256, 3, groups=2, bias=0.1)(x)
    x = layers.Flatten()(layers.MaxPooling2D(3, 2)(x))
    for _ in range(2):
        x = layers.Dense(
            4096, activation="relu", kernel_initializer=keras.initializers.RandomNormal(0, 0.005),
            bias_initializer=keras.initializers.Constant(0.1),
        )(x)  # fmt: skip
        x = layers.Dropout(dropout)(x)
    logits = layers.Dense(num_classes, kernel_initializer=keras.initializers.RandomNormal(0, 0.01))
    return _classifier("alexnet", images, logits(x))


def _gaussian(filters: int, size: int, bias: float = 0.0, **options: Any) -> Any:
    kernel = keras.initializers.RandomNormal(0, 0.01)
    return layers.Conv2D(
        filters, size, activation="relu", kernel_initializer=kernel,
        bias_initializer=keras.initializers.Constant(bias), **{"padding": "same", **options},
    )  # fmt: skip


def googlenet(image_size: int, num_classes: int, dropout: float = 0.4) -> Model:
    """Returns the Inception network of 2014."""
    images = layers.Input((image_size, image_size, 3))
    x = _xavier(64, 7, strides=2)(images)
    x = LocalResponseNormalization()(layers.MaxPooling2D(3, 2, padding="same")(x))
    x = LocalResponseNormalization()(_xavier(192, 3)(_xavier(64, 1)(x)))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = _inception(x, 64, (96, 128), (16, 32), 32)
    x = _inception(x, 128, (128, 192), (32, 96), 64)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = _inception(x, 192, (96, 208), (16, 48), 64)
    x = _inception(x, 160, (112, 224), (24, 64), 64)
    x = _inception(x, 128, (128, 256), (24, 64), 64)
    x = _inception(x, 112, (144, 288), (32, 64), 64)
    x = _inception(x, 256, (160, 320), (32, 128), 128)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = _inception(x, 256, (160, 320), (32, 128), 128)
    x = _inception(x, 384, (192, 384), (48, 128), 128)
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return _classifier("googlenet", images, layers.Dense(num_classes)(x))


def _inception(
    x: Any, ones: int, threes: tuple[int, int], fives: tuple[int, int], pooled: int
) -> Any:
    return layers.Concatenate()([
        _xavier(ones, 1)(x),
        _xavier(threes[1], 3)(_xavier(threes[0], 1)(x)),
        _xavier(fives[1], 5)(_xavier(fives[0], 1)(x)),
        _xavier(pooled, 1)(layers.MaxPooling2D(3, 1, padding="same")(x)),
    ])  # fmt: skip


def _xavier(filters: int, size: int, **options: Any) -> Any:
    """Returns a convolution with Keras's own initialiser, and the bias of Caffe's GoogLeNet."""
    bias = keras.initializers.Constant(0.2)
    return layers.Conv2D(
        filters, size, padding="same", activation="relu", bias_initializer=bias, **options
    )


def squeezenet(image_size: int, num_classes: int, dropout: float = 0.5) -> Model:
    """Returns SqueezeNet 1.0."""
    images = layers.Input((image_size, image_size, 3))
    x = layers.Conv2D(96, 7, strides=2, activation="relu")(images)
    for index, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        if index in (0, 3, 7):
            x = layers.MaxPooling2D(3, 2, padding="same")(x)
        x = layers.Conv2D(squeezed, 1, activation="relu")(x)
        x = layers.Concatenate()([
            layers.Conv2D(4 * squeezed, 1, activation="relu")(x),
            layers.Conv2D(4 * squeezed, 3, padding="same", activation="relu")(x),
        ])  # fmt: skip
    x = layers.Dropout(dropout)(x)
    last = keras.initializers.RandomNormal(0, 0.01)
    x = layers.Conv2D(num_classes, 1, activation="relu", kernel_initializer=last)(x)
    return _classifier("squeezenet", images, layers.GlobalAveragePooling2D()(x))


def resnet18(image_size: int, num_classes: int, width: float = 1.0) -> Model:
    """Returns the residual network of 18 layers, with projections where shapes change."""
    images = layers.Input((image_size, image_size, 3))
    x = layers.ReLU()(_normalised(round(64 * width), 7, 2)(images))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for stage in range(4):
        filters = round(64 * width) * 2**stage
        x = _residual(x, filters, strides=1 + (stage > 0))
        x = _residual(x, filters, strides=1)
    x = layers.GlobalAveragePooling2D()(x)
    return _classifier("resnet18", images, layers.Dense(num_classes)(x))


def _residual(x: Any, filters: int, strides: int) -> Any:
    kept = x if strides == 1 and x.shape[-1] == filters else _normalised(filters, 1, strides)(x)
    x = layers.ReLU()(_normalised(filters, 3, strides)(x))
    x = _normalised(filters, 3, 1)(x)
    return layers.ReLU()(layers.Add()([kept, x]))


def _normalised(filters: int, size: int, strides: int) -> Callable[[Any], Any]:
    """Returns a convolution, padded alike on all sides, and BatchNormalization."""

    def apply(x: Any) -> Any:
        x = layers.ZeroPadding2D(size // 2)(x) if size > 1 else x
        x = layers.Conv2D(filters, size, strides, use_bias=False, kernel_initializer="he_normal")(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    return apply


def resnet50(image_size: int, num_classes: int) -> Model:
    """Returns the network of keras.applications."""
    network = keras.applications.ResNet50(
        weights=None, input_shape=(image_size, image_size, 3), classes=num_classes,
        classifier_activation=None,
    )  # fmt: skip
    return _classifier("resnet50", network.input, network.output)


def vgg16(image_size: int, num_classes: int, dropout: float = 0.5) -> Model:
    """Returns the network of keras.applications, and the dropout it was trained with."""
    network = keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(image_size, image_size, 3)
    )
    x = layers.Flatten(name="flatten")(network.output)
    for name in ("fc1", "fc2"):
        x = layers.Dense(4096, activation="relu", name=name)(x)
        x = layers.Dropout(dropout)(x)
    logits = layers.Dense(num_classes, name="predictions")(x)
    return _classifier("vgg16", network.input, logits)


def _classifier(name: str, images: Any, logits: Any) -> Model:
    return keras.Model(images, layers.Softmax(dtype="float32")(logits), name=name)


@keras.saving.register_keras_serializable("keras_dsd_recipes")
class LocalResponseNormalization(layers.Layer):
    """Divides by what five neighbouring channels hold, as AlexNet and GoogLeNet do; in float32."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "dtype": "float32"})

    def call(self, inputs: Any) -> Any:
        """Returns `inputs`, of shape (batch, height, width, channels), divided."""
        channels = inputs.shape[-1]
        squares = pad(inputs * inputs, [[0, 0], [0, 0], [0, 0], [2, 2]])
        total = sum(squares[..., start : start + channels] for start in range(5))
        return inputs / (1.0 + (1e-4 / 5) * total) ** 0.75

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns `input_shape`."""
        return input_shape


NETWORKS: dict[str, Callable[..., Model]] = {
    "alexnet": alexnet, "googlenet": googlenet, "resnet18": resnet18, "resnet50": resnet50,
    "squeezenet": squeezenet, "vgg16": vgg16,
}  # fmt: skip
