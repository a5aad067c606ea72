"""Selects the weights of a Keras 3 model; the selection is stored outside of the model.

`keras_dsd.protocols.KerasAdapter` describes the arguments and errors of the public functions.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import keras

from keras_dsd.adapters.base.layers import (
    check_applied,
    check_layer,
    class_names,
    copied,
    preparing_inputs,
    refuse_foreign,
)
from keras_dsd.adapters.base.observation import AnyOptimizer
from keras_dsd.adapters.base.weight import skipped_weights, warn_of_rest
from keras_dsd.adapters.keras3 import backends, kernels, mask_store
from keras_dsd.adapters.keras3.hooks import PLAIN_FITS
from keras_dsd.adapters.keras3.mask_store import MaskStore
from keras_dsd.adapters.keras3.training import TrainingAdapter
from keras_dsd.adapters.keras3.weight import Candidate, Weight, short_path
from keras_dsd.algorithm.selection import (
    NOT_A_KERNEL,
    ONE_LAYER,
    Selection,
    refuse_nothing,
    refuse_unmatched,
)
from keras_dsd.protocols import SkippedWeight, open_run_of


def apply(model: keras.Layer, selection: Selection) -> keras.Layer:
    """Stores the selection of weights outside of `model`, and returns `model`."""
    _check_model(model)
    is_built = kernels.is_built(model)
    store = MaskStore(selection, refuse_later=not is_built)
    choices = list(_choices(model, model, store))
    if is_built:
        paths = [candidate.path for candidate, _, _ in choices]
        selection.see(_paths(model, model))
        refuse_unmatched(selection, paths)
        if not any(sparsity for _, sparsity, _ in choices):
            reasons = {c.path: why for c, _, why in choices if why != NOT_A_KERNEL}
            refuse_nothing(selection, model.name, reasons)
    mask_store.put(model, store)
    if is_built:
        warn_of_rest(model, selection, weights(model), skipped(model))
    PLAIN_FITS.expect([model])
    _refuse_fit_on_several_workers(model)
    return model


def strip(model: keras.Layer) -> keras.Layer:
    """Deletes the stored selection and masks of `model`, and returns `model`."""
    found = _applied(model)
    run = open_run_of(model)
    if run is not None:
        run.abandon()
    PLAIN_FITS.forget(model)
    for part, _ in found:
        if getattr(vars(part).get("fit"), "func", None) is _fit:
            del vars(part)["fit"]
        mask_store.drop(part)
    return model


def weights(
    model: keras.Layer, optimizers: Callable[[], Sequence[AnyOptimizer]] = tuple
) -> list[Weight]:
    """Returns the weights of `model` that DSD prunes."""
    found: dict[int, Weight] = {}
    for part, store in _applied(model):
        if store.refuse_later and kernels.is_built(part):
            store.refuse_later = False
            store.selection.see(_paths(part, model))
            paths = [candidate.path for candidate, _, _ in _choices(part, model, store)]
            refuse_unmatched(store.selection, paths)
            warn_of_rest(part, store.selection, weights(part), skipped(part))
        for candidate, sparsity, _ in _choices(part, model, store):
            if sparsity:
                weight = Weight(candidate, sparsity, store, optimizers)
                found.setdefault(id(weight.variable), weight)
    return list(found.values())


def skipped(model: keras.Layer) -> list[SkippedWeight]:
    """Returns the weights of `model` that are never pruned, with reasons."""
    choices = [each for part, store in _applied(model) for each in _choices(part, model, store)]
    choices += [(candidate, 0.0, ONE_LAYER) for candidate in _candidates(model, model)]
    others = ((c.variable, c.path, reason or ONE_LAYER) for c, _, reason in choices)
    return skipped_weights(weights(model), others, preparing_inputs(model, keras.layers))


def layers_of_kernels(model: keras.Layer) -> list[tuple[str, frozenset[str]]]:
    """Returns the kernels of `model`, and the names of their layers' classes."""
    check_layer(model, keras.layers.Layer, "Keras")
    found = [each for each in _candidates(model, model) if not each.found.barred]
    return [(each.short_path, class_names(each.layer)) for each in found]


def is_applied(model: keras.Layer) -> bool:
    """Returns whether `model`, or a part of it, was passed through `apply`."""
    return any(mask_store.get(part) for part in kernels.parts_of(model))


def mask_bytes(model: keras.Layer) -> int:
    """Returns the memory for the masks of a sparse phase: one byte per value."""
    return sum(math.prod(weight.shape) for weight in weights(model))


def training_adapter(
    model: keras.Layer, optimizers: Sequence[object] | None = None
) -> TrainingAdapter:
    """Returns the training adapter of `model`."""
    _applied(model)
    return TrainingAdapter(model, weights, skipped, optimizers)


def _applied(model: keras.Layer) -> list[tuple[keras.Layer, MaskStore]]:
    """Returns the parts of `model` that were passed through `apply`, and their stores."""
    check_layer(model, keras.layers.Layer, "Keras")
    found = [(part, store) for part in kernels.parts_of(model) if (store := mask_store.get(part))]
    if not found and mask_store.is_copy(model):
        raise ValueError(copied(model.name))
    hint = "; a model that was loaded from a file needs it again"
    return check_applied(model, found, hint=hint)


def _choices(
    part: keras.Layer, model: keras.Layer, store: MaskStore
) -> Iterator[tuple[Candidate, float, str | None]]:
    """Yields each variable of `part`, its sparsity, and the reason why it stays dense."""
    for candidate in _candidates(part, model):
        if candidate.found.barred:
            yield candidate, 0.0, candidate.found.barred
        else:
            yield candidate, *store.choose(candidate, candidate.found.unless_named)


def _candidates(part: keras.Layer, model: keras.Layer) -> list[Candidate]:
    return [Candidate(found, model) for found in kernels.find(part)]


def _paths(part: keras.Layer, model: keras.Layer) -> Iterator[str]:
    """Yields the paths of all variables of a part, including biases and statistics."""
    for variable in part.variables:
        yield from (variable.path, short_path(variable.path, model))


def _check_model(model: keras.Layer) -> None:
    check_layer(model, keras.layers.Layer, "Keras")
    backends.current()
    parts = list(kernels.parts_of(model))
    if any(mask_store.get(part) for part in parts):
        raise ValueError(
            f"Expected a model that was not passed through apply() before. Received: "
            f"model={model.name!r}, of which "
            f"{next(p.name for p in parts if mask_store.get(p))!r} was. Call strip() first."
        )
    refuse_foreign(model, parts, own="keras", foreign="tf_keras")


def _refuse_fit_on_several_workers(model: keras.Layer) -> None:
    """Makes `model.fit` raise a ValueError if `model` is distributed over several workers.

    Keras fails on the batches before it calls any callback.
    """
    number = backends.current().num_workers(model)
    if number > 1 and type(model).fit.__module__.startswith("keras."):
        vars(model)["fit"] = functools.partial(_fit, number)


def _fit(number: int, *args: object, **kwargs: object) -> NoReturn:
    del args, kwargs
    raise ValueError(
        f"Expected a model on one worker: Keras 3's fit does not support several. Received: a "
        f"model of a MultiWorkerMirroredStrategy with {number} workers. Train a tf_keras model, "
        f"whose fit does, or this model in a custom training loop with keras_dsd.DSDLoop."
    )
