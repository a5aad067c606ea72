"""Layers of either Keras, recognized without importing one."""

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar

from keras_dsd.algorithm.kernel_layout import (
    Layout,
    default_layout,
    einsum_layout,
    transposed_layout,
)
from keras_dsd.protocols import Layer
from keras_dsd.utils.checks import invalid_type

PartT = TypeVar("PartT")

# The registered name of the wrapper in tf_keras.
WRAPPER = "keras_dsd>DSDWrapper"


def check_layer(model: object, kind: type, described: str) -> None:
    """Checks that `model` is a layer of the adapter's Keras.

    Raises:
        TypeError: It is not.
    """
    if not isinstance(model, kind):
        hint = "Pass the model that you call fit on."
        raise invalid_type("model", model, f"to be a {described} model or layer", hint)


def class_names(layer: object) -> frozenset[str]:
    """Returns the names of a layer's class and its bases."""
    return frozenset(base.__name__ for base in type(layer).__mro__)


def check_applied(
    model: Layer, parts: list[PartT], received: str = "", hint: str = ""
) -> list[PartT]:
    """Returns the parts of `model` that were passed through `apply`.

    Raises:
        ValueError: There are none.
    """
    if not parts:
        raise ValueError(
            f"Expected a model that was passed through apply(). Received: model={model.name!r}"
            f"{received}. Call model = keras_dsd.apply(model, sparsity=0.3) first{hint}."
        )
    return parts


def copied(name: str) -> str:
    """Returns the message for a copy of a model that was passed through apply()."""
    return (
        f"Expected a model that was passed through apply(). Received: model={name!r}, a copy of "
        f"one, which does not have its selection: clone_model, copy.deepcopy, load_model and "
        f"scikit-learn wrappers make such copies. Call model = keras_dsd.apply(model, "
        f"sparsity=0.3) on the copy. Pass a scikit-learn wrapper a function instead of a model: "
        f"def build(X, y) builds a model, applies DSD, compiles and returns it."
    )


def refuse_foreign(model: Layer, parts: Iterable[Layer], own: str, foreign: str) -> None:
    """Raises TypeError if a model holds layers of the other Keras, which would not be trained.

    Args:
        model: The model.
        parts: The model itself, and its layers of the same Keras.
        own: Package of its Keras: `"keras"` or `"tf_keras"`.
        foreign: Package of the other Keras.

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


def layout_of(layer: Layer, rank: int, layers: ModuleType) -> Layout:
    """Returns the layout of a kernel.

    Args:
        layer: The layer that holds it.
        rank: The number of its axes.
        layers: The module `layers` of the Keras of `layer`: attributes and names of a custom class
            may mean anything.
    """
    ranks = {layers.Conv1DTranspose: 3, layers.Conv2DTranspose: 4, layers.Conv3DTranspose: 5}
    if isinstance(layer, layers.EinsumDense):
        return einsum_layout(layer.equation, rank)
    if any(isinstance(layer, kind) and rank == ranks[kind] for kind in ranks):
        return transposed_layout(rank)
    return default_layout(rank)


def preparing_inputs(model: Any, layers: ModuleType) -> list[Any]:
    """Returns the preprocessing layers of `model`, such as those with `adapt`.

    They train nothing: their state is in tables, in statistics or in no variable.

    Args:
        model: A model or a layer.
        layers: The module `layers` of its Keras.
    """
    kinds = (
        layers.CategoryEncoding, layers.Discretization, layers.HashedCrossing, layers.Hashing,
        layers.IntegerLookup, layers.Normalization, layers.StringLookup, layers.TextVectorization,
    )  # fmt: skip
    found = {id(part): part for part in model._flatten_layers() if isinstance(part, kinds)}
    for layer in list(found.values()):
        for part in layer._flatten_layers(include_self=False):  # a lookup, of text
            found.pop(id(part), None)
    return list(found.values())


NAMES = {"keras": "Keras 3", "tf_keras": "tf_keras"}


def is_layer_of(value: object, package: str) -> bool:
    """Returns whether `value` is a layer, or a model, of the Keras in `package`."""
    return any(
        base.__name__ == "Layer" and base.__module__.startswith(f"{package}.")
        for base in type(value).__mro__
    )


def _layers_in(value: object, depth: int = 2) -> Iterator[object]:
    """Yields `value`, or the entries of its lists and dicts."""
    if depth and isinstance(value, Mapping):
        value = list(value.values())
    if depth and isinstance(value, list | tuple):
        for each in value:
            yield from _layers_in(each, depth - 1)
    else:
        yield value
