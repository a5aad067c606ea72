"""What paired differences show: their mean, a bootstrap interval and a paired test, by SciPy."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

CONFIDENCE = 0.95
_RESAMPLES = 9999


class Paired(NamedTuple):
    """Differences of pairs.

    Attributes:
        mean: Their mean.
        sd: Their standard deviation, of the sample.
        low: Lower end of the 95 % interval of the mean (BCa bootstrap); NaN where there is none.
        high: Upper end of it.
        p_value: Of the paired t-test, two-sided; NaN where it can't be computed: of differences
            that are all alike, or not all finite.
    """

    mean: float
    sd: float
    low: float
    high: float
    p_value: float

    @property
    def is_shown(self) -> bool:
        """Whether both, the test and the interval, say that the mean is not zero."""
        return self.p_value < 1 - CONFIDENCE and (self.low > 0 or self.high < 0)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the standard deviation of a sample of two or more."""
    array = np.asarray(values, float)
    return float(array.mean()), float(array.std(ddof=1))


def paired(ones: Sequence[float], others: Sequence[float]) -> Paired:
    """Returns what `ones - others` show.

    Args:
        ones: Two numbers or more.
        others: As many, each the pair of one of `ones`.

    Raises:
        ImportError: SciPy is not installed.
    """
    stats = scipy_stats()
    differences = np.asarray(ones, float) - np.asarray(others, float)
    mean, sd = mean_and_sd(differences.tolist())
    if not np.isfinite(differences).all():
        return Paired(mean, sd, math.nan, math.nan, math.nan)
    # Rounding makes differences that are alike differ in their last bits, and their mean from zero.
    rounding = 1e-12 * max(np.abs(ones).max(), np.abs(others).max())
    mean = 0.0 if abs(mean) <= rounding else mean
    if sd <= rounding:
        return Paired(mean, 0.0, mean, mean, math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two or three pairs that say little
        interval = stats.bootstrap(
            (differences,), np.mean, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES,
            method="BCa", random_state=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    test = stats.ttest_rel(ones, others)
    low, high = (0.0 if abs(end) <= rounding else float(end) for end in interval)
    return Paired(mean, sd, low, high, float(test.pvalue))


def scipy_stats() -> Any:
    """Returns SciPy's module of statistics.

    Raises:
        ImportError: SciPy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError(
            "Expected SciPy, which compare() takes its statistics from. Received: an environment "
            "without it. Install it: pip install scipy, or this package with its extra `compare`."
        ) from error
    return stats
