"""Selects the weights of a tf_keras model, and wraps their layers.

`keras_dsd.protocols.KerasAdapter` describes the arguments and errors of the public functions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import tensorflow as tf
import tf_keras

from keras_dsd.adapters.base.layers import check_applied, check_layer, class_names
from keras_dsd.adapters.base.weight import skipped_weights, warn_of_rest
from keras_dsd.adapters.tf_keras import prunable_layers, refusals, wrap_model
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
    refusals.check_model(model)
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
        refusals.refuse_tools(model)
        hint = ", or give the layers that hold others a get_prunable_weights() method"
        refuse_nothing(selection, model.name, why, hint)
    wrapped = wrap_model.wrap(model, selection, chosen)
    if not num_unbuilt:
        warn_of_rest(model, selection, weights(wrapped), skipped(wrapped))
    return wrapped


def strip(model: Layer) -> Layer:
    """Returns `model` without wrappers."""
    _wrappers(model)
    refusals.check_strippable(model)
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


def layers_of_kernels(model: Layer) -> list[tuple[str, frozenset[str]]]:
    """Returns the kernels of `model`, and the names of their layers' classes."""
    check_layer(model, Layer, "tf_keras")
    found: list[Candidate] = []
    for leaf, prefix in wrap_model.leaves(model):
        layer = leaf.layer if isinstance(leaf, DSDWrapper) else leaf
        kernels = prunable_layers.kernels_of(layer) if prunable_layers.is_known(layer) else []
        found += [Candidate(kernel, layer, prefix) for kernel in kernels]
    return [(each.path, class_names(each.layer)) for each in found]


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
    return TrainingAdapter(model, _wrappers(model), weights, skipped, optimizers)


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
    for variable in layer.weights if known and not layer.trainable else layer.trainable_weights:
        is_matrix = len(variable.shape) > 1
        yield variable, reasons.UNKNOWN_LAYER if is_matrix and not known else reasons.NOT_A_KERNEL


def _wrappers(model: Layer) -> list[DSDWrapper]:
    check_layer(model, Layer, "tf_keras")
    found = {id(part): part for part in model._flatten_layers() if isinstance(part, DSDWrapper)}
    return check_applied(model, list(found.values()), received=" with no wrapped layer")
