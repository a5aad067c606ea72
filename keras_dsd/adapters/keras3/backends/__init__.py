"""What differs between Keras 3's backends: one module for each, of the same functions."""

import importlib
from types import ModuleType
from typing import Any

import keras

_MODULES = {
    "tensorflow": "keras_dsd.adapters.keras3.backends.tensorflow",
    "jax": "keras_dsd.adapters.keras3.backends.jax",
    "torch": "keras_dsd.adapters.keras3.backends.torch",
}


def current() -> ModuleType:
    """Returns the module of the backend in use.

    Raises:
        ValueError: The backend can't train.
    """
    name = keras.backend.backend()
    if name not in _MODULES:
        raise ValueError(
            f"Expected a backend that trains: tensorflow, jax or torch. "
            f"Received: backend={name!r}. Set KERAS_BACKEND before Keras is imported."
        )
    return importlib.import_module(_MODULES[name])


def sync(model: Any) -> None:
    """Brings the values of a `fit` in progress back into the variables: JAX keeps them outside."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
