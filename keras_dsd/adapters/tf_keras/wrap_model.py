"""Wraps and unwraps the layers of a tf_keras model; every weight is shared, none is copied."""

import copy
from collections.abc import Callable, Iterator
from typing import TypeAlias

import tf_keras
from tf_keras.src.engine import functional

from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper
from keras_dsd.algorithm.selection import Selection

Layer: TypeAlias = tf_keras.layers.Layer


def is_rebuildable(model: Layer) -> bool:
    """Returns whether Keras can build a model like this one from other layers.

    It can where the model is made of layers and its class has Keras's own constructor.
    """
    if isinstance(model, tf_keras.Sequential):
        return type(model).__init__ is tf_keras.Sequential.__init__
    return is_graph(model) and functional.has_functional_like_constructor(type(model))


def is_graph(model: Layer) -> bool:
    """Returns whether a model is made of a graph of layers, as functional models are."""
    return bool(getattr(model, "_is_graph_network", False))


def leaves(model: Layer, prefix: str = "") -> Iterator[tuple[Layer, str]]:
    """Yields the layers of `model` and of models nested in it, each with its path's prefix.

    A nested model that can't be rebuilt counts as one layer. A layer that is used more than
    once is yielded once, where it is first seen.
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


def wrap(
    model: Layer, selection: Selection, sparsities: dict[int, tuple[str, list[float] | None]]
) -> Layer:
    """Returns a model, or a layer, with wrappers around some layers.

    Args:
        model: A model that `is_rebuildable`, or a layer.
        selection: The arguments of `apply`.
        sparsities: For the id of each layer to wrap, its path's prefix and its sparsities.
    """

    def wrapped(layer: Layer) -> Layer:
        if id(layer) not in sparsities:
            return _without_nodes(layer)
        prefix, known = sparsities[id(layer)]
        return DSDWrapper(layer, selection, known, prefix)

    return _transformed(model, wrapped)


def unwrap(model: Layer) -> Layer:
    """Returns a model, or a layer, without wrappers."""

    def unwrapped(layer: Layer) -> Layer:
        return _without_nodes(layer.layer if isinstance(layer, DSDWrapper) else layer)

    return _transformed(model, unwrapped)


def _transformed(model: Layer, change: Callable[[Layer], Layer]) -> Layer:
    done: dict[int, Layer] = {}

    def transform(layer: Layer) -> Layer:
        if id(layer) not in done:
            nested = isinstance(layer, tf_keras.Model) and is_rebuildable(layer)
            done[id(layer)] = _rebuilt(layer, transform) if nested else change(layer)
        return done[id(layer)]

    if not isinstance(model, tf_keras.Model):
        return transform(model)
    with model.distribute_strategy.scope():
        rebuilt = transform(model)
        _compile_as(model, rebuilt)
    return rebuilt


def _rebuilt(model: tf_keras.Model, layer_of: Callable[[Layer], Layer]) -> tf_keras.Model:
    rebuilt = tf_keras.models.clone_model(model, clone_function=layer_of)
    rebuilt.__class__ = type(model)  # Keras makes a plain Sequential of a subclass
    vars(rebuilt)["_trainable"] = model._trainable
    return rebuilt


def _without_nodes(layer: Layer) -> Layer:
    """Returns `layer`, or a twin of it that is in no model's graph yet.

    The twin has the very same variables and sublayers. Without it, a layer in two models would
    answer `layer.output` with the tensor of the first.
    """
    if isinstance(layer, tf_keras.Model) or not layer._inbound_nodes:
        return layer
    twin = copy.copy(layer)
    vars(twin)["_inbound_nodes_value"] = []
    vars(twin)["_outbound_nodes_value"] = []
    return twin


def _compile_as(model: tf_keras.Model, rebuilt: tf_keras.Model) -> None:
    """Compiles `rebuilt` as `model` is, sharing the optimizer and so its state."""
    if model.optimizer is not None and type(model).compile is tf_keras.Model.compile:
        rebuilt.compile(**{**model._compile_config.config, "optimizer": model.optimizer})
