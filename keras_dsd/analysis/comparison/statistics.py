"""Statistics of paired differences: intervals, tests, and the smallest detectable effect."""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8
_Key = TypeVar("_Key")


def scipy_stats() -> types.ModuleType:
    """Returns `scipy.stats`, which is imported on first use."""
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError(
            "Expected SciPy, which computes the statistics of compare(). Received: an environment "
            "without it. Run pip install scipy, or install this package with its extra `compare`."
        ) from error
    return stats


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the standard deviation of a sample of two or more."""
    return float(np.mean(values)), float(np.std(values, ddof=1))


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean of paired differences, by the t distribution.

    Attributes:
        number: Number of pairs.
        mean: The mean of the differences.
        sd: Their standard deviation, of the sample.
        low: Lower end of the 95 % interval of the mean.
        high: Upper end of it.
        p_value: p-value of the two-sided paired t-test; NaN if all differences are equal or one
            is not finite.
        smallest: Smallest mean difference that a two-sided test at 5 % detects with a power of
            80 %, for this number of pairs and this standard deviation.
    """

    number: int
    mean: float
    sd: float
    low: float
    high: float
    p_value: float
    smallest: float


def difference(ones: Sequence[float], others: Sequence[float]) -> Difference:
    """Returns the statistics of `ones - others`; NaN except for the mean with less than two pairs.

    Args:
        ones: Values, one of each pair.
        others: Values to subtract, in the same order.
    """
    values = np.asarray(ones, float) - np.asarray(others, float)
    number, mean = len(values), float(np.mean(values))
    if number < 2 or not np.isfinite(values).all():
        return Difference(number, mean, *[math.nan] * 5)
    sd = float(np.std(values, ddof=1))
    # Rounding makes equal differences differ in their last bits.
    if sd <= 1e-12 * max(np.abs(ones).max(), np.abs(others).max()):
        return Difference(number, mean, 0.0, mean, mean, math.nan, 0.0)
    stats, error = scipy_stats(), sd / math.sqrt(number)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1)) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, number - 1))
    return Difference(
        number, mean, sd, mean - reach, mean + reach, p_value, smallest_effect(number, sd)
    )


def smallest_effect(number: int, sd: float) -> float:
    """Returns the mean difference that a paired t-test detects with a probability of `POWER`.

    Args:
        number: Number of pairs.
        sd: The standard deviation of their differences.
    """
    stats, degrees = scipy_stats(), number - 1
    limit = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))
    low, high = 0.0, 100.0  # of the noncentrality, the effect in standard errors
    while high - low > 1e-6:
        middle = (low + high) / 2
        power = stats.nct.sf(limit, degrees, middle) + stats.nct.cdf(-limit, degrees, middle)
        low, high = (middle, high) if power < POWER else (low, middle)
    return high * sd / math.sqrt(number)


def holm(p_values: Mapping[_Key, float]) -> dict[_Key, float]:
    """Returns p-values adjusted for multiple testing by Holm's method; NaN is kept and counts."""
    order = sorted(
        p_values, key=lambda key: math.inf if math.isnan(p_values[key]) else p_values[key]
    )
    adjusted, largest = {}, 0.0
    for rank, key in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[key]))
        adjusted[key] = math.nan if math.isnan(p_values[key]) else largest
    return {key: adjusted[key] for key in p_values}
