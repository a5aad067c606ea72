"""Measured sparsity: zeros count as pruned where the active mask prunes, if there is one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_dsd.algorithm.weight import ReadableWeight

_MOST_SAMPLED = 1024  # entries of one tensor


class Measured(NamedTuple):
    """Measurements of weights at one moment: numbers of values.

    `num_zeros` are zero and, under a mask, pruned by it; `num_pruned` are pruned by active masks;
    `num_violations` of these are numbers other than zero.
    """

    num_zeros: int
    size: int
    num_pruned: int
    num_violations: int


def num_zeros(values: np.ndarray, mask: np.ndarray | None) -> int:
    """Returns how many values are zero; under a mask, how many of those that it prunes.

    A value that a mask keeps may be zero by itself, as where float16 underflows.
    """
    found = values if mask is None else values[~mask]
    return found.size - int(np.count_nonzero(found))


def measure(weights: Sequence[ReadableWeight]) -> Measured:
    """Measures weights, one after another."""
    found = Measured(0, 0, 0, 0)
    for weight in weights:
        values, mask = weight.numpy(), weight.mask
        pruned = values[:0] if mask is None else values[~mask]
        # Where training diverges, NaN and infinity times a mask are NaN.
        violations = int(np.count_nonzero(pruned[np.isfinite(pruned)]))
        here = Measured(num_zeros(values, mask), values.size, pruned.size, violations)
        found = Measured(*map(sum, zip(found, here, strict=True)))
    return found


def sample_pruned(mask: np.ndarray) -> np.ndarray:
    """Returns flat indices of values that `mask` prunes, spread over all of them."""
    positions = np.flatnonzero(~mask)
    return positions[:: max(positions.size // _MOST_SAMPLED, 1)]
