"""The networks that are measured, with inputs drawn at random: only time and memory count here."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from absl import flags

_SGD = flags.DEFINE_bool("sgd", False, "Whether to train by SGD with momentum, and not by Adam.")
_JIT = flags.DEFINE_bool("jit", False, "Whether XLA compiles the complete step.")
NUM_CLASSES = 10
NUM_LETTERS = 96
NUM_INPUTS = 64  # of the networks that grow


class Network(NamedTuple):
    """A network.

    Attributes:
        words: What it is.
        build: Makes a model of `keras` or `tf_keras`.
        shape: Of a batch of inputs.
        letters: Whether inputs and outputs are letters, one at each place.
    """

    words: str
    build: Callable[[Any], Any]
    shape: tuple[int, ...]
    letters: bool = False

    def batches(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns inputs and labels of `count` batches."""
        random = np.random.default_rng(0)
        shape = (count * self.shape[0], *self.shape[1:])
        if self.letters:
            x, y = (random.integers(0, NUM_LETTERS, shape, "int32") for _ in range(2))
            return x, y
        labels = random.integers(0, NUM_CLASSES, shape[0], "int32")
        return random.normal(size=shape).astype("float32"), labels


def named(name: str) -> Network:
    """Returns a network.

    Args:
        name: One of `NETWORKS`; `"layers-30"`, a stack of 30 layers; or `"units-3000"`, two layers
            of 3,000 units.
    """
    kind, _, number = name.partition("-")
    if kind == "layers":
        return _dense(64, int(number), (32, NUM_INPUTS))
    if kind == "units":
        return _dense(int(number), 2, (32, NUM_INPUTS))
    return NETWORKS[name]


def num_weights(units: int) -> int:
    """Returns how many weights the kernels of `units-…` have."""
    return NUM_INPUTS * units + units**2 + units * NUM_CLASSES


def compiled(keras: Any, model: Any) -> Any:
    """Returns `model`, compiled as all are that are measured."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    of = keras.optimizers
    optimizer = of.SGD(1e-3, momentum=0.9) if _SGD.value else of.Adam(1e-3)
    model.compile(optimizer, loss, **({"jit_compile": True} if _JIT.value else {}))
    return model


def _dense(units: int, count: int, shape: tuple[int, ...]) -> Network:
    def build(keras: Any) -> Any:
        # Gradients that vanish on the way down are denormal numbers, with which CPUs are slow.
        how = {"activation": "relu", "kernel_initializer": "he_normal"}
        layers = [keras.layers.Dense(units, **how) for _ in range(count)]
        return _with_classes(keras, shape, layers)

    return Network(f"{count} dense layers of {units} units, batches of {shape[0]}", build, shape)


def _with_classes(keras: Any, shape: tuple[int, ...], layers: list[Any]) -> Any:
    last = keras.layers.Dense(NUM_CLASSES)
    return keras.Sequential([keras.layers.Input(shape[1:]), *layers, last])


def _convolutional(keras: Any) -> Any:
    make = keras.layers
    layers = []
    for filters in (32, 64, 128):
        layers += [make.Conv2D(filters, 3, padding="same", activation="relu"), make.MaxPooling2D()]
    layers += [make.Flatten(), make.Dense(128, activation="relu")]
    return _with_classes(keras, (32, 32, 32, 3), layers)


def _lstm(keras: Any) -> Any:
    return _with_classes(keras, (32, 50, 64), [keras.layers.LSTM(256)])


def _transformer(keras: Any, width: int = 128, blocks: int = 2, dropout: float = 0.0) -> Any:
    make = keras.layers
    letters = make.Input((64,), dtype="int32")
    x = make.Embedding(NUM_LETTERS, width)(letters)

    def add(x: Any, y: Any) -> Any:
        return make.Add()([x, make.Dropout(dropout)(y) if dropout else y])

    for _ in range(blocks):
        y = make.LayerNormalization()(x)
        attend = make.MultiHeadAttention(4, width // 4, dropout=dropout)
        x = add(x, attend(y, y, use_causal_mask=True))
        y = make.Dense(4 * width, activation="gelu")(make.LayerNormalization()(x))
        x = add(x, make.Dense(width)(y))
    return keras.Model(letters, make.Dense(NUM_LETTERS)(make.LayerNormalization()(x)))


def _application(name: str, side: int, keras: Any) -> Any:
    make = getattr(keras.applications, name)
    return make(weights=None, input_shape=(side, side, 3), classes=NUM_CLASSES,
                classifier_activation=None)  # fmt: skip


NETWORKS = {
    "mlp": _dense(512, 3, (128, 784)),
    "wide_mlp": _dense(2048, 3, (16, 784)),
    "conv": Network("3 convolutions, 32 to 128 filters, batches of 32", _convolutional,
                    (32, 32, 32, 3)),
    "lstm": Network("an LSTM of 256 units over 50 steps, batches of 32", _lstm, (32, 50, 64)),
    "transformer": Network("2 blocks, 128 wide, 64 letters, batches of 16", _transformer,
                           (16, 64), letters=True),
    "dropout": Network("transformer with dropout",
                       functools.partial(_transformer, dropout=0.1), (16, 64), letters=True),
    "resnet50": Network("ResNet-50, 64 x 64 pixels, batches of 8",
                        functools.partial(_application, "ResNet50", 64), (8, 64, 64, 3)),
    "vgg16": Network("VGG-16, 32 x 32 pixels, batches of 8",
                     functools.partial(_application, "VGG16", 32), (8, 32, 32, 3)),
}  # fmt: skip
