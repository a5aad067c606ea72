"""Selects the weights of a tf_keras model, and wraps their layers.

`keras_dsd.protocols.KerasAdapter` describes the arguments and errors of the public functions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import tensorflow as tf
import tf_keras

from keras_dsd.adapters.base.layers import (
    check_applied,
    check_layer,
    class_names,
    preparing_inputs,
)
from keras_dsd.adapters.base.weight import skipped_weights, warn_of_rest
from keras_dsd.adapters.tf_keras import prunable_layers, refusals, wrap_model
from keras_dsd.adapters.tf_keras.hooks import PLAIN_FITS
from keras_dsd.adapters.tf_keras.optimizer import Optimizer
from keras_dsd.adapters.tf_keras.training import TrainingAdapter
from keras_dsd.adapters.tf_keras.weight import Weight, candidates_of, path_of, variables_of
from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper
from keras_dsd.algorithm import selection as reasons
from keras_dsd.algorithm.selection import Selection, refuse_nothing, refuse_unmatched
from keras_dsd.protocols import SkippedWeight, open_run_of

Layer: TypeAlias = tf_keras.layers.Layer
# Further advice if no weight is selected.
_HINT = ", or give the layers that hold others a get_prunable_weights() method"


def apply(model: Layer, selection: Selection) -> Layer:
    """Wraps the prunable layers of `model`, and returns it; of a layer, returns its wrapper.

    Freezing and unfreezing takes effect at any time, so frozen layers are wrapped too.
    """
    refusals.check_model(model)
    chosen: list[tuple[Layer, str, list[float] | None]] = []
    why: dict[str, str | None] = {}
    is_unbuilt, selects = False, False
    taken: set[int] = set()  # kernels of shared layers
    for layer, prefix in wrap_model.leaves(model):
        if prunable_layers.is_unbuilt(layer):
            is_unbuilt = True
            chosen.append((layer, prefix, None))
            continue
        sparsities = []
        for each in candidates_of(layer, prefix):
            sparsity, reason = selection.choose(each)
            reason = reason or (None if selection.names(each) else each.unless_named)
            why[each.path] = reason
            sparsities.append(0.0 if id(each.variable) in taken else sparsity)
            taken.add(id(each.variable))
            selects |= reason is None
        if any(sparsities):
            chosen.append((layer, prefix, sparsities))
    if not is_unbuilt:
        selection.see(path_of(variable) for variable in variables_of(model))
        refuse_unmatched(selection, list(why))
        if not selects:
            refusals.refuse_tools(model)
            refuse_nothing(selection, model.name, why, _HINT)
    wrappers = {
        id(layer): DSDWrapper(layer, selection, sparsities, prefix)
        for layer, prefix, sparsities in chosen
    }
    wrapped = wrap_model.wrap(model, wrappers)
    if not is_unbuilt:
        warn_of_rest(model, selection, weights(wrapped), skipped(wrapped))
    PLAIN_FITS.expect(_wrappers(wrapped))
    return wrapped


def strip(model: Layer) -> Layer:
    """Removes the wrappers of `model`, and returns it; of a wrapper, returns its layer."""
    _wrappers(model)
    refusals.check_strippable(model)
    run = open_run_of(model)
    if run is not None:
        run.abandon()
    PLAIN_FITS.forget(model)
    return wrap_model.unwrap(model)


def weights(model: Layer, optimizers: Callable[[], Sequence[Optimizer]] = tuple) -> list[Weight]:
    """Returns the weights of `model` that DSD prunes."""
    found: dict[int, Weight] = {}
    for wrapper in _wrappers(model):
        for candidate, sparsity in wrapper.kernels:
            weight = Weight(candidate, sparsity, wrapper.selection, optimizers, wrapper.masks)
            # A weight that is frozen under its mask keeps the mask until the phase ends.
            counts = weight.is_named or weight.is_masked or candidate.unless_named is None
            if counts and not weight.is_left_dense:
                found.setdefault(id(candidate.variable), weight)
    return list(found.values())


def skipped(model: Layer) -> list[SkippedWeight]:
    """Returns the weights of `model` that are never pruned, with reasons."""
    selection = _wrappers(model)[0].selection
    others = (
        reason for leaf, prefix in wrap_model.leaves(model)
        for reason in _reasons(leaf, prefix, selection)
    )  # fmt: skip
    return skipped_weights(weights(model), others, preparing_inputs(model, tf_keras.layers))


def layers_of_kernels(model: Layer) -> list[tuple[str, frozenset[str]]]:
    """Returns the kernels of `model`, and the names of their layers' classes."""
    check_layer(model, Layer, "tf_keras")
    leaves = wrap_model.leaves(model)
    found = [each for leaf, prefix in leaves for each in candidates_of(_unwrapped(leaf), prefix)]
    return [(each.path, class_names(each.layer)) for each in found]


def is_applied(model: Layer) -> bool:
    """Returns whether `model` holds a wrapper."""
    return any(isinstance(part, DSDWrapper) for part in model._flatten_layers())


def mask_bytes(model: Layer) -> int:
    """Returns the memory for the masks of a sparse phase: one byte per value."""
    return sum(math.prod(weight.shape) for weight in weights(model))


def training_adapter(model: Layer, optimizers: Sequence[object] | None = None) -> TrainingAdapter:
    """Returns the training adapter of `model`."""
    return TrainingAdapter(model, _wrappers(model), weights, skipped, optimizers)


def _reasons(
    leaf: Layer, prefix: str, selection: Selection
) -> Iterator[tuple[tf.Variable, str, str]]:
    """Yields the variables of a layer, their paths, and reasons why some stay dense."""
    layer = _unwrapped(leaf)
    for candidate in candidates_of(layer, prefix):
        _, reason = selection.choose(candidate, candidate.unless_named)
        if isinstance(leaf, DSDWrapper) and leaf.masks.is_left_dense(candidate.variable):
            reason = reasons.UNTRAINED
        yield candidate.variable, candidate.path, reason or reasons.ONE_LAYER
    holders = prunable_layers.holders_of(layer)
    trained = {id(variable) for variable in layer.trainable_weights}
    for variable in variables_of(layer):
        holder, inner = holders.get(id(variable), (layer, ""))
        known = prunable_layers.is_known(holder)
        is_statistic = not any(variable is each for each in holder._trainable_weights)
        if is_statistic or not (known or id(variable) in trained):
            continue
        is_matrix = len(variable.shape) > 1
        reason = reasons.UNKNOWN_LAYER if is_matrix and not known else reasons.NOT_A_KERNEL
        yield variable, path_of(variable, prefix + inner), reason


def _unwrapped(leaf: Layer) -> Layer:
    return leaf.layer if isinstance(leaf, DSDWrapper) else leaf


def _wrappers(model: Layer) -> list[DSDWrapper]:
    check_layer(model, Layer, "tf_keras")
    found = {id(part): part for part in model._flatten_layers() if isinstance(part, DSDWrapper)}
    return check_applied(model, list(found.values()), received=" with no wrapped layer")
