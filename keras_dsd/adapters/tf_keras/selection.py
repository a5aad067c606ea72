"""Selects the weights of a tf_keras model, and wraps their layers.

`keras_dsd.protocols.KerasAdapter` describes the arguments and errors of the public functions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper

from keras_dsd.adapters.base.layers import check_applied, check_layer, refuse_foreign
from keras_dsd.adapters.base.weight import skipped_weights
from keras_dsd.adapters.tf_keras import prunable_layers, wrap_model
from keras_dsd.adapters.tf_keras.optimizer import Optimizer
from keras_dsd.adapters.tf_keras.training import TrainingAdapter
from keras_dsd.adapters.tf_keras.weight import Candidate, Weight, frozen, path_of
from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper
from keras_dsd.algorithm import selection as reasons
from keras_dsd.algorithm.selection import Selection, refuse_nothing, refuse_unmatched
from keras_dsd.protocols import SkippedWeight

Layer: TypeAlias = tf_keras.layers.Layer


def apply(model: Layer, selection: Selection) -> Layer:
    """Returns `model` with its prunable layers wrapped."""
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
    return wrap_model.wrap(model, selection, chosen)


def strip(model: Layer) -> Layer:
    """Returns `model` without wrappers."""
    _wrappers(model)
    if isinstance(model, tf_keras.Model) and not wrap_model.is_rebuildable(model):
        raise ValueError(
            f"Expected a Sequential or functional model, or a layer. Received: "
            f"model={model.name!r}, of the subclass {type(model).__name__}. Strip the layers one "
            f"by one: self.hidden = strip(self.hidden)."
        )
    return wrap_model.unwrap(model)


def weights(model: Layer, optimizers: Callable[[], Sequence[Optimizer]] = tuple) -> list[Weight]:
    """Returns the weights of `model` that DSD prunes."""
    found: dict[int, Weight] = {}
    for wrapper in _wrappers(model):
        sparsities = [sparsity for sparsity in wrapper.sparsities or () if sparsity]
        trainable = wrapper.layer.trainable
        for (kernel, mask, threshold), sparsity in zip(
            wrapper.pruning_vars, sparsities, strict=bool(wrapper.pruning_vars)
        ):
            candidate = Candidate(kernel, wrapper.layer, wrapper.prefix)
            weight = Weight(
                candidate, sparsity, wrapper.selection, optimizers, mask, threshold,
                wrapper.untrained,
            )  # fmt: skip
            if weight.is_left_dense:
                continue
            if trainable or weight.is_named:
                found.setdefault(id(kernel), weight)
    return list(found.values())


def skipped(model: Layer) -> list[SkippedWeight]:
    """Returns the weights of `model` that are never pruned, with reasons."""
    selection = _wrappers(model)[0].selection
    others = (
        (variable, path_of(variable, prefix), reason)
        for leaf, prefix in wrap_model.leaves(model)
        for variable, reason in _reasons(leaf, prefix, selection)
    )
    return skipped_weights(weights(model), others)


def is_applied(model: Layer) -> bool:
    """Returns whether `model` holds a wrapper."""
    return any(isinstance(part, DSDWrapper) for part in model._flatten_layers())


def mask_bytes(model: Layer) -> int:
    """Returns the memory that masks take, in bytes: each is of its weight's dtype.

    TF-MOT's wrapper keeps them in all phases.
    """
    masks = [weight.mask_variable for weight in weights(model)]
    return sum(mask.dtype.size * mask.shape.num_elements() for mask in masks)


def training_adapter(model: Layer, optimizers: Sequence[object] | None = None) -> TrainingAdapter:
    """Returns the training adapter of `model`."""
    return TrainingAdapter(model, _wrappers(model), weights, optimizers)


def _reasons(leaf: Layer, prefix: str, selection: Selection) -> Iterator[tuple[tf.Variable, str]]:
    layer = leaf.layer if isinstance(leaf, DSDWrapper) else leaf
    known = prunable_layers.is_known(layer)
    kernels = prunable_layers.kernels_of(layer) if known else []
    for kernel in kernels:
        candidate = Candidate(kernel, layer, prefix)
        _, reason = selection.choose(candidate, frozen(layer))
        if isinstance(leaf, DSDWrapper) and id(kernel) in leaf.untrained:
            reason = reasons.UNTRAINED
        yield kernel, reason or reasons.ONE_LAYER
    for variable in layer.trainable_weights if layer.trainable else layer.weights:
        is_matrix = len(variable.shape) > 1
        yield variable, reasons.UNKNOWN_LAYER if is_matrix and not known else reasons.NOT_A_KERNEL


def _wrappers(model: Layer) -> list[DSDWrapper]:
    check_layer(model, Layer, "tf_keras")
    found = {id(part): part for part in model._flatten_layers() if isinstance(part, DSDWrapper)}
    return check_applied(model, list(found.values()), received=" with no wrapped layer")


def _check_model(model: Layer) -> None:
    check_layer(model, Layer, "tf_keras")
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
