"""The one door to tf_keras and TF-MOT. Importing it registers the wrapper for loading files."""

from collections.abc import Iterator, Sequence
from typing import Any

import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper

from keras_dsd import selection as reasons
from keras_dsd.checks import shown
from keras_dsd.foreign import refuse_foreign
from keras_dsd.selection import Selection, refuse_nothing, refuse_unmatched
from keras_dsd.sparsity_report import SkippedWeight
from keras_dsd.tfmot import optimizer, registry, surgery, whole_state
from keras_dsd.tfmot.learning_rate import tracked_factor
from keras_dsd.tfmot.training import Side
from keras_dsd.tfmot.weight import Candidate, Weight, frozen, path_of
from keras_dsd.tfmot.wrapper import DSDWrapper
from keras_dsd.training import Trainer

__all__ = [
    "DSDWrapper", "Side", "Weight", "apply", "is_compiled", "load_model", "mask_bytes",
    "side_by_hand", "skipped", "strip", "trainer", "weights", "went_through_apply", "whole_state",
]  # fmt: skip

MASKS_LAST = "in every phase, from apply to strip"


def apply(model: Any, selection: Selection) -> Any:
    """Returns `model` with its prunable layers wrapped.

    Args:
        model: A tf_keras model or layer.
        selection: What to prune.

    Raises:
        TypeError: `model` is something else of tf_keras, or holds layers of another Keras.
        ValueError: `model` is subclassed or already wrapped, or nothing in it is selected.
    """
    _check_model(model)
    chosen: dict[int, tuple[str, list[float] | None]] = {}
    why: dict[str, str | None] = {}
    num_unbuilt = 0
    for layer, prefix in surgery.leaves(model):
        kernels = registry.kernels_of(layer) if registry.is_known(layer) else []
        candidates = [Candidate(kernel, layer, prefix) for kernel in kernels]
        if not kernels and registry.is_unbuilt(layer):
            num_unbuilt += 1
            chosen[id(layer)] = (prefix, None)
        choices = [selection.choose(c, frozen(layer)) for c in candidates]
        why |= {c.path: reason for c, (_, reason) in zip(candidates, choices, strict=True)}
        if any(sparsity for sparsity, _ in choices):
            chosen[id(layer)] = (prefix, [sparsity for sparsity, _ in choices])
    if not num_unbuilt:
        selection.see(path_of(variable) for variable in model.weights)
        refuse_unmatched(selection, list(why))
    if not chosen:
        hint = ", or give the layers that hold others a get_prunable_weights() method"
        refuse_nothing(selection, model.name, why, hint)
    wrapped = surgery.wrap(model, selection, chosen)
    if isinstance(model, tf_keras.Model):
        tracked_factor(wrapped)
    return wrapped


def strip(model: Any) -> Any:
    """Returns `model` without wrappers.

    Raises:
        TypeError: `model` is something else of tf_keras.
        ValueError: `model` holds no wrapper, or is subclassed.
    """
    _wrappers(model)
    if isinstance(model, tf_keras.Model) and not surgery.is_rebuildable(model):
        raise ValueError(
            f"Expected a Sequential or functional model, or a layer. Received: "
            f"model={model.name!r}, of the subclass {type(model).__name__}. Strip the layers one "
            f"by one: self.hidden = strip(self.hidden)."
        )
    if isinstance(model, tf_keras.Model) and model.optimizer is not None:
        side = trainer(model)
        if not side.is_open:
            side.close()
    return surgery.unwrap(model)


def weights(model: Any, optimizers: Sequence[Any] = ()) -> list[Weight]:
    """Returns what DSD prunes in `model`.

    Args:
        model: A tf_keras model or layer.
        optimizers: Those that train it, whose slots are to be cleared.

    Raises:
        TypeError: `model` is something else of tf_keras.
        ValueError: `model` holds no wrapper.
    """
    found: dict[int, Weight] = {}
    for wrapper in _wrappers(model):
        sparsities = [sparsity for sparsity in wrapper.sparsities or () if sparsity]
        trainable = wrapper.layer.trainable
        for (kernel, mask, threshold), sparsity in zip(
            wrapper.pruning_vars, sparsities, strict=bool(wrapper.pruning_vars)
        ):
            weight = Weight(kernel, wrapper, sparsity, mask, threshold, optimizers)
            if trainable or wrapper.selection.names(weight):
                found.setdefault(id(kernel), weight)
    return list(found.values())


def skipped(model: Any) -> list[SkippedWeight]:
    """Returns the weights of `model` that are never pruned, with reasons.

    Raises:
        TypeError: `model` is something else of tf_keras.
        ValueError: `model` holds no wrapper.
    """
    selection = _wrappers(model)[0].selection
    taken = {id(weight.variable) for weight in weights(model)}
    found = []
    for leaf, prefix in surgery.leaves(model):
        layer = leaf.layer if isinstance(leaf, DSDWrapper) else leaf
        for variable, reason in _reasons(layer, prefix, selection):
            if id(variable) not in taken:
                taken.add(id(variable))
                path, shape = path_of(variable, prefix), tuple(variable.shape)
                found.append(SkippedWeight(path, shape, reason))
    return found


def went_through_apply(model: Any) -> bool:
    """Returns whether `model` holds a wrapper."""
    return any(isinstance(part, DSDWrapper) for part in model._flatten_layers())


def mask_bytes(model: Any) -> int:
    """Returns how much memory masks take, in bytes: each is of its weight's dtype.

    TF-MOT's wrapper keeps them in all phases.
    """
    masks = [weight.mask_variable for weight in weights(model)]
    return sum(mask.dtype.size * mask.shape.num_elements() for mask in masks)


def load_model(path: str, safe_mode: bool, compiled: bool) -> Any:
    """Returns the model in a file.

    Args:
        path: The file.
        safe_mode: Whether tf_keras refuses what it knows as code; it does not look into HDF5.
        compiled: Whether to compile it as the file says.
    """
    return tf_keras.models.load_model(path, compile=compiled, safe_mode=safe_mode)


def is_compiled(model: Any) -> bool:
    """Returns whether `model` has a loss, and so can be evaluated."""
    return bool(model._is_compiled)


def trainer(model: Any) -> Trainer:
    """Returns the training side of `model`.

    Raises:
        TypeError: `model` is something else of tf_keras.
        ValueError: `model` holds no wrapper.
    """
    return Trainer(model, Side(model, _wrappers(model), weights))


def side_by_hand(model: Any, by: Any) -> Side:
    """Returns what the training of `model` is made of in a loop of the user's own.

    Args:
        model: A tf_keras model.
        by: The optimizer.

    Raises:
        TypeError: `model` is something else of tf_keras, or `by` no optimizer of it.
        ValueError: `model` holds no wrapper.
    """
    optimizer.check_kind(by)
    return Side(model, _wrappers(model), weights, by)


def _reasons(layer: Any, prefix: str, selection: Selection) -> Iterator[tuple[Any, str]]:
    known = registry.is_known(layer)
    kernels = registry.kernels_of(layer) if known else []
    for kernel in kernels:
        candidate = Candidate(kernel, layer, prefix)
        _, reason = selection.choose(candidate, frozen(layer))
        yield kernel, reason or reasons.ONE_LAYER
    for variable in layer.trainable_weights if layer.trainable else layer.weights:
        is_matrix = len(variable.shape) > 1
        yield variable, reasons.UNKNOWN_LAYER if is_matrix and not known else reasons.NOT_A_KERNEL


def _wrappers(model: Any) -> list[DSDWrapper]:
    if not isinstance(model, tf_keras.layers.Layer):
        raise TypeError(_not_a_model(model))
    found = {id(part): part for part in model._flatten_layers() if isinstance(part, DSDWrapper)}
    if not found:
        raise ValueError(
            f"Expected a model that went through apply(). Received: model={model.name!r} with no "
            f"wrapped layer. Call model = keras_dsd.apply(model, sparsity=0.3) first."
        )
    return list(found.values())


def _check_model(model: Any) -> None:
    if not isinstance(model, tf_keras.layers.Layer):
        raise TypeError(_not_a_model(model))
    parts = list(model._flatten_layers())
    if any(isinstance(part, pruning_wrapper.PruneLowMagnitude) for part in parts):
        raise ValueError(
            f"Expected a model whose layers are not wrapped yet. Received: model={model.name!r}, "
            f"which went through apply() or prune_low_magnitude(). Call strip() first, or "
            f"tfmot.sparsity.keras.strip_pruning()."
        )
    if isinstance(model, tf_keras.Model) and not surgery.is_rebuildable(model):
        raise ValueError(
            f"Expected a Sequential or functional model, or a layer. Received: "
            f"model={model.name!r}, of the subclass {type(model).__name__}, whose layers can't be "
            f"replaced from outside. Wrap them where it makes them, in its constructor: "
            f"self.hidden = keras_dsd.apply(tf_keras.layers.Dense(64))."
        )
    refuse_foreign(model, parts, own="tf_keras", foreign="keras")


def _not_a_model(model: Any) -> str:
    return (
        f"Expected `model` to be a tf_keras model or layer. Received: model={shown(model)} of type "
        f"{type(model).__name__}. Give the model that you would call fit on."
    )
