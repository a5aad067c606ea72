"""Parts that the networks and the data of tasks share."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from protocol import Setting
from trials import Part, scanned


def dense_with(setting: Setting) -> Callable[..., keras.layers.Layer]:
    """Returns `Dense` with the L2 of a setting."""
    decay = keras.regularizers.L2(setting.l2)
    return functools.partial(keras.layers.Dense, kernel_regularizer=decay)


def recurrent_with(setting: Setting, kind: type) -> Callable[..., keras.layers.Layer]:
    """Returns a recurrent layer, such as `LSTM`, with the L2 of a setting for both its kernels."""
    decay = keras.regularizers.L2(setting.l2)
    return functools.partial(kind, kernel_regularizer=decay, recurrent_regularizer=decay)


def classifier(body: Sequence[Any], setting: Setting, batch_size: int) -> keras.Model:
    """Returns a compiled sequence of layers, trained by SGD with momentum 0.9."""
    model = scanned(keras.Sequential, batch_size)(list(body))
    return compiled(model, keras.optimizers.SGD(setting.lr, momentum=0.9))


def compiled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Returns a model of logits, compiled with the loss and the metrics of classes."""
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[
            keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="nll"),
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        ],
    )
    return model


def shuffled(x: Any, y: np.ndarray, seed: int, batch_size: int) -> Callable[[int], Part]:
    """Returns a function of an epoch: its examples, full batches in a random order."""

    def epoch(number: int) -> Part:
        order = np.random.default_rng([seed, 1, number]).permutation(len(y))
        order = order[: len(y) // batch_size * batch_size]
        return keras.tree.map_structure(lambda array: array[order], x), y[order]

    return epoch
