"""Kernels of tf_keras layers: TF-MOT's registry, layers that it lacks, and nested layers."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import prune_registry

layers = tf_keras.layers
Layer: TypeAlias = tf_keras.layers.Layer

_EINSUM = ("kernel",)
_ATTENTION = ("_query_dense.kernel", "_key_dense.kernel", "_value_dense.kernel",
              "_output_dense.kernel")  # fmt: skip
_SEPARABLE = ("pointwise_kernel",)
_KERNELS = {
    layers.EinsumDense: _EINSUM,
    layers.MultiHeadAttention: _ATTENTION,
    layers.SeparableConv1D: _SEPARABLE,
    layers.SeparableConv2D: _SEPARABLE,
}
_CELL_KERNELS = ("kernel", "recurrent_kernel")


class Kernel(NamedTuple):
    """A variable that may be pruned.

    Attributes:
        variable: The variable.
        layer: The layer that created it.
        prefix: Prefix of its path, within the searched layer.
    """

    variable: tf.Variable
    layer: Layer
    prefix: str


def parts_of(layer: Layer) -> list[tuple[Layer, str]]:
    """Returns `layer` and every layer in it, at any depth, without duplicates, with path prefixes.

    Keras names variables by the layers around them, up to the next functional or Sequential model.
    The prefix holds the names of this model and of the layers around it.
    """
    found: dict[int, tuple[Layer, str]] = {}

    def walk(part: Layer, prefix: str, names: str) -> None:
        if id(part) in found:
            return
        found[id(part)] = (part, prefix)
        names += f"{part.name}/"
        for inner in _held_by(part):
            walk(inner, names if _has_graph(part) else prefix, names)

    walk(layer, "", "")
    return list(found.values())


def holders_of(layer: Layer) -> dict[int, tuple[Layer, str]]:
    """Returns, for the id of each variable in `layer`, the layer that created it and its prefix."""
    return {
        id(variable): (part, prefix)
        for part, prefix in parts_of(layer)
        for variable in part._trainable_weights + part._non_trainable_weights
    }


def kernels_of(layer: Layer) -> list[Kernel]:
    """Returns the variables in `layer` that may be pruned, without duplicates, in a fixed order.

    Nested layers count, at any depth. If a layer has a method `get_prunable_weights`, only the
    result of this method counts. A layer that is not built may have no variables.
    """
    holders = holders_of(layer)
    found = {id(variable): variable for variable in _kernels_in(layer, set())}
    return [Kernel(variable, *holders.get(key, (layer, ""))) for key, variable in found.items()]


def is_known(layer: Layer) -> bool:
    """Returns whether DSD knows the kernels of `layer` itself; some known layers have none."""
    return _method_of(layer) is not None or _attributes_of(layer) is not None


def is_unbuilt(layer: Layer) -> bool:
    """Returns whether a layer that is not built may still create kernels."""
    if layer.built and layer.weights:
        return False
    return any(_may_make_kernels(part) for part, _ in parts_of(layer))


def _may_make_kernels(part: Layer) -> bool:
    attributes = _attributes_of(part)
    if _method_of(part) is not None:
        return not part.built
    if attributes is None:  # a custom layer may create layers when it is built
        return not part.built and type(part).__module__.partition(".")[0] != tf_keras.__name__
    return bool(attributes) and not (part.built and part.weights)


def _kernels_in(layer: Layer, seen: set[int]) -> Iterator[tf.Variable]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    method = _method_of(layer)
    if method is not None:
        yield from method() if layer.built else ()
        return
    for name in _attributes_of(layer) or ():
        kernel = _attribute(layer, name)
        if kernel is not None:
            yield kernel
    for part in _held_by(layer):
        yield from _kernels_in(part, seen)


def _held_by(layer: Layer) -> Iterator[Layer]:
    """Yields the layers in attributes of `layer`, also in lists, dicts and a `tf.Module`."""
    for module in layer._flatten_modules(include_self=False, recursive=False):
        inside = [module] if isinstance(module, layers.Layer) else module.submodules
        yield from (each for each in inside if isinstance(each, layers.Layer))


def _has_graph(layer: Layer) -> bool:
    return isinstance(layer, tf_keras.Sequential) or (
        isinstance(layer, tf_keras.Model) and layer._is_graph_network
    )


def _method_of(layer: Layer) -> Callable[[], Sequence[tf.Variable]] | None:
    method = getattr(layer, "get_prunable_weights", None)
    return method if callable(method) else None


def _attributes_of(layer: Layer) -> Sequence[str] | None:
    table = {**prune_registry.PruneRegistry._LAYERS_WEIGHTS_MAP, **_KERNELS}
    found = next((table[base] for base in type(layer).__mro__ if base in table), None)
    return _CELL_KERNELS if found is None and _is_cell(layer) else found


def _is_cell(layer: Layer) -> bool:
    """RNN cells are known by name: TF-MOT looks them up in whichever Keras was loaded first."""
    names = {"LSTMCell", "GRUCell", "SimpleRNNCell", "ConvLSTMCell"}
    return any(
        base.__name__ in names and base.__module__.startswith("tf_keras.")
        for base in type(layer).__mro__
    )


def _attribute(layer: Layer, name: str) -> tf.Variable | None:
    found: object = layer
    for part in name.split("."):
        found = getattr(found, part, None)
    # A subclass may have replaced it by a property.
    return found if isinstance(found, tf.Variable) else None
