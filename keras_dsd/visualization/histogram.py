"""How many values of a tensor lie where: exact counts, in bins that go with any other's."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# So many bins on each side of zero hold the largest magnitude; it is in the outer half of them.
_BINS = 128
# No float64 is smaller than 2 to the power of this.
_FINEST = -1074
# Values looked at together, so that no second array of the tensor's size is made.
_PART = 2**20


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How many values lie in which bin; zeros, and what is no finite number, are counted apart.

    All bins are `2 ** exponent` wide and zero is an edge. So the bins of one histogram are parts of
    those of any wider one, and two can be compared and added up to the last value.

    Attributes:
        exponent: The power of two that is the width of a bin.
        first: Number of the first bin. Bin k holds the values in `[k * width, (k + 1) * width)`,
            but zeros.
        counts: How many values are in the first bin and those after it.
        num_zeros: How many are exactly zero.
        num_not_finite: How many are NaN or infinite.
        num_large: How many magnitudes are at least a threshold; None where there was none.
    """

    exponent: int
    first: int
    counts: tuple[int, ...]
    num_zeros: int
    num_not_finite: int = 0
    num_large: int | None = None

    @property
    def size(self) -> int:
        """How many values were counted."""
        return sum(self.counts) + self.num_zeros + self.num_not_finite

    @property
    def edges(self) -> np.ndarray:
        """The edges of the bins, one more than there are bins, float64."""
        return np.ldexp(np.arange(self.first, self.first + len(self.counts) + 1.0), self.exponent)

    def widened(self, exponent: int) -> "Histogram":
        """Returns the same values in bins that are `2 ** exponent` wide, no narrower than these."""
        return total([self], exponent)

    def magnitudes(self) -> "Histogram":
        """Returns a histogram of the values' magnitudes."""
        bins = self.first + np.arange(len(self.counts))
        counts = np.bincount(np.where(bins < 0, -1 - bins, bins), self.counts)
        return dataclasses.replace(self, first=0, counts=tuple(counts.astype(int).tolist()))

    def quantile(self, share: float) -> float:
        """Returns the magnitude that a share of the finite values does not exceed; NaN without any.

        It is exact to the width of a bin, in which values count as spread evenly.
        """
        found = self.magnitudes()
        if self.size == self.num_not_finite:
            return math.nan
        sums = self.num_zeros + np.cumsum([0, *found.counts])
        wanted = share * sums[-1]
        return 0.0 if wanted <= sums[0] else float(np.interp(wanted, sums, found.edges))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Histogram":
        """Returns the histogram that plain values describe."""
        made = cls(**{**data, "counts": tuple(data["counts"])})
        counts = [*made.counts, made.num_zeros, made.num_not_finite, made.num_large or 0]
        if any(type(n) is not int for n in (made.exponent, made.first, *counts)) or min(counts) < 0:
            raise ValueError(f"{made} is no histogram")
        return made


def histogram(
    values: np.ndarray, chosen: np.ndarray | None = None, threshold: float | None = None
) -> Histogram:
    """Counts the values of a tensor, or those that `chosen`, a boolean array, marks.

    Magnitudes of `threshold` or more count as large.
    """
    parts = ((part, np.isfinite(part)) for part in _parts(values, chosen))
    largest = max((np.max(np.abs(part), initial=0.0, where=at) for part, at in parts), default=0.0)
    exponent = math.frexp(largest)[1] - _BINS.bit_length() + 1 if largest else _FINEST
    exponent = max(_FINEST, exponent)
    counts = np.zeros(2 * _BINS, np.int64)
    num_zeros = num_finite = size = num_large = 0
    for part in _parts(values, chosen):
        finite = part[np.isfinite(part)]
        present = finite[finite != 0]
        scaled = np.ldexp(present, -exponent)
        # The smallest may underflow, and zero is above a negative one.
        bins = np.floor(scaled).astype(np.int64) - ((scaled == 0) & (present < 0))
        counts += np.bincount(bins + _BINS, minlength=counts.size)
        size, num_finite = size + part.size, num_finite + finite.size
        num_zeros += finite.size - present.size
        if threshold is not None:
            num_large += int(np.count_nonzero(np.abs(finite) >= threshold))
    taken = np.flatnonzero(counts)
    first, end = (int(taken[0]), int(taken[-1]) + 1) if taken.size else (_BINS, _BINS)
    return Histogram(
        exponent=exponent,
        first=first - _BINS,
        counts=tuple(counts[first:end].tolist()),
        num_zeros=num_zeros,
        num_not_finite=size - num_finite,
        num_large=None if threshold is None else num_large,
    )


def total(histograms: Sequence[Histogram], exponent: int = _FINEST) -> Histogram:
    """Returns one histogram of all values, in the bins of the widest or wider ones."""
    exponent = max(exponent, *(each.exponent for each in histograms))
    # A shift by 63 bits leaves a sign alone, as any longer one.
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
