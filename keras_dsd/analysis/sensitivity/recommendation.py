"""Recommended sparsities, from how much worse each level makes a value."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from keras_dsd.utils.checks import invalid

# Halvings of the allowed worsening: more than a float64 has bits.
_NUM_HALVINGS = 100


class Curve(NamedTuple):
    """Costs of pruning one weight of `size` values, `covered` of which its pattern may prune.

    `worse` says how much worse the value is at each level; negative where it is better, infinite
    where there is none.
    """

    size: int
    worse: tuple[float, ...]
    covered: int

    def merged(self, other: "Curve") -> "Curve":
        """Returns the curve of two weights that have to be pruned alike."""
        worse = tuple(map(max, self.worse, other.worse))
        return Curve(self.size + other.size, worse, self.covered + other.covered)


def level_within(levels: Sequence[float], curve: Curve, allowed: float) -> float:
    """Returns the largest level up to which nothing is worse by more than `allowed`, or 0.0."""
    good = itertools.takewhile(lambda at: at[1] <= allowed, zip(levels, curve.worse, strict=True))
    return max((level for level, _ in good), default=0.0)


def levels_for(levels: Sequence[float], curves: Sequence[Curve], overall: float) -> list[float]:
    """Returns a level for each weight, so that each, pruned alone, is equally much worse.

    Together they prune the share `overall`: `sum(covered * level) / sum(size)`.
    """
    # Of each level, from level 0 on: at least nothing, and never less again.
    costs = [tuple(itertools.accumulate((0.0, *curve.worse), max)) for curve in curves]
    finite = [cost for each in costs for cost in each if cost < math.inf]
    low, high = 0.0, max(finite)
    most = [_level_at(levels, cost, high) for cost in costs]
    _check_reach(levels, overall, _share(curves, most))
    # At the point that the halving ends in, levels may jump: over a stretch where pruning more
    # costs nothing more. So what is below and what is above it are mixed.
    below, above = [0.0] * len(curves), [_level_at(levels, cost, low) for cost in costs]
    if _share(curves, above) < overall:
        below, above = above, most
        for _ in range(_NUM_HALVINGS):
            middle = low + (high - low) / 2
            tried = [_level_at(levels, cost, middle) for cost in costs]
            if _share(curves, tried) < overall:
                low, below = middle, tried
            else:
                high, above = middle, tried
    reached, beyond = _share(curves, below), _share(curves, above)
    part = (overall - reached) / (beyond - reached) if beyond > reached else 1.0
    part = min(max(part, 0.0), 1.0)
    return [min(b + part * (a - b), a) for b, a in zip(below, above, strict=True)]


def _level_at(levels: Sequence[float], cost: Sequence[float], allowed: float) -> float:
    """Returns the largest level, on straight lines between those scanned, that costs `allowed`.

    `cost` is that of level 0 and of each of `levels`, not descending.
    """
    points = list(zip((0.0, *levels), cost, strict=True))
    for (level, cost_here), (following, cost_there) in itertools.pairwise(points):
        if cost_there > allowed:
            part = (allowed - cost_here) / (cost_there - cost_here)  # 0 where cost_there is inf
            return level + part * (following - level)
    return points[-1][0]


def _share(curves: Sequence[Curve], chosen: Sequence[float]) -> float:
    """Returns the share of all weights together that is pruned at the chosen levels."""
    total = sum(curve.size for curve in curves)
    return sum(c.covered * level for c, level in zip(curves, chosen, strict=True)) / max(total, 1)


def _check_reach(levels: Sequence[float], overall: float, reach: float) -> None:
    if overall > levels[-1]:
        expected = f"to be at most the largest level that was scanned, {levels[-1]:g}"
        raise invalid("overall", overall, expected, "Ask for less, or scan up to larger levels.")
    if overall > reach + 1e-9:  # what rounding may make of a sum
        expected = (
            f"to be within reach of the levels at which evaluate returned a finite value, without "
            f"what a pattern leaves dense at edges; they add up to {reach:.3g}"
        )
        hint = "Ask for less, or find out why evaluate returned NaN or infinity."
        raise invalid("overall", overall, expected, hint)
