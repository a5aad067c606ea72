"""The result of `compare`: data, statistics, a table, a figure, and a verdict."""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_dsd.analysis.comparison.arms import DSD, FIRST
from keras_dsd.analysis.comparison.statistics import CONFIDENCE, mean_and_sd, scipy_stats
from keras_dsd.analysis.evaluation import BETTER
from keras_dsd.utils.figures import new_panels
from keras_dsd.utils.files import plain
from keras_dsd.utils.tables import Table, Tabled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAST, BEST = "last", "best"
WHEN = {LAST: "at the last epoch", BEST: "at the epoch best on validation data"}
_RESAMPLES = 9999
# Dots of a figure: marker, face colour (None: that of the marker), and horizontal offset.
STYLES = {LAST: ("o", "none", -0.15), BEST: ("o", None, 0.15)}


class Paired(NamedTuple):
    """Statistics of paired differences.

    Attributes:
        mean: Their mean.
        sd: Their sample standard deviation.
        low: Lower end of the 95 % interval of the mean (BCa bootstrap); NaN if undefined.
        high: Upper end of the interval.
        p_value: p-value of the two-sided paired t-test; NaN if all differences are equal, or one
            is not finite.
    """

    mean: float
    sd: float
    low: float
    high: float
    p_value: float

    @property
    def is_shown(self) -> bool:
        """True if both the test and the interval show that the mean is not zero."""
        return self.p_value < 1 - CONFIDENCE and (self.low > 0 or self.high < 0)


def paired(ones: Sequence[float], others: Sequence[float]) -> Paired:
    """Returns the statistics of `ones - others`, two pairs or more."""
    stats = scipy_stats()
    differences = np.asarray(ones, float) - np.asarray(others, float)
    mean, sd = mean_and_sd(differences)
    if not np.isfinite(differences).all():
        return Paired(mean, sd, math.nan, math.nan, math.nan)
    # Rounding makes equal differences differ in their last bits, and their mean from zero.
    rounding = 1e-12 * max(np.abs(ones).max(), np.abs(others).max())
    mean = 0.0 if abs(mean) <= rounding else mean
    if sd <= rounding:
        return Paired(mean, 0.0, mean, mean, math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two or three pairs with little evidence
        interval = stats.bootstrap(
            (differences,), np.mean, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES,
            method="BCa", random_state=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    low, high = (0.0 if abs(end) <= rounding else float(end) for end in interval)
    return Paired(mean, sd, low, high, float(stats.ttest_rel(ones, others).pvalue))


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm, trained with one seed.

    Attributes:
        seed: The seed.
        arm: Its name, such as `"llr"`; or `"first dense"`, the shared start of arms, trained alone.
        validation: The value on validation data at the end of each epoch; NaN if not finite.
        best_epoch: The epoch, counted from 0, with the best of these; the first of equal ones.
        test_last: The value on test data after the last epoch.
        test_best: The value on test data after `best_epoch`.
        num_updates: Number of updates that the optimizer made.
        start: Digest of the state from which the arms of a seed branch.
    """

    seed: int
    arm: str
    validation: tuple[float, ...]
    best_epoch: int
    test_last: float
    test_best: float
    num_updates: int
    start: str

    def test(self, when: str) -> float:
        """Returns the value on test data, `"last"` or `"best"`."""
        return self.test_last if when == LAST else self.test_best

    def chosen_on(self, when: str) -> float:
        """Returns the value on validation data at that epoch."""
        return self.validation[-1 if when == LAST else self.best_epoch]


@dataclasses.dataclass(frozen=True)
class Gain:
    """Gain of DSD over its best control, on test data; negative if DSD is worse.

    Attributes:
        when: `"last"` or `"best"`: the compared epochs.
        control: The control whose mean on validation data is the best.
        paired: Statistics of the gains of the seeds: mean, standard deviation, interval, test.
        relative: The mean gain as a fraction of the control's mean; NaN if this is zero.
    """

    when: str
    control: str
    paired: Paired
    relative: float


@dataclasses.dataclass(frozen=True)
class Comparison(Tabled):
    """The result of `compare`.

    Attributes:
        metric: Name of `evaluate`.
        mode: `"min"` if smaller values are better, `"max"` if larger values are better.
        arms: The phases of each arm, as text.
        runs: Every arm of every seed.
        shared_rows: Fractions of the rows of one part of the data that are in another too.
    """

    metric: str
    mode: str
    arms: Mapping[str, str]
    runs: tuple[Run, ...]
    shared_rows: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    @property
    def num_updates(self) -> int:
        """Number of updates of every arm; one that fails may make fewer."""
        return max(run.num_updates for run in self.runs if run.arm == DSD)

    def tests(self, arm: str, when: str = BEST) -> list[float]:
        """Returns the values of an arm on test data, one per seed.

        Args:
            arm: Its name.
            when: `"last"` or `"best"`.
        """
        return [run.test(when) for run in self._runs_of(arm)]

    def gain(self, when: str = BEST) -> Gain:
        """Returns the gain of DSD over its best control.

        Args:
            when: `"best"`: at the best epochs on validation data; `"last"`: at the last epochs.

        Raises:
            ImportError: SciPy is not installed.
        """
        control = self._best_control(when)
        ours, theirs = self.tests(self._ours, when), self.tests(control, when)
        found = paired(theirs, ours) if self.mode == "min" else paired(ours, theirs)
        mean, _ = mean_and_sd(theirs)
        return Gain(when, control, found, found.mean / abs(mean) if mean else math.nan)

    @property
    def verdict(self) -> str:
        """The conclusion. A gain that early stopping gives too does not count."""
        best, last = self.gain(BEST), self.gain(LAST)
        words = _sentence(best, len(self.seeds))
        if _is_gain(last) and not _is_gain(best):
            words += (
                f" At the last epoch dsd is better than {last.control}; a gain that early stopping "
                f"gives too does not count."
            )
        return words

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and str; None for NaN."""
        gains = {
            gain.when: {"control": gain.control, **gain.paired._asdict(), "relative": gain.relative}
            for gain in map(self.gain, WHEN)
        }
        arms = self._rows()
        summary = {arm: {when: self._summary(arm, when) for when in WHEN} for arm in arms}
        found: dict[str, Any] = plain(self)
        return {**found, "summary": plain(summary), "gain": plain(gains), "verdict": self.verdict}

    def _table(self) -> Table:
        head = ("arm", "updates", "test, last epoch", "test, best epoch", "validation, best")
        rows = []
        for arm in self._rows():
            values = [self.tests(arm, LAST), self.tests(arm, BEST), self._chosen(arm, BEST)]
            cells = ["{:.4g} ± {:.2g}".format(*mean_and_sd(each)) for each in values]
            rows.append((arm, f"{self._runs_of(arm)[0].num_updates:,}", *cells))
        arms = [f"{name}: {phases}" for name, phases in self.arms.items()]
        if FIRST in self._rows():
            arms.insert(0, f"{FIRST}: the shared start of all arms, without further training")
        how = (
            f"Intervals are {CONFIDENCE:.0%} bootstrap intervals, and p is of the paired t-test. "
            f"Fit on training data; best epochs and the control are selected on validation data."
        )
        return Table(head, rows, (), (0,), self._lines(), [*arms, how])

    def _lines(self) -> list[tuple[str, str]]:
        """Returns the summary above the table."""
        seeds, updates = len(self.seeds), self.num_updates
        return [
            ("verdict", self.verdict),
            ("gain, best epoch", _gain_text(self.gain(BEST))),
            ("gain, last epoch", _gain_text(self.gain(LAST))),
            ("metric", f"{self.metric} ({BETTER[self.mode]}), mean ± standard deviation"),
            ("training", f"{seeds} seeds, {updates:,} updates in each arm"),
        ]

    def plot(self) -> "Figure":
        """Returns a figure: a dot for each seed and arm on test data, and the gains.

        The figure belongs to no window; `figure.savefig("comparison.png")` writes it.

        Raises:
            ImportError: matplotlib or SciPy is not installed.
        """
        figure, panels = new_panels(1, 2, 10, 4.5, width_ratios=[3, 2])
        self._draw_dots(panels[0, 0])
        self._draw_gains(panels[0, 1])
        return figure

    def _draw_dots(self, axes: "Axes") -> None:
        """Draws a column for each arm, with a dot for each seed and a line at the mean."""
        for column, arm in enumerate(self._rows()):
            for when, (marker, face, aside) in STYLES.items():
                found, x, colour = self.tests(arm, when), column + aside, f"C{column}"
                axes.plot([x] * len(found), found, marker, color=colour, alpha=0.7,
                          markerfacecolor=face or colour)  # fmt: skip
                axes.hlines(np.mean(found), x - 0.12, x + 0.12, color=colour)
        labels = {LAST: "last epoch", BEST: "epoch best on validation data"}
        for when, (marker, face, _) in STYLES.items():
            axes.plot([], [], marker, color="gray", markerfacecolor=face or "gray",
                      label=labels[when])  # fmt: skip
        names = self._rows()
        rotation, align = (30, "right") if len(names) > 6 else (0, "center")
        axes.set_xticks(range(len(names)), names, rotation=rotation, ha=align)
        axes.set_ylabel(f"{self.metric} on test data ({BETTER[self.mode]})")
        axes.legend(title="a dot for each seed, a line for the mean", fontsize="small")

    def _draw_gains(self, axes: "Axes") -> None:
        """Draws the mean gain at each of the two epochs, with its interval."""
        names = []
        for column, gain in enumerate(map(self.gain, WHEN)):
            found = gain.paired
            ends = np.abs(np.array([[found.mean - found.low], [found.high - found.mean]]))
            axes.errorbar([column], [found.mean], yerr=ends, fmt="o", capsize=6, color="black")
            p_text = "" if math.isnan(found.p_value) else f"\np = {found.p_value:.2g}"
            names.append(f"{gain.when} epochs,\nover {gain.control}{p_text}")
        axes.axhline(0, color="gray", linestyle="--", linewidth=1)
        axes.set_xticks(range(len(names)), names, fontsize="small")
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylabel(
            f"gain of dsd, mean and {CONFIDENCE:.0%} interval\n(above 0: dsd is better)"
        )

    @property
    def _ours(self) -> str:
        """The arm that the controls are measured against."""
        return DSD

    def _rows(self) -> list[str]:
        """Returns the names of the arms: the shared start first, DSD last."""
        names = dict.fromkeys(run.arm for run in self.runs)
        return sorted(names, key=lambda name: {FIRST: -1, DSD: 1}.get(name, 0))

    def _runs_of(self, arm: str) -> list[Run]:
        return [run for run in self.runs if run.arm == arm]

    def _chosen(self, arm: str, when: str) -> list[float]:
        return [run.chosen_on(when) for run in self._runs_of(arm)]

    def _best_control(self, when: str) -> str:
        """Returns the control with the best mean on validation data; the longest of equal ones."""
        sign = 1.0 if self.mode == "min" else -1.0

        def cost(arm: str) -> tuple[float, bool]:
            mean, _ = mean_and_sd(self._chosen(arm, when))
            return (math.inf if math.isnan(mean) else sign * mean), arm == FIRST

        return min((arm for arm in self._rows() if arm != DSD), key=cost)

    def _summary(self, arm: str, when: str) -> dict[str, float]:
        test_mean, test_sd = mean_and_sd(self.tests(arm, when))
        mean, sd = mean_and_sd(self._chosen(arm, when))
        return {"test_mean": test_mean, "test_sd": test_sd,
                "validation_mean": mean, "validation_sd": sd}  # fmt: skip


def _is_gain(gain: Gain) -> bool:
    return gain.paired.is_shown and gain.paired.mean > 0


def _sentence(gain: Gain, num_seeds: int) -> str:
    control = f"{gain.control}, the best control on validation data"
    if math.isnan(gain.paired.mean):
        return (
            f"No verdict: not all values of dsd and {gain.control} are finite "
            f"({num_seeds} seeds, on test data)."
        )
    if not gain.paired.is_shown:
        words = f"No difference shown between dsd and {control} ({num_seeds} seeds, on test data)."
        if gain.paired.low > 0 or gain.paired.high < 0:
            words += (
                " The interval excludes 0, but that of few seeds is too narrow, and the t-test "
                "does not agree: use more seeds."
            )
        return words
    better = "better" if gain.paired.mean > 0 else "worse"
    return (
        f"dsd is {better} than {control}, by {abs(gain.paired.mean):.4g} or "
        f"{abs(gain.relative):.2%} ({num_seeds} seeds, on test data)."
    )


def _gain_text(gain: Gain) -> str:
    found = gain.paired
    is_tested = not math.isnan(found.p_value)
    test = f"p = {found.p_value:.3g}" if is_tested else "no test: all equal, or not finite"
    return (
        f"{found.mean:+.4g} ({gain.relative:+.2%}) over {gain.control}, "
        f"interval {found.low:+.4g} to {found.high:+.4g}, {test}"
    )
