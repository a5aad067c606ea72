"""Magnitudes to boolean masks. Pure NumPy: every backend, replica and worker gets the same."""

from collections.abc import Iterator, Sequence

import numpy as np

_PART = 2**16  # values that stay in a core's cache
_SAMPLE = 2**18


def num_pruned(size: int, sparsity: float) -> int:
    """Returns how many of `size` weights are pruned at `sparsity`: round(size · sparsity).

    Halves go to the even number, as Python's `round` has it.
    """
    return round(size * float(sparsity))


def magnitude_mask(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Keeps the largest magnitudes of one weight tensor.

    Exactly `num_pruned(weights.size, sparsity)` entries are False. They are the first in the
    order of (magnitude, flat index in C order): of equal magnitudes the one that comes first
    is pruned first. So the mask can be read back off pruned weights:
    `magnitude_mask(weights * mask, sparsity)` is `mask` again.

    Args:
        weights: Array of any shape and any floating dtype; every value finite.
        sparsity: Share of the entries to prune, a fraction in [0, 1).

    Returns:
        Boolean array of the shape of `weights`: True where the weight is kept.

    Raises:
        ValueError: `weights` holds NaN or infinity.

    Reference:
        Han et al., 2017, arXiv:1607.04381, Algorithm 1 (initial sparse step).
    """
    weights = comparable(weights)
    check_finite(weights)
    return _rank_together([weights], num_pruned(weights.size, sparsity))[0]


def global_masks(weights: Sequence[np.ndarray], sparsities: Sequence[float]) -> list[np.ndarray]:
    """Keeps the largest magnitudes of several weight tensors in one ranking.

    Exactly the sum of `size * sparsity` over all tensors, rounded, is pruned: the first in the
    order of (magnitude, tensor, flat index). But no tensor is pruned whole: the largest of each,
    a tenth of what it would keep if it was pruned to its own sparsity and at least one, stay.

    Args:
        weights: Arrays as for `magnitude_mask`.
        sparsities: Share of each to prune, a fraction in [0, 1).

    Returns:
        A mask for each.

    Raises:
        ValueError: An array holds NaN or infinity, or so few weights are to stay that some tensor
            would have none.
    """
    weights = [comparable(each) for each in weights]
    for each in weights:
        check_finite(each)
    pairs = list(zip(weights, sparsities, strict=True))
    count = round(sum(each.size * float(sparsity) for each, sparsity in pairs))
    floors = [max(-(-(w.size - num_pruned(w.size, s)) // 10), 1) for w, s in pairs]
    kept = _rank_together(weights, count)
    if any(np.count_nonzero(k) < floor for k, floor in zip(kept, floors, strict=True)):
        kept = _rank_above_floors(weights, count, floors)
    return kept


def _rank_above_floors(
    weights: Sequence[np.ndarray], count: int, floors: Sequence[int]
) -> list[np.ndarray]:
    pairs = zip(weights, floors, strict=True)
    below = [_rank_together([each], each.size - floor)[0] for each, floor in pairs]
    if count > sum(w.size for w in weights) - sum(floors):
        raise ValueError(
            f"Expected `sparsity` to leave a weight in each of {len(weights)} tensors that are "
            f"ranked together. Received: {count} of {sum(w.size for w in weights)} weights to "
            f"prune. Lower the sparsity, or exclude the smallest tensors."
        )
    kept = [np.ones(w.shape, bool) for w in weights]
    ranked = _rank_together([w[~top] for w, top in zip(weights, below, strict=True)], count)
    for each, top, rest in zip(kept, below, ranked, strict=True):
        each[~top] = rest
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


def _nth_magnitude(weights: Sequence[np.ndarray], count: int) -> np.floating:
    """Returns the `count`-th smallest magnitude in flat arrays.

    A sample tells between which two values it has to be looked for, so that the arrays are read
    but not copied; where the sample is wrong, all are ranked.
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


def _parts(weights: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for each in weights:
        for start in range(0, each.size, _PART):
            yield each[start : start + _PART]


def _at_least(values: np.ndarray, threshold: np.floating, above: bool) -> np.ndarray:
    """Returns where magnitudes are above a threshold, or equal to it, part by part."""
    found = np.empty(values.shape, bool)
    for start in range(0, values.size, _PART):
        part = slice(start, start + _PART)
        magnitudes = np.abs(values[part])
        (np.greater if above else np.equal)(magnitudes, threshold, out=found[part])
    return found


def comparable(weights: np.ndarray) -> np.ndarray:
    """Returns bfloat16 as float32, which holds it exactly: NumPy can't partition it."""
    weights = np.asarray(weights)
    return weights if weights.dtype.kind == "f" else weights.astype(np.float32)


def check_finite(weights: np.ndarray, path: str = "weights") -> None:
    """Refuses weights that can't be ranked by magnitude.

    Args:
        weights: Array of any shape.
        path: What to call the array in the message.

    Raises:
        ValueError: An entry is NaN or infinite.
    """
    flat = weights.ravel()
    num_bad = sum(part.size - np.count_nonzero(np.isfinite(part)) for part in _parts([flat]))
    if num_bad:
        raise ValueError(
            f"Expected finite weights to make a mask from. Received: {path} with {num_bad} of "
            f"{flat.size} values NaN or infinite. Nothing was pruned, and all weights are as they "
            f"were: training diverged before, or its data hold such values. See the data; or load "
            f"an earlier checkpoint, and lower the learning rate."
        )
