"""All that a Keras 3 model trains on from: weights, seeds of its layers, the optimizer's state."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras.src.utils import naming

from keras_dsd.adapters.keras3 import backends, kernels, optimizer


def begin(seed: int) -> None:
    """Seeds Python, NumPy and the backend, and has the names that Keras makes up begin anew."""
    naming.reset_uids()
    keras.utils.set_random_seed(seed)


def seed(value: int) -> None:
    """Seeds Python, NumPy and the backend."""
    keras.utils.set_random_seed(value)


def is_built(model: Any) -> bool:
    """Returns whether all weights are made."""
    return all(part.built for part in kernels.parts_of(model))


def is_known(model: Any) -> bool:
    """Returns whether `read` finds all there is: of several optimizers it can't tell the parts."""
    return len(optimizer.optimizers_of(model)) == 1


def num_updates(model: Any) -> int:
    """Returns how many updates the optimizers have made."""
    return sum(int(each.iterations) for each in optimizer.optimizers_of(model))


def read(model: Any) -> list[np.ndarray]:
    """Returns a copy of the state, between two calls of `fit`."""
    return [np.array(keras.ops.convert_to_numpy(each.value)) for each in _variables(model)]


def write(model: Any, values: Sequence[np.ndarray]) -> None:
    """Puts a model of the same architecture into a state.

    Raises:
        ValueError: It is of another architecture.
    """
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)


def weights_of(model: Any) -> list[np.ndarray]:
    """Returns a copy of the weights, also while `fit` lasts."""
    backends.sync(model)
    return [np.array(value) for value in model.get_weights()]


def renewed(model: Any) -> Any:
    """Returns a model of the same config, compiled alike, with fresh weights."""
    config = keras.saving.serialize_keras_object(model)
    return keras.saving.deserialize_keras_object(config, safe_mode=False)


def _variables(model: Any) -> list[Any]:
    backends.sync(model)
    if not is_known(model):
        return list(model.variables)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]
