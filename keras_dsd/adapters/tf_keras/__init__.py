"""The one door to tf_keras and TF-MOT. Importing it registers the wrapper for loading files."""

from collections.abc import Iterator, Sequence
from typing import Any

import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper

from keras_dsd.adapters.base.layers import refuse_foreign
from keras_dsd.adapters.tf_keras import prunable_layers, training_state, wrap_model
from keras_dsd.adapters.tf_keras.learning_rate import tracked_factor
from keras_dsd.adapters.tf_keras.training import TrainingAdapter
from keras_dsd.adapters.tf_keras.weight import Candidate, Weight, frozen, path_of
from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper
from keras_dsd.algorithm import selection as reasons
from keras_dsd.algorithm.selection import Selection, refuse_nothing, refuse_unmatched
from keras_dsd.protocols import SkippedWeight, open_run_of
from keras_dsd.utils.checks import shown

__all__ = [
    "DSDWrapper",
    "TrainingAdapter",
    "Weight",
    "apply",
    "is_applied",
    "is_compiled",
    "load_model",
    "mask_bytes",
    "skipped",
    "strip",
    "training_adapter",
    "training_state",
    "weights",
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
    for layer, prefix in wrap_model.leaves(model):
        kernels = prunable_layers.kernels_of(layer) if prunable_layers.is_known(layer) else []
        candidates = [Candidate(kernel, layer, prefix) for kernel in kernels]
        if not kernels and prunable_layers.is_unbuilt(layer):
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
    wrapped = wrap_model.wrap(model, selection, chosen)
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
    if isinstance(model, tf_keras.Model) and not wrap_model.is_rebuildable(model):
        raise ValueError(
            f"Expected a Sequential or functional model, or a layer. Received: "
            f"model={model.name!r}, of the subclass {type(model).__name__}. Strip the layers one "
            f"by one: self.hidden = strip(self.hidden)."
        )
    if getattr(model, "optimizer", None) is not None and open_run_of(model) is None:
        training_adapter(model).unscale()
    return wrap_model.unwrap(model)


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
    for leaf, prefix in wrap_model.leaves(model):
        layer = leaf.layer if isinstance(leaf, DSDWrapper) else leaf
        for variable, reason in _reasons(layer, prefix, selection):
            if id(variable) not in taken:
                taken.add(id(variable))
                path, shape = path_of(variable, prefix), tuple(variable.shape)
                found.append(SkippedWeight(path, shape, reason))
    return found


def is_applied(model: Any) -> bool:
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


def training_adapter(model: Any, optimizer: Any = None) -> TrainingAdapter:
    """Returns the training adapter of `model`.

    Args:
        model: A tf_keras model.
        optimizer: What updates it in a custom training loop. Defaults to `None`: the model's.

    Raises:
        TypeError: `model` is something else of tf_keras, or `optimizer` no optimizer of it.
        ValueError: `model` holds no wrapper.
    """
    return TrainingAdapter(model, _wrappers(model), weights, optimizer)


def _reasons(layer: Any, prefix: str, selection: Selection) -> Iterator[tuple[Any, str]]:
    known = prunable_layers.is_known(layer)
    kernels = prunable_layers.kernels_of(layer) if known else []
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
    if isinstance(model, tf_keras.Model) and not wrap_model.is_rebuildable(model):
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
