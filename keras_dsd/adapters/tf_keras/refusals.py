"""Models of tf_keras that `apply` and `strip` refuse, with advice."""

import collections
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper

from keras_dsd.adapters.base.layers import check_layer, refuse_foreign
from keras_dsd.adapters.tf_keras import prunable_layers, wrap_model
from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper, tool_of

Layer: TypeAlias = tf_keras.layers.Layer


def check_model(model: Layer) -> None:
    """Checks that `apply` can wrap the layers of `model`.

    Raises:
        TypeError: It is not a tf_keras layer, or holds layers of Keras 3.
        ValueError: Some of its layers are wrapped, or it is a subclassed model.
    """
    check_layer(model, Layer, "tf_keras")
    parts = list(model._flatten_layers())
    if any(isinstance(part, pruning_wrapper.PruneLowMagnitude) for part in parts):
        raise ValueError(
            f"Expected a model whose layers are not wrapped. Received: model={model.name!r}, which "
            f"was passed through apply() or prune_low_magnitude(). Call strip() first, or "
            f"tfmot.sparsity.keras.strip_pruning()."
        )
    if isinstance(model, tf_keras.Model) and not wrap_model.is_rebuildable(model):
        raise ValueError(
            f"Expected a Sequential or functional model, or a layer. Received: "
            f"model={model.name!r}, of the subclass {type(model).__name__}, {_advice(model)}"
        )
    refuse_foreign(model, parts, own="tf_keras", foreign="keras")


def check_strippable(model: Layer) -> None:
    """Checks that `strip` can remove the wrappers of `model`.

    Raises:
        ValueError: It is a subclassed model.
    """
    if isinstance(model, tf_keras.Model) and not wrap_model.is_rebuildable(model):
        place = next(_held(model, _is_wrapped), "model.hidden")
        plain = _plain(model)
        advice = f"Strip its layers one by one, in their attributes: {_assignment(place, 'strip')}."
        if plain is not None:
            advice = (
                f"Strip the layers in it, with the same weights: model = keras_dsd.strip({plain})."
            )
        raise ValueError(
            f"Expected a Sequential or functional model, or a layer. Received: "
            f"model={model.name!r}, of the subclass {type(model).__name__}. {advice}"
        )


def refuse_tools(model: Layer) -> None:
    """Refuses a model whose layers TF-MOT has wrapped, so that no weight can be pruned.

    Raises:
        ValueError: TF-MOT has wrapped its layers.
    """
    leaves = [layer for layer, _ in wrap_model.leaves(model)]
    found = [f"{layer.name!r} ({tool})" for layer in leaves if (tool := tool_of(layer))]
    if found:
        raise ValueError(
            f"Expected a model before it is quantized or clustered. Received: "
            f"model={model.name!r}, whose layers TF-MOT has wrapped: {', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}. Train with DSD first, call keras_dsd.strip(), "
            f"and then quantize_model or cluster_weights."
        )


def _advice(model: tf_keras.Model) -> str:
    """Returns the advice for a model of a class that Keras can't rebuild."""
    plain = _plain(model)
    if plain is not None:
        return (
            f"with a custom constructor, so Keras can't rebuild it. Apply DSD to "
            f"the layers in it, with the same weights: model = keras_dsd.apply({plain}). Or, if "
            f"its methods are needed, to layers in its constructor: "
            f"x = keras_dsd.apply(tf_keras.layers.Dense(64))(x)."
        )
    own = "self.hidden = keras_dsd.apply(tf_keras.layers.Dense(64))"
    found = list(_held(model, _has_kernels))
    if not found:
        return (
            f"whose layers can't be replaced from outside. Wrap them where they are created, in "
            f"its constructor: {own}. Layers of types that DSD does not know need a "
            f"get_prunable_weights() method."
        )
    return (
        f"whose layers can't be replaced all at once. Wrap them one by one, in their attributes, "
        f"before it is compiled: {_assignment(found[0], 'apply')}, and so on ({len(found)} "
        f"layers that DSD knows, in a loop). Or, in a custom class, in its "
        f"constructor: {own}."
    )


def _plain(model: tf_keras.Model) -> str | None:
    """Returns the code for a model of a Keras class with the layers of `model`, or None."""
    if wrap_model.is_graph(model):
        return "tf_keras.Model(model.inputs, model.outputs)"
    is_stack = isinstance(model, tf_keras.Sequential)  # that is not built
    return "tf_keras.Sequential(model.layers)" if is_stack else None


def _is_wrapped(layer: Layer) -> bool:
    if _is_part(layer):
        return any(isinstance(leaf, DSDWrapper) for leaf, _ in wrap_model.leaves(layer))
    return isinstance(layer, DSDWrapper)


def _is_part(layer: Layer) -> bool:
    """Returns whether a layer is a model that `apply` and `strip` take."""
    return isinstance(layer, tf_keras.Model) and wrap_model.is_rebuildable(layer)


def _has_kernels(layer: Layer) -> bool:
    """Returns whether DSD knows a layer, and it has kernels or will have them."""
    if _is_part(layer):
        return any(_has_kernels(leaf) for leaf, _ in wrap_model.leaves(layer))
    if not prunable_layers.is_known(layer):
        return False
    return prunable_layers.is_unbuilt(layer) or bool(prunable_layers.kernels_of(layer))


def _assignment(place: str, function: str) -> str:
    """Returns the code that replaces the layer at `place` by the result of a function."""
    if not place.endswith("]"):
        return f"{place} = keras_dsd.{function}({place})"
    # Keras writes no checkpoint of a list with a replaced entry.
    holder, _, key = place.rpartition("[")
    if key[0].isdigit():
        return f"{holder} = [keras_dsd.{function}(layer) for layer in {holder}]"
    return f"{holder} = {{key: keras_dsd.{function}(layer) for key, layer in {holder}.items()}}"


def _held(model: tf_keras.Model, wanted: Callable[[Layer], bool]) -> Iterator[str]:
    """Yields the code that refers to the wanted layers in `model`, at any depth."""
    seen: set[int] = set()
    waiting: collections.deque[tuple[str, Any]] = collections.deque([("model", model)])
    while waiting:
        place, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, tf_keras.layers.Layer) and value is not model and wanted(value):
            yield place
        elif isinstance(value, tf_keras.layers.Layer):
            own = [name for name in vars(value) if not name.startswith(("_self_", "_obj_"))]
            waiting.extend((f"{place}.{name}", vars(value)[name]) for name in own)
        elif isinstance(value, list | tuple):
            waiting.extend((f"{place}[{index}]", each) for index, each in enumerate(value))
        elif isinstance(value, Mapping):
            waiting.extend((f"{place}[{key!r}]", each) for key, each in value.items())
