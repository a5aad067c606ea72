"""All that a tf_keras model trains on from: its weights and the state of its optimizer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_dsd.adapters.tf_keras import optimizer


def begin(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, and has the names that Keras makes up begin anew."""
    tf_keras.backend.reset_uids()
    tf_keras.utils.set_random_seed(seed)


def seed(value: int) -> None:
    """Seeds Python, NumPy and TensorFlow."""
    tf_keras.utils.set_random_seed(value)


def is_built(model: Any) -> bool:
    """Returns whether all weights are made."""
    return bool(model.built)


def is_known(model: Any) -> bool:
    """Returns whether `read` finds all there is: of several optimizers it can't tell the parts."""
    return len(optimizer.optimizers_of(model)) == 1


def num_updates(model: Any) -> int:
    """Returns how many updates the optimizers have made."""
    return sum(int(each.iterations) for each in optimizer.optimizers_of(model))


def read(model: Any) -> list[np.ndarray]:
    """Returns a copy of the state, between two calls of `fit`."""
    return [each.numpy() for each in _variables(model)]


def write(model: Any, values: Sequence[np.ndarray]) -> None:
    """Puts a model of the same architecture into a state.

    Raises:
        ValueError: It is of another architecture.
    """
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)


def weights_of(model: Any) -> list[np.ndarray]:
    """Returns a copy of the weights."""
    return [np.array(value) for value in model.get_weights()]


def renewed(model: Any) -> Any:
    """Returns a model of the same config, compiled alike, with fresh weights."""
    config = tf_keras.saving.serialize_keras_object(model)
    return tf_keras.saving.deserialize_keras_object(config, safe_mode=False)


def _variables(model: Any) -> list[Any]:
    if not is_known(model):
        return list(model.weights)
    (inner,) = optimizer.optimizers_of(model)
    build = getattr(inner, "build", None) or inner._create_all_weights  # of legacy optimizers
    with model.distribute_strategy.scope():
        build(model.trainable_variables)
    kept = inner.variables() if callable(inner.variables) else inner.variables
    # What a loss scale is made of is among no optimizer's variables.
    tracked = tf.train.TrackableView(model.optimizer).descendants()
    found = [*model.weights, *kept, *(each for each in tracked if isinstance(each, tf.Variable))]
    return list({id(each): each for each in found}.values())
