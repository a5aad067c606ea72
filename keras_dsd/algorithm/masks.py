"""Masks of weights by magnitude: of one tensor, of several ranked together, and of a phase.

Pure NumPy, so every backend, replica and worker gets the same mask. Weights are ranked by
(magnitude, flat index) or, with a pattern, by the scores of its blocks or groups. `device_masks`
computes the same masks of weights on other devices or in shards.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from keras_dsd.algorithm.patterns import NM, Block
from keras_dsd.algorithm.weight import ReadableWeight
from keras_dsd.utils.checks import shown

_Weight = TypeVar("_Weight", bound=ReadableWeight)
# The sparsity of all weights, or a function of each; None: its own.
Sparsity: TypeAlias = float | Callable[[ReadableWeight], float] | None

_PART = 2**16  # number of values that fit a core's cache
_SAMPLE = 2**18


def num_pruned(size: int, sparsity: float) -> int:
    """Returns the number of pruned weights: round(size · sparsity), halves to even."""
    return round(size * float(sparsity))


def magnitude_mask(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Returns the mask that keeps the largest magnitudes of one weight tensor.

    Exactly `num_pruned(weights.size, sparsity)` entries are False. They are the first in the
    order of (magnitude, flat index in C order): of equal magnitudes, the lowest index is pruned
    first. So the mask can be recovered from pruned weights:
    `magnitude_mask(weights * mask, sparsity)` equals `mask`.

    Raises:
        ValueError: `weights` holds NaN or infinity.

    Reference:
        Han et al., 2017, arXiv:1607.04381, Algorithm 1 (initial sparse step).
    """
    weights = comparable(weights)
    check_finite(weights)
    return _rank_together([weights], num_pruned(weights.size, sparsity))[0]


def global_masks(weights: Sequence[np.ndarray], sparsities: Sequence[float]) -> list[np.ndarray]:
    """Returns the masks that keep the largest magnitudes of several weight tensors in one ranking.

    Exactly the sum of `size * sparsity` over all tensors, rounded, is pruned: the first in the
    order of (magnitude, tensor, flat index). But no tensor is pruned completely: each keeps its
    largest weights, at least one and a tenth of those it would keep at its own sparsity.

    Raises:
        ValueError: An array holds NaN or infinity, or fewer weights than tensors are kept.
    """
    weights = [comparable(each) for each in weights]
    for each in weights:
        check_finite(each)
    count, floors = count_and_floors([each.size for each in weights], sparsities)
    kept = _rank_together(weights, count)
    if any(np.count_nonzero(k) < floor for k, floor in zip(kept, floors, strict=True)):
        kept = _rank_above_floors(weights, count, floors)
    return kept


def count_and_floors(sizes: Sequence[int], sparsities: Sequence[float]) -> tuple[int, list[int]]:
    """Returns the number to prune in one ranking, and the least number each tensor keeps."""
    pairs = list(zip(sizes, sparsities, strict=True))
    count = round(sum(size * float(sparsity) for size, sparsity in pairs))
    return count, [max(-(-(n - num_pruned(n, sparsity)) // 10), 1) for n, sparsity in pairs]


def mask_of(
    values: np.ndarray,
    weight: ReadableWeight,
    sparsity: Sparsity,
    active: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the mask of `values` as values of `weight`, ranked alone.

    `sparsity` defaults to the target of the weight. Zeros that the `active` mask keeps rank above
    those that it prunes.
    """
    return _mask_alone(_ranked(values, active, weight), weight, sparsity)


def masks_for(
    weights: Sequence[_Weight], sparsity: Sparsity
) -> Iterator[tuple[_Weight, np.ndarray]]:
    """Yields the mask of the current values of each weight, at `sparsity` or its own target.

    One tensor is read at a time, except those that are ranked together. A weight that holds NaN or
    infinity is refused before anything is yielded.
    """
    check_phase(weights, sparsity)
    for weight in weights:
        check_finite(weight.numpy(), weight.path)
    for group in ranked_together(weights):
        made = masks_of_ranked(group, [read(weight) for weight in group], sparsity)
        yield from zip(group, made, strict=True)


def read(weight: ReadableWeight) -> np.ndarray:
    """Returns what is ranked of a weight: of its current values, under its active mask."""
    return _ranked(weight.numpy(), weight.mask, weight)


def ranked_together(weights: Sequence[_Weight]) -> list[list[_Weight]]:
    """Returns the groups of weights that are ranked together; with `scope="layer"`, of one each."""
    groups: dict[object, list[_Weight]] = {}
    for weight in weights:
        key = weight.pattern if weight.scope == "global" else object()
        groups.setdefault(key, []).append(weight)
    return list(groups.values())


def masks_of_ranked(
    weights: Sequence[ReadableWeight], ranked: Sequence[np.ndarray], sparsity: Sparsity
) -> list[np.ndarray]:
    """Returns the masks of weights that are ranked together, by the magnitudes of `ranked`.

    Args:
        weights: The weights.
        ranked: Of each an array of its shape or, with a `Block`, of its blocks.
        sparsity: For all of them; None: each has its own.
    """
    if weights[0].scope != "global":
        return [
            _mask_alone(each, weight, sparsity)
            for weight, each in zip(weights, ranked, strict=True)
        ]
    kept = global_masks(ranked, [share_of(weight, sparsity) for weight in weights])
    return [_expand(each, weight) for weight, each in zip(weights, kept, strict=True)]


def num_zeros(values: np.ndarray, mask: np.ndarray | None) -> int:
    """Returns the number of zeros; under a mask, of pruned zeros.

    A kept value may be zero too, as when float16 underflows.
    """
    found = values if mask is None else values[~mask]
    return found.size - int(np.count_nonzero(found))


def share_of(weight: ReadableWeight, sparsity: Sparsity) -> float:
    """Returns the sparsity of one weight."""
    if sparsity is None:
        return weight.sparsity
    return sparsity(weight) if callable(sparsity) else sparsity


def check_phase(weights: Sequence[ReadableWeight], sparsity: Sparsity) -> None:
    """Raises ValueError if a phase has a sparsity, or a ramp to one, and a pattern fixes it."""
    for weight in weights:
        if sparsity is not None and isinstance(weight.pattern, NM):
            name, received = "sparsity", f"sparsity={shown(sparsity)}"
            if callable(sparsity):
                name = received = "ramp"
            raise ValueError(
                f"Expected SparsePhase without `{name}`: the pattern {weight.pattern} of "
                f"{weight.path!r} fixes it at {weight.pattern.sparsity:g}. Received: {received}. "
                f"Leave it out."
            )


def check_finite(weights: np.ndarray, path: str = "weights") -> None:
    """Raises ValueError if weights hold NaN or infinity; `path` names them in the message."""
    flat = weights.ravel()
    num_bad = sum(part.size - np.count_nonzero(np.isfinite(part)) for part in _parts([flat]))
    refuse_not_finite(int(num_bad), flat.size, path)


class NotFiniteError(ValueError):
    """Weights hold NaN or infinity: training diverged, or the data hold them."""


def refuse_not_finite(num_bad: int, size: int, path: str) -> None:
    """Raises NotFiniteError if `num_bad` of the `size` values of a weight are NaN or infinite."""
    if num_bad:
        raise NotFiniteError(
            f"Expected finite weights to compute a mask from. Received: {path} with {num_bad} of "
            f"{size} values NaN or infinite. No weight is changed. Training diverged, or the data "
            f"hold NaN or infinity: check the data, or load an earlier checkpoint and lower the "
            f"learning rate."
        )


def comparable(weights: np.ndarray) -> np.ndarray:
    """Returns bfloat16 as float32, which holds it exactly: NumPy can't partition it."""
    weights = np.asarray(weights)
    return weights if weights.dtype.kind == "f" else weights.astype(np.float32)


def _ranked(values: np.ndarray, active: np.ndarray | None, weight: ReadableWeight) -> np.ndarray:
    """Returns the ranked array of a weight: its values, or the scores of its blocks.

    A kept value may be zero too, as when float16 underflows. It counts as the smallest number above
    zero, so that computing the mask again gives the same mask.
    """
    ranked, dtype, kept = values, values.dtype, active
    if isinstance(weight.pattern, Block):
        ranked = weight.pattern.scores(values, weight.layout)
        dtype = dtype if weight.pattern.pooling == "max" else ranked.dtype
        kept = None if active is None else weight.pattern.kept(active, weight.layout)
    if kept is None:
        return ranked
    smallest = np.ones((), f"u{dtype.itemsize}").view(dtype)
    return np.where(kept & (ranked == 0), comparable(smallest), comparable(ranked))


def _mask_alone(ranked: np.ndarray, weight: ReadableWeight, sparsity: Sparsity) -> np.ndarray:
    """Returns the mask of a weight that is ranked alone, by the magnitudes of `ranked`."""
    if isinstance(weight.pattern, NM):
        return weight.pattern.mask(comparable(ranked), weight.layout)
    return _expand(magnitude_mask(ranked, share_of(weight, sparsity)), weight)


def _expand(kept: np.ndarray, weight: ReadableWeight) -> np.ndarray:
    """Returns the mask of a weight's values from the mask of its scores."""
    if isinstance(weight.pattern, Block):
        return weight.pattern.expand(kept, weight.shape, weight.layout)
    return kept


def _rank_together(weights: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Returns masks that prune the first `count` by (magnitude, array, flat index)."""
    if count == 0:
        return [np.ones(each.shape, bool) for each in weights]
    flat = [each.ravel() for each in weights]
    threshold = _nth_magnitude(flat, count)
    kept = [_at_least(each, threshold, above=True) for each in flat]
    num_ties_kept = sum(mask.size - np.count_nonzero(mask) for mask in kept) - count
    for mask, each in zip(kept[::-1], flat[::-1], strict=True):
        if num_ties_kept:
            ties = np.flatnonzero(_at_least(each, threshold, above=False))[-num_ties_kept:]
            mask[ties] = True
            num_ties_kept -= len(ties)
    return [mask.reshape(each.shape) for mask, each in zip(kept, weights, strict=True)]


def _rank_above_floors(
    weights: Sequence[np.ndarray], count: int, floors: Sequence[int]
) -> list[np.ndarray]:
    pairs = zip(weights, floors, strict=True)
    below = [_rank_together([each], each.size - floor)[0] for each, floor in pairs]
    refuse_too_many(count, [each.size for each in weights], floors)
    kept = [np.ones(w.shape, bool) for w in weights]
    ranked = _rank_together([w[~top] for w, top in zip(weights, below, strict=True)], count)
    for each, top, rest in zip(kept, below, ranked, strict=True):
        each[~top] = rest
    return kept


def refuse_too_many(count: int, sizes: Sequence[int], floors: Sequence[int]) -> None:
    """Raises ValueError if pruning `count` weights leaves a tensor without any."""
    if count > sum(sizes) - sum(floors):
        raise ValueError(
            f"Expected `sparsity` to keep a weight in each of {len(sizes)} tensors that are "
            f"ranked together. Received: {count} of {sum(sizes)} weights to prune. Lower the "
            f"sparsity, or exclude the smallest tensors."
        )


def _nth_magnitude(weights: Sequence[np.ndarray], count: int) -> np.floating:
    """Returns the `count`-th smallest magnitude in flat arrays.

    A sample gives lower and upper bounds, so that the arrays are read but not copied. If the bounds
    are wrong, all values are ranked.
    """
    total = sum(each.size for each in weights)
    step = max(total // _SAMPLE, 1)
    sample = np.sort(np.abs(np.concatenate([each[::step] for each in weights])))
    place, margin = round(count / total * sample.size), 4 * round(sample.size**0.5)
    low = sample[max(place - margin, 0)] if place > margin else 0
    high = sample[min(place + margin, sample.size - 1)] if step > 1 else np.inf
    num_below, between = 0, list[np.ndarray]()
    for part in _parts(weights):
        magnitudes = np.abs(part)
        is_above = magnitudes >= low
        num_below += part.size - int(np.count_nonzero(is_above))
        between.append(magnitudes[is_above & (magnitudes <= high)])
    found, place = np.concatenate(between), count - 1 - num_below
    if not 0 <= place < found.size:
        found, place = np.abs(np.concatenate(weights)), count - 1
    found.partition(place)
    return found[place]


def _at_least(values: np.ndarray, threshold: np.floating, above: bool) -> np.ndarray:
    """Returns whether each magnitude is at or above a threshold, computed in parts."""
    found = np.empty(values.shape, bool)
    for start in range(0, values.size, _PART):
        part = slice(start, start + _PART)
        magnitudes = np.abs(values[part])
        (np.greater if above else np.equal)(magnitudes, threshold, out=found[part])
    return found


def _parts(weights: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for each in weights:
        for start in range(0, each.size, _PART):
            yield each[start : start + _PART]
