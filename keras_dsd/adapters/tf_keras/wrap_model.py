"""Wraps and unwraps layers of a tf_keras model in place.

The model, its graph and its layers stay the same objects: a wrapper replaces its layer in the
model's list and in the nodes of the graph, and shares the nodes of the layer.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import tensorflow as tf
import tf_keras
from tf_keras.src.engine import functional

from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper

Layer: TypeAlias = tf_keras.layers.Layer

# Further attributes of a functional model with layers: alone, and with their tensors.
_LAYERS = ("_input_layers", "_output_layers")
_COORDINATES = ("_input_coordinates", "_output_coordinates")


def is_rebuildable(model: Layer) -> bool:
    """Returns whether Keras can rebuild a model from other layers, as from a file.

    It can if the model consists of layers and its class has the constructor of Keras.
    """
    if isinstance(model, tf_keras.Sequential):
        return type(model).__init__ is tf_keras.Sequential.__init__
    return is_graph(model) and functional.has_functional_like_constructor(type(model))


def is_graph(model: Layer) -> bool:
    """Returns whether a model is a graph of layers, such as a functional model."""
    return bool(getattr(model, "_is_graph_network", False))


def leaves(model: Layer, prefix: str = "") -> Iterator[tuple[Layer, str]]:
    """Yields the layers of `model` and of nested models, each with its path prefix.

    A nested model that can't be rebuilt counts as one layer. A layer that is used more than
    once is yielded once, at its first use.
    """
    seen: set[int] = set()

    def walk(part: Layer, prefix: str) -> Iterator[tuple[Layer, str]]:
        for layer in part._flatten_layers(include_self=False, recursive=False):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            if isinstance(layer, tf_keras.Model) and is_rebuildable(layer):
                yield from walk(layer, f"{prefix}{layer.name}/")
            else:
                yield layer, prefix

    if isinstance(model, tf_keras.Model):
        yield from walk(model, prefix)
    else:
        yield model, prefix


def wrap(model: Layer, wrappers: Mapping[int, DSDWrapper]) -> Layer:
    """Returns `model` with wrappers around some layers; of a layer, its wrapper.

    Args:
        model: A model that `is_rebuildable`, or a layer.
        wrappers: The wrapper of each layer to wrap, by the layer's id.
    """
    return _replaced(model, wrappers)


def unwrap(model: Layer) -> Layer:
    """Returns `model` without wrappers; of a wrapper, its layer."""
    wrappers = [leaf for leaf, _ in leaves(model) if isinstance(leaf, DSDWrapper)]
    for wrapper in wrappers:
        wrapper.masks.clear()
    return _replaced(model, {id(wrapper): wrapper.layer for wrapper in wrappers})


def _replaced(model: Layer, others: Mapping[int, Layer]) -> Layer:
    """Returns `model` with some layers, by id, replaced by others."""
    if not isinstance(model, tf_keras.Model):
        return others.get(id(model), model)
    graphs = [part for part in model._flatten_layers() if isinstance(part, tf_keras.Model)]
    for part in {id(part): part for part in graphs}.values():
        if is_rebuildable(part):
            _replace_in(part, others)
    return model


def _replace_in(model: tf_keras.Model, others: Mapping[int, Layer]) -> None:
    """Replaces layers in all attributes of a Sequential or functional model."""

    def other(layer: Layer) -> Layer:
        return others.get(id(layer), layer)

    held = vars(model)
    for name, value in list(held.items()):
        if id(value) in others:  # a custom attribute
            held[name] = other(value)
            model._track_trackable(held[name], name, overwrite=True)
    lists = [held.get(name, []) for name in ("_self_tracked_trackables", *_LAYERS)]
    for layers in lists:
        layers[:] = map(other, layers)
    for coordinates in (held.get(name, []) for name in _COORDINATES):
        coordinates[:] = [(other(layer), *rest) for layer, *rest in coordinates]
    specs = held.get("_layer_call_argspecs", {})
    held["_layer_call_argspecs"] = {other(layer): spec for layer, spec in specs.items()}
    for node in itertools.chain(*held.get("_nodes_by_depth", {}).values()):
        if id(node.layer) in others:
            node.layer = other(node.layer)
            for tensor in tf.nest.flatten(node.outputs):
                tensor._keras_history = tensor._keras_history._replace(layer=node.layer)
