"""Hooks into tf_keras: optimizers are observed, their learning rates scaled, and `fit` watched."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from keras_dsd.adapters import tf_graphs
from keras_dsd.adapters.base import private_names
from keras_dsd.adapters.base.observation import (
    ClassHooks,
    Member,
    observed_apply_gradients,
    scaled_rate,
)
from keras_dsd.adapters.base.plain_fits import PlainFits
from keras_dsd.adapters.tf_keras.masked_updates import is_the_users
from keras_dsd.adapters.tf_keras.optimizer import KINDS, Optimizer

_Schedule = tf_keras.optimizers.schedules.LearningRateSchedule


def _scaled_property(rate: property) -> Member:
    """Returns the property `learning_rate`, which is scaled during an update."""

    def scaled(self: Optimizer) -> object:
        return scaled_rate(self, lambda: rate.__get__(self), _multiply, _graph_of_update(self))

    return property(scaled, rate.fset, rate.fdel)


def _scaled_decay(decayed: Callable[..., tf.Tensor]) -> Member:
    """Returns the scaled `READ_DECAYED_RATE`, the learning rate of legacy optimizers."""

    def scaled(self: Optimizer, var_dtype: tf.DType) -> object:
        return scaled_rate(self, lambda: decayed(self, var_dtype), _multiply)

    return scaled


def _scaled_hyper(get: Callable[..., Any]) -> Member:
    """Returns `READ_HYPER` of a legacy optimizer, with a scaled learning rate."""

    def scaled(self: Optimizer, name: str, dtype: tf.DType | None = None) -> object:
        def read() -> Any:
            return get(self, name, dtype)

        is_number = not isinstance(private_names.given_rate(self), _Schedule)
        is_rate = name == "learning_rate" and is_number
        return scaled_rate(self, read, _multiply) if is_rate else read()

    return scaled


def _graph_of_update(each: Optimizer) -> tf.Graph | None:
    """Returns the graph in which an update reads one learning rate repeatedly, or None.

    Under a strategy each replica reads its own, and a custom optimizer may set it in between.
    """
    is_shared = tf.distribute.has_strategy() or is_the_users(type(each))
    return None if is_shared else tf_graphs.current()


def _multiply(rate: Any, factor: tf.Variable) -> tf.Tensor:
    rate = tf.convert_to_tensor(rate)
    return rate * tf.cast(factor, rate.dtype)


def _parts_of(model: tf_keras.layers.Layer) -> list[tf_keras.layers.Layer]:
    """Returns `model` and every layer in it."""
    return list(model._flatten_layers())


HOOKS = ClassHooks(
    [base for kind in KINDS for base in kind.__mro__ if "apply_gradients" in vars(base)],
    {
        "apply_gradients": observed_apply_gradients,
        "learning_rate": _scaled_property,
        private_names.READ_DECAYED_RATE: _scaled_decay,
        private_names.READ_HYPER: _scaled_hyper,
    },
)
PLAIN_FITS = PlainFits(tf_keras.Model, _parts_of)
