"""Finds the adapter of the Keras that an object comes from, and imports only that one."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import wrapt

from keras_dsd.adapters.base.layers import WRAPPER, is_layer_of
from keras_dsd.protocols import KerasAdapter, Layer
from keras_dsd.utils.checks import shown

if TYPE_CHECKING:  # the type checker compares each package with the protocol
    from keras_dsd.adapters import keras3, tf_keras

    _OFFERED: tuple[KerasAdapter, ...] = (keras3, tf_keras)

_ADAPTERS = {"tf_keras": "keras_dsd.adapters.tf_keras", "keras": "keras_dsd.adapters.keras3"}


def adapter_of(model: object, argument: str = "model") -> KerasAdapter:
    """Returns the adapter of the Keras that `model` comes from.

    Args:
        model: A model or a layer.
        argument: Name of the caller's argument, for the message.

    Raises:
        TypeError: `model` is not a model or layer of a supported Keras.
        ValueError: Its class has a constructor that does not call that of Keras.
    """
    roots = [str(base.__module__).partition(".")[0] for base in type(model).__mro__]
    for root in roots:
        if root in _ADAPTERS:
            _check_made(model, argument, root)
            return adapter_for(root)
    raise TypeError(
        f"Expected `{argument}` to be a model or layer of Keras 3 or tf_keras. "
        f"Received: {argument}={shown(model)} of type {type(model).__module__}."
        f"{type(model).__name__} (not a Keras object). Pass the model that you call fit on."
    )


def adapter_for(root: str) -> KerasAdapter:
    """Returns the adapter of a Keras.

    Args:
        root: Package of the Keras: `"keras"` or `"tf_keras"`.
    """
    return cast(KerasAdapter, importlib.import_module(_ADAPTERS[root]))


def _check_made(model: object, argument: str, root: str) -> None:
    if is_layer_of(model, root) and not hasattr(model, "name"):
        raise ValueError(
            f"Expected `{argument}` to be an initialized model or layer. Received: "
            f"{argument} of type {type(model).__name__}, whose constructor does not call Keras. "
            f"Call super().__init__() first in it."
        )


def register_wrapper() -> None:
    """Registers the wrapper with tf_keras now, or when it is imported.

    tf_keras looks up custom layers only in a registry. Importing tf_keras to register there would
    import TensorFlow into programs that do not use it.
    """
    wrapt.register_post_import_hook(_register_wrapper, "tf_keras")


def _register_wrapper(tf_keras: ModuleType) -> None:
    tf_keras.saving.get_custom_objects().setdefault(WRAPPER, _LazyWrapper)


class _LazyWrapper:
    """Placeholder of the wrapper in the registry, until a file needs it."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Imports the wrapper, and returns one."""
        made: Layer = importlib.import_module(_ADAPTERS["tf_keras"]).DSDWrapper.from_config(config)
        return made
