"""Layers of either Keras, recognized without importing one."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# What tf_keras registers our wrapper under.
WRAPPER = "keras_dsd>DSDWrapper"


def refuse_foreign(model: Any, parts: Iterable[Any], own: str, foreign: str) -> None:
    """Refuses a model that holds layers of the other Keras, which would not be trained.

    Args:
        model: The model.
        parts: The layers in it that are its own Keras's, and itself.
        own: The package of its Keras: `"keras"` or `"tf_keras"`.
        foreign: The package of the other one.

    Raises:
        TypeError: An attribute of one of `parts` is, or holds, a layer of `foreign`.
    """
    for part in parts:
        for name, value in vars(part).items():
            for each in _layers_in(value):
                if is_layer_of(each, foreign):
                    raise TypeError(
                        f"Expected layers of {NAMES[own]} only. Received: model={model.name!r}, in "
                        f"which {part.name}.{name} is a {NAMES[foreign]} layer "
                        f"({type(each).__module__}.{type(each).__name__}). Build it with {own}."
                    )


NAMES = {"keras": "Keras 3", "tf_keras": "tf_keras"}


def is_layer_of(value: Any, package: str) -> bool:
    """Returns whether `value` is a layer, or a model, of the Keras in `package`."""
    return any(
        base.__name__ == "Layer" and base.__module__.startswith(f"{package}.")
        for base in type(value).__mro__
    )


def _layers_in(value: Any, depth: int = 2) -> Iterator[Any]:
    """Yields `value`, or what lists and dicts in it hold."""
    if depth and isinstance(value, Mapping):
        value = list(value.values())
    if depth and isinstance(value, list | tuple):
        for each in value:
            yield from _layers_in(each, depth - 1)
    else:
        yield value
