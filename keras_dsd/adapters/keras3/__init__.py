"""The one door to Keras 3, on any backend that trains. Models stay as they are."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_dsd.adapters.base.layers import refuse_foreign
from keras_dsd.adapters.keras3 import backends, kernels, mask_store, multi_worker, training_state
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
from keras_dsd.utils.checks import shown

__all__ = [
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

MASKS_LAST = "in a sparse phase"


def apply(model: Any, selection: Selection) -> Any:
    """Notes beside `model` what to prune, and returns it.

    Args:
        model: A Keras 3 model or layer.
        selection: What to prune.

    Raises:
        TypeError: `model` is something else of Keras, or holds layers of another Keras.
        ValueError: `model`, or a part of it, went through `apply` already, or nothing in it is
            selected.
    """
    _check_model(model)
    is_built = all(part.built for part in kernels.parts_of(model))
    kept = MaskStore(selection, refuse_later=not is_built)
    choices = list(_choices(model, model, kept))
    if is_built:
        paths = [candidate.path for candidate, _, _ in choices]
        selection.see(_paths(model, model))
        refuse_unmatched(selection, paths)
        if not any(sparsity for _, sparsity, _ in choices):
            reasons = {c.path: why for c, _, why in choices if why != NOT_A_KERNEL}
            refuse_nothing(selection, model.name, reasons)
    mask_store.put(model, kept)
    multi_worker.refuse_fit(model)
    return model


def strip(model: Any) -> Any:
    """Forgets what is kept beside `model`, and returns it.

    Raises:
        TypeError: `model` is something else of Keras.
        ValueError: `model` holds nothing that went through `apply`.
    """
    found = _applied(model)
    run = open_run_of(model)
    if run is not None:
        run.abandon()
    for part, _ in found:
        multi_worker.allow_fit(part)
        mask_store.drop(part)
    return model


def weights(model: Any, optimizers: Sequence[Any] = ()) -> list[Weight]:
    """Returns what DSD prunes in `model`.

    Args:
        model: A Keras 3 model or layer.
        optimizers: Those that train it, whose slots are to be cleared.

    Raises:
        TypeError: `model` is something else of Keras.
        ValueError: `model` holds nothing that went through `apply`.
    """
    found: dict[int, Weight] = {}
    for part, kept in _applied(model):
        if kept.refuse_later and all(each.built for each in kernels.parts_of(part)):
            kept.refuse_later = False
            kept.selection.see(_paths(part, model))
            paths = [candidate.path for candidate, _, _ in _choices(part, model, kept)]
            refuse_unmatched(kept.selection, paths)
        for candidate, sparsity, _ in _choices(part, model, kept):
            if sparsity:
                weight = Weight(candidate.found, model, sparsity, kept, optimizers)
                found.setdefault(id(weight.variable), weight)
    return list(found.values())


def skipped(model: Any) -> list[SkippedWeight]:
    """Returns the weights of `model` that are never pruned, with reasons.

    Raises:
        TypeError: `model` is something else of Keras.
        ValueError: `model` holds nothing that went through `apply`.
    """
    taken = {id(weight.variable) for weight in weights(model)}
    found = []
    applied = _applied(model)
    asked = [choice for part, kept in applied for choice in _choices(part, model, kept)]
    outside = [(candidate, 0.0, ONE_LAYER) for candidate in _candidates(model, model)]
    for candidate, _, reason in [*asked, *outside]:
        if id(candidate.variable) not in taken:
            taken.add(id(candidate.variable))
            found.append(SkippedWeight(candidate.path, candidate.shape, reason or ONE_LAYER))
    return found


def is_applied(model: Any) -> bool:
    """Returns whether `model`, or a part of it, went through `apply`."""
    return any(mask_store.get(part) for part in kernels.parts_of(model))


def mask_bytes(model: Any) -> int:
    """Returns how much memory the masks of a sparse phase take, in bytes: one for each value."""
    return sum(math.prod(weight.shape) for weight in weights(model))


def load_model(path: str, safe_mode: bool, compiled: bool) -> Any:
    """Returns the model in a file.

    Args:
        path: The file.
        safe_mode: Whether Keras refuses what it knows as code.
        compiled: Whether to compile it as the file says.
    """
    return keras.saving.load_model(path, compile=compiled, safe_mode=safe_mode)


def is_compiled(model: Any) -> bool:
    """Returns whether `model` has a loss, and so can be evaluated."""
    return bool(model.compiled)


def training_adapter(model: Any, optimizer: Any = None) -> TrainingAdapter:
    """Returns the training adapter of `model`.

    Args:
        model: A Keras 3 model or layer.
        optimizer: What updates it in a custom training loop. Defaults to `None`: the model's.

    Raises:
        TypeError: `model` is something else of Keras, or `optimizer` of no known kind.
        ValueError: `model` holds nothing that went through `apply`.
    """
    _applied(model)
    return TrainingAdapter(model, weights, optimizer)


def _choices(
    part: Any, model: Any, kept: MaskStore
) -> Iterator[tuple[Candidate, float, str | None]]:
    """Yields each variable of `part`, its sparsity, and why it stays dense."""
    for candidate in _candidates(part, model):
        if candidate.found.barred:
            yield candidate, 0.0, candidate.found.barred
        else:
            yield candidate, *kept.choose(candidate, candidate.found.unless_named)


def _candidates(part: Any, model: Any) -> list[Candidate]:
    return [Candidate(found, model) for found in kernels.find(part)]


def _paths(part: Any, model: Any) -> Iterator[str]:
    """Yields what the variables of a part go by, biases and statistics too."""
    for variable in part.variables:
        yield from (variable.path, short_path(variable.path, model))


def _applied(model: Any) -> list[tuple[Any, MaskStore]]:
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(_not_a_model(model))
    found = [(part, kept) for part in kernels.parts_of(model) if (kept := mask_store.get(part))]
    if not found:
        raise ValueError(
            f"Expected a model that went through apply(). Received: model={model.name!r}. Call "
            f"model = keras_dsd.apply(model, sparsity=0.3) first; a model that was loaded from a "
            f"file needs it again."
        )
    return found


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(_not_a_model(model))
    backends.current()
    parts = list(kernels.parts_of(model))
    if any(mask_store.get(part) for part in parts):
        raise ValueError(
            f"Expected a model that did not go through apply() yet. Received: "
            f"model={model.name!r}, of which "
            f"{next(p.name for p in parts if mask_store.get(p))!r} did. Call strip() first."
        )
    refuse_foreign(model, parts, own="keras", foreign="tf_keras")


def _not_a_model(model: Any) -> str:
    return (
        f"Expected `model` to be a Keras model or layer. Received: model={shown(model)} of type "
        f"{type(model).__name__}. Give the model that you would call fit on."
    )
