"""Masks for a sparse phase, by what each weight was asked to follow."""

from collections.abc import Iterator, Sequence

import numpy as np

from keras_dsd import masks
from keras_dsd.checks import shown
from keras_dsd.patterns import NM, Block
from keras_dsd.seam import PrunableWeight
from keras_dsd.zeros import num_zeros


def masks_for(
    weights: Sequence[PrunableWeight], sparsity: float | None
) -> Iterator[tuple[PrunableWeight, np.ndarray]]:
    """Yields the mask of each weight, as its values are now.

    One tensor is read at a time, but for those that are ranked together.

    Args:
        weights: What DSD prunes.
        sparsity: What the phase asks for, a fraction; None where `apply` said it.

    Raises:
        ValueError: A weight holds NaN or infinity; nothing has been yielded then.
    """
    check_phase(weights, sparsity)
    for weight in weights:
        masks.check_finite(weight.numpy(), weight.path)
    ranked: dict[object, list[PrunableWeight]] = {}
    for weight in weights:
        if weight.scope == "global":
            ranked.setdefault(weight.pattern, []).append(weight)
        else:
            yield weight, mask_of(_ranked(weight), weight, sparsity)
    for together in ranked.values():
        yield from _ranked_together(together, sparsity)


def check_pruned_alike(weights: Sequence[PrunableWeight], sparsity: float | None) -> int:
    """Checks the weights with which a run goes on within a sparse phase.

    They are those of that phase, zero where its masks prune; or dense ones, which are pruned now.
    What was pruned at another sparsity would lose more weights, or let some return too early.

    Args:
        weights: What DSD prunes.
        sparsity: What the phase asks for, a fraction; None where `apply` said it.

    Returns:
        How many weights are zero without that a mask, which a file may not hold, says which of
        the zeros are pruned.

    Raises:
        ValueError: A weight holds zeros, and fewer than the phase has.
    """
    num_unknown = 0
    for weight, mask in masks_for(weights, sparsity):
        values = weight.numpy()
        found, asked = num_zeros(values, None), num_zeros(mask, None)
        if found and values[~mask].any():
            raise ValueError(
                f"Expected the weights of the sparse phase that the run goes on within, or dense "
                f"ones. Received: {weight.path} with {found} of {values.size} values zero, of "
                f"which this phase prunes {asked}: it was pruned at another sparsity. Nothing was "
                f"changed. Ask for the sparsity that the run had, or begin at the phase's first "
                f"epoch to prune anew."
            )
        num_unknown += max(found - asked, 0) if weight.mask is None else 0
    return num_unknown


def check_phase(weights: Sequence[PrunableWeight], sparsity: float | None) -> None:
    """Checks that the sparsity a phase asks for can be had.

    Raises:
        ValueError: The pattern of a weight fixes its sparsity, and the phase has one of its own.
    """
    for weight in weights:
        if sparsity is not None and isinstance(weight.pattern, NM):
            raise ValueError(
                f"Expected SparsePhase without `sparsity`: the pattern {weight.pattern} of "
                f"{weight.path!r} fixes it at {weight.pattern.sparsity:g}. Received: "
                f"sparsity={shown(sparsity)}. Leave it out."
            )


def mask_of(values: np.ndarray, weight: PrunableWeight, sparsity: float | None) -> np.ndarray:
    """Returns the mask of `values` if they were those of `weight`, ranked alone.

    Args:
        values: Array of the weight's shape, every value finite.
        weight: What says the pattern and, where `sparsity` is None, the sparsity.
        sparsity: Share of it to prune, a fraction, or None.
    """
    if isinstance(weight.pattern, NM):
        return weight.pattern.mask(masks.comparable(values), weight.layout)
    share = weight.sparsity if sparsity is None else sparsity
    return _expand(masks.magnitude_mask(_scores(values, weight), share), weight)


def _ranked_together(
    weights: Sequence[PrunableWeight], sparsity: float | None
) -> Iterator[tuple[PrunableWeight, np.ndarray]]:
    scores = [_scores(_ranked(weight), weight) for weight in weights]
    shares = [weight.sparsity if sparsity is None else sparsity for weight in weights]
    for weight, kept in zip(weights, masks.global_masks(scores, shares), strict=True):
        yield weight, _expand(kept, weight)


def _ranked(weight: PrunableWeight) -> np.ndarray:
    """Returns the values to rank; what a mask in force keeps comes before what it prunes.

    A weight that it keeps may be zero by itself, as where float16 underflows. It counts as the
    smallest number above zero, so that a mask that is made again is the same one.
    """
    values, mask = weight.numpy(), weight.mask
    if mask is not None:
        values = masks.comparable(values)
        values[mask & (values == 0)] = np.nextafter(values.dtype.type(0), values.dtype.type(1))
    return values


def _scores(values: np.ndarray, weight: PrunableWeight) -> np.ndarray:
    """Returns what is ranked: the values, or one for each block."""
    if isinstance(weight.pattern, Block):
        return weight.pattern.scores(masks.comparable(values), weight.layout)
    return values


def _expand(kept: np.ndarray, weight: PrunableWeight) -> np.ndarray:
    """Returns the mask of a weight's values of that of what was ranked."""
    if isinstance(weight.pattern, Block):
        return weight.pattern.expand(kept, weight.shape, weight.layout)
    return kept
