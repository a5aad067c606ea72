"""Finds the one package that knows the Keras an object comes from, and imports only that."""

import importlib
from typing import Any

from keras_dsd.checks import shown
from keras_dsd.foreign import is_layer_of

_DOORS = {"tf_keras": "keras_dsd.tfmot", "keras": "keras_dsd.keras3"}


def door_of(model: Any, argument: str = "model") -> Any:
    """Returns the package that serves `model`.

    Args:
        model: A model or a layer.
        argument: What the caller calls it; it stands in the message.

    Raises:
        TypeError: `model` is no model or layer of a Keras that is supported.
        ValueError: Its class has a constructor of its own that does not call Keras's.
    """
    roots = [str(base.__module__).partition(".")[0] for base in type(model).__mro__]
    for root in roots:
        if root in _DOORS:
            _check_made(model, argument, root)
            return importlib.import_module(_DOORS[root])
    raise TypeError(
        f"Expected `{argument}` to be a model or layer of Keras 3 or tf_keras. "
        f"Received: {argument}={shown(model)} of type {type(model).__module__}."
        f"{type(model).__name__} (not a Keras object). Give the model that you would call fit on."
    )


def door_to(root: str) -> Any:
    """Returns the package that serves a Keras.

    Args:
        root: The package of that Keras: `"keras"` or `"tf_keras"`.
    """
    return importlib.import_module(_DOORS[root])


def _check_made(model: Any, argument: str, root: str) -> None:
    if is_layer_of(model, root) and not hasattr(model, "name"):
        raise ValueError(
            f"Expected `{argument}` to be a model or layer that Keras has made. Received: "
            f"{argument} of type {type(model).__name__}, whose constructor did not call Keras's. "
            f"Begin it with super().__init__()."
        )
