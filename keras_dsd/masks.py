"""Magnitudes to boolean masks. Pure NumPy: every backend, replica and worker gets the same."""

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
    weights = np.asarray(weights)
    if weights.dtype.kind != "f":  # bfloat16: NumPy can't partition it, float32 holds it exactly
        weights = weights.astype(np.float32)
    check_finite(weights)
    count = num_pruned(weights.size, sparsity)
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
