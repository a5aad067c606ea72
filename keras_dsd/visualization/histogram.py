"""Exact histograms of tensors, with bins that are compatible between histograms."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_dsd.algorithm.device_masks import (
    INFINITY,
    Chosen,
    DeviceArrays,
    DeviceWeight,
    keys_of,
    numbers_of,
)
from keras_dsd.protocols import Tensor

# Boolean, True where kept.
Mask: TypeAlias = np.ndarray | Tensor

# Number of bins on each side of zero; the largest magnitude is in the outer half of them.
_BINS = 128
# Exponent below that of any float64.
_FINEST = -1074
# Number of values processed together, to allocate no array of the tensor's size.
_PART = 2**20


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Number of values in each bin; zeros and non-finite values are counted separately.

    All bins are `2 ** exponent` wide and zero is an edge. So the bins of one histogram subdivide
    those of any wider one, and two histograms can be compared and added exactly.

    Attributes:
        exponent: Exponent of the bin width, a power of two.
        first: Index of the first bin. Bin k holds the values in `[k * width, (k + 1) * width)`,
            except zeros.
        counts: Number of values in the first bin and in each bin after it.
        num_zeros: Number of zeros.
        num_not_finite: Number of values that are NaN or infinite.
        num_large: Number of magnitudes at or above a threshold; None without a threshold.
    """

    exponent: int
    first: int
    counts: tuple[int, ...]
    num_zeros: int
    num_not_finite: int = 0
    num_large: int | None = None

    @property
    def size(self) -> int:
        """Number of counted values."""
        return sum(self.counts) + self.num_zeros + self.num_not_finite

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, float64: one more than there are bins."""
        return np.ldexp(np.arange(self.first, self.first + len(self.counts) + 1.0), self.exponent)

    def widened(self, exponent: int) -> "Histogram":
        """Returns the histogram with bins of width `2 ** exponent`, at least the current width."""
        return total([self], exponent)

    def magnitudes(self) -> "Histogram":
        """Returns a histogram of the values' magnitudes."""
        bins = self.first + np.arange(len(self.counts))
        counts = np.bincount(np.where(bins < 0, -1 - bins, bins), self.counts)
        return dataclasses.replace(self, first=0, counts=tuple(counts.astype(int).tolist()))

    def quantile(self, share: float) -> float:
        """Returns a quantile of the magnitudes of finite values; NaN without any.

        It is exact up to the width of a bin, in which values are assumed to be uniform.
        """
        found = self.magnitudes()
        if self.size == self.num_not_finite:
            return math.nan
        sums = self.num_zeros + np.cumsum([0, *found.counts])
        wanted = share * sums[-1]
        return 0.0 if wanted <= sums[0] else float(np.interp(wanted, sums, found.edges))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Histogram":
        """Returns the histogram of plain values from JSON."""
        made = cls(**{**data, "counts": tuple(data["counts"])})
        counts = [*made.counts, made.num_zeros, made.num_not_finite, made.num_large or 0]
        if any(type(n) is not int for n in (made.exponent, made.first, *counts)) or min(counts) < 0:
            raise ValueError(f"{made} is not a histogram")
        return made


def histogram(
    values: np.ndarray, chosen: np.ndarray | None = None, threshold: float | None = None
) -> Histogram:
    """Counts the values of a tensor, or those where the boolean array `chosen` is True.

    Magnitudes at or above `threshold` count as large.
    """
    parts = ((part, np.isfinite(part)) for part in _parts(values, chosen))
    largest = max((np.max(np.abs(part), initial=0.0, where=at) for part, at in parts), default=0.0)
    exponent = _exponent(float(largest))
    counts = np.zeros(2 * _BINS, np.int64)
    num_zeros = num_finite = size = num_large = 0
    for part in _parts(values, chosen):
        finite = part[np.isfinite(part)]
        present = finite[finite != 0]
        scaled = np.ldexp(present, -exponent)
        # The smallest values may underflow, and zero is above a negative one.
        bins = np.floor(scaled).astype(np.int64) - ((scaled == 0) & (present < 0))
        counts += np.bincount(bins + _BINS, minlength=counts.size)
        size, num_finite = size + part.size, num_finite + finite.size
        num_zeros += finite.size - present.size
        if threshold is not None:
            num_large += int(np.count_nonzero(np.abs(finite) >= threshold))
    return _made(
        exponent, counts, num_zeros, size - num_finite, None if threshold is None else num_large
    )


def histogram_of(
    weight: DeviceWeight,
    mask: Mask | None = None,
    is_kept: bool = True,
    *,
    threshold: float | None = None,
) -> Histogram:
    """Counts the values of a weight, or those that a mask keeps or prunes, where they are.

    NumPy counts where it can read them; elsewhere devices do, and nothing but counts is copied.

    Args:
        weight: The weight.
        mask: An array, or a tensor where the values are. None: all count.
        is_kept: Whether those count that it keeps.
        threshold: Magnitudes of this or more count as large.
    """
    arrays, values = weight.arrays, weight.tensor()
    if not arrays.is_on_host(values):
        return _on_device(arrays, Chosen(values, mask, is_kept), threshold)
    chosen = None if mask is None else np.asarray(mask)
    return histogram(weight.numpy(), chosen if is_kept or chosen is None else ~chosen, threshold)


def _on_device(arrays: DeviceArrays, chosen: Chosen, threshold: float | None) -> Histogram:
    """Returns the histogram that NumPy would make, of the numbers of keys below the bins' edges."""
    dtype = arrays.dtype_of(chosen.values)
    exponent = _exponent(float(numbers_of(np.array(arrays.largest_key(chosen)), dtype)))
    with np.errstate(over="ignore"):  # the last edge may be above the largest number
        edges = np.ldexp(np.arange(1.0, _BINS + 1), exponent)
    large = math.inf if threshold is None else threshold
    # A bin has its lower edge, so that of negative magnitudes their upper one.
    limits = np.concatenate([keys_of(np.append(edges, large), dtype), [INFINITY[dtype]]])
    above = keys_of(np.nextafter(edges, math.inf), dtype)
    of_negatives = np.concatenate([above, limits[-2:]])
    found = arrays.tally(chosen, limits.tolist(), of_negatives.tolist())
    *of_bins, num_small, num_positive = found[: limits.size]
    *of_negative_bins, num_small_negative, num_negative = found[limits.size : -2]
    num_zeros, num_not_finite = found[-2:]
    counts = np.append(np.diff(of_negative_bins, prepend=0)[::-1], np.diff(of_bins, prepend=0))
    num_large = num_positive - num_small + num_negative - num_small_negative
    num_large += num_zeros * (large == 0)
    return _made(
        exponent, counts, num_zeros, num_not_finite, None if threshold is None else num_large
    )


def _exponent(largest: float) -> int:
    """Returns the power of two that is the width of bins, by the largest magnitude."""
    exponent = math.frexp(largest)[1] - _BINS.bit_length() + 1 if largest else _FINEST
    return max(_FINEST, exponent)


def _made(
    exponent: int, counts: np.ndarray, num_zeros: int, num_not_finite: int, num_large: int | None
) -> Histogram:
    """Returns a histogram of counts in all bins, of which it keeps those that are not empty."""
    taken = np.flatnonzero(counts)
    first, end = (int(taken[0]), int(taken[-1]) + 1) if taken.size else (_BINS, _BINS)
    return Histogram(
        exponent=exponent,
        first=first - _BINS,
        counts=tuple(counts[first:end].tolist()),
        num_zeros=num_zeros,
        num_not_finite=num_not_finite,
        num_large=num_large,
    )


def total(histograms: Sequence[Histogram], exponent: int = _FINEST) -> Histogram:
    """Returns one histogram of all values, with bins at least as wide as the widest."""
    exponent = max(exponent, *(each.exponent for each in histograms))
    # A shift by 63 bits leaves only the sign, like any longer shift.
    bins = np.concatenate([
        (each.first + np.arange(len(each.counts))) >> min(exponent - each.exponent, 63)
        for each in histograms
    ])  # fmt: skip
    first = int(bins.min()) if bins.size else 0
    counts = np.bincount(bins - first, np.concatenate([each.counts for each in histograms]))
    large = [each.num_large for each in histograms]
    return Histogram(
        exponent=exponent,
        first=first,
        counts=tuple(counts.astype(int).tolist()),
        num_zeros=sum(each.num_zeros for each in histograms),
        num_not_finite=sum(each.num_not_finite for each in histograms),
        num_large=None if None in large else sum(filter(None, large)),
    )


def _parts(values: np.ndarray, chosen: np.ndarray | None) -> Iterator[np.ndarray]:
    flat = values.reshape(-1)
    of = None if chosen is None else chosen.reshape(-1)
    for start in range(0, flat.size, _PART):
        part = flat[start : start + _PART]
        yield (part if of is None else part[of[start : start + _PART]]).astype(np.float64)
