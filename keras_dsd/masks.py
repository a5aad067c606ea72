"""Magnitudes to boolean masks. Pure NumPy: every backend, replica and worker gets the same."""

from collections.abc import Sequence

import numpy as np


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
    return _all_but_smallest(weights, num_pruned(weights.size, sparsity))


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
    kept = _rank_together([each.ravel() for each in weights], count)
    if any(np.count_nonzero(k) < floor for k, floor in zip(kept, floors, strict=True)):
        kept = _rank_above_floors([each.ravel() for each in weights], count, floors)
    return [k.reshape(each.shape) for k, each in zip(kept, weights, strict=True)]


def _rank_above_floors(
    weights: Sequence[np.ndarray], count: int, floors: Sequence[int]
) -> list[np.ndarray]:
    below = [_all_but_smallest(w, w.size - floor) for w, floor in zip(weights, floors, strict=True)]
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
    """Returns masks that prune the `count` smallest of flat arrays."""
    kept = _all_but_smallest(np.concatenate(weights), count)
    return np.split(kept, np.cumsum([each.size for each in weights])[:-1])


def _all_but_smallest(weights: np.ndarray, count: int) -> np.ndarray:
    """Returns a mask that prunes the first `count` by (magnitude, flat index)."""
    if count == 0:
        return np.ones(weights.shape, bool)
    magnitudes = np.abs(weights).ravel()
    magnitudes.partition(count - 1)
    threshold = magnitudes[count - 1]
    np.abs(weights, out=magnitudes.reshape(weights.shape))
    kept = magnitudes > threshold
    num_ties_kept = weights.size - count - np.count_nonzero(kept)
    if num_ties_kept:
        kept[np.flatnonzero(magnitudes == threshold)[-num_ties_kept:]] = True
    return kept.reshape(weights.shape)


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
    finite = np.isfinite(weights)
    if not finite.all():
        num_bad = finite.size - np.count_nonzero(finite)
        raise ValueError(
            f"Expected finite weights to make a mask from. Received: {path} with {num_bad} of "
            f"{finite.size} values NaN or infinite. Nothing was pruned; training diverged before "
            f"this phase: lower the learning rate, or start again from an earlier checkpoint."
        )
