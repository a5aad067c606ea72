"""Kernels of tf_keras layers: TF-MOT's registry, and the layers that it lacks."""

from collections.abc import Sequence
from typing import TypeAlias

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
_HOLDERS = (layers.Bidirectional, layers.TimeDistributed, layers.RNN, layers.StackedRNNCells)


def is_known(layer: Layer) -> bool:
    """Returns whether DSD knows the kernels of `layer`; some known layers have none."""
    if hasattr(layer, "get_prunable_weights") or _attributes_of(layer) is not None:
        return True
    if isinstance(layer, _HOLDERS):
        return all(is_known(part) for part in _parts_of(layer))
    return _is_cell(layer)


def is_unbuilt(layer: Layer) -> bool:
    """Returns whether a known layer is of a type that has kernels, but has not made them yet."""
    if not is_known(layer) or (layer.built and layer.weights):
        return False
    attributes = _attributes_of(layer)
    return attributes is None or bool(attributes)


def kernels_of(layer: Layer) -> list[tf.Variable]:
    """Returns the variables of a known layer that may be pruned, in an order that stays.

    A layer that has not been built yet may have none.
    """
    if hasattr(layer, "get_prunable_weights"):
        return list(layer.get_prunable_weights()) if layer.built else []
    attributes = _attributes_of(layer)
    if attributes is None and isinstance(layer, _HOLDERS):
        return [kernel for part in _parts_of(layer) for kernel in kernels_of(part)]
    if attributes is None and _is_cell(layer):
        attributes = _CELL_KERNELS
    found = (_attribute(layer, name) for name in attributes or ())
    return [kernel for kernel in found if kernel is not None]


def _attributes_of(layer: Layer) -> Sequence[str] | None:
    table = {**prune_registry.PruneRegistry._LAYERS_WEIGHTS_MAP, **_KERNELS}
    return next((table[base] for base in type(layer).__mro__ if base in table), None)


def _parts_of(layer: Layer) -> list[Layer]:
    if isinstance(layer, layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    if isinstance(layer, layers.TimeDistributed):
        return layer.layer.layers if isinstance(layer.layer, tf_keras.Model) else [layer.layer]
    return list(layer.cells) if isinstance(layer, layers.StackedRNNCells) else [layer.cell]


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
    # A subclass may have made a property of it.
    return found if isinstance(found, tf.Variable) else None
