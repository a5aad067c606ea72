"""The protocol in the paper's regime: more arms, tuning on seeds apart, and two questions.

(a) DSD against the best unpruned arm. (b) DSD against weights that are pruned and never regrow. On
the tuning seeds' validation data the learning rate and weight decay of each arm are chosen, the
best unpruned arm and, of DSD and of pruning for good, the better of two schedules. Random masks and
iterated DSD are trained with the settings of DSD as it is given.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_dsd.analysis.comparison.arms import (
    AT_ONCE,
    AVERAGED,
    DSD,
    DSD_IN_RUN,
    FIRST,
    HIGH,
    ITERATED,
    LOW,
    ONE_RUN,
    RANDOM,
    SPARSE_IN_RUN,
)
from keras_dsd.analysis.comparison.result import BEST, LAST, STYLES, WHEN, Comparison, Run
from keras_dsd.analysis.comparison.statistics import (
    CONFIDENCE,
    Difference,
    difference,
    holm,
    mean_and_sd,
)
from keras_dsd.analysis.comparison.training import Job
from keras_dsd.analysis.evaluation import BETTER
from keras_dsd.utils.files import plain
from keras_dsd.utils.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNPRUNED = ("dense", HIGH, ONE_RUN, "llr", LOW, AT_ONCE, AVERAGED)
PRUNED = "sparse"
# Schedules of which one is chosen.
_DSD_ARMS, _PRUNED_ARMS = (DSD, DSD_IN_RUN), (PRUNED, SPARSE_IN_RUN)
FIRST_TUNING_SEED = 1_000_000
_EQUIVALENT = 0.01
# Trained with the settings of DSD.
_FOLLOWERS = (RANDOM, ITERATED)


class Setting(NamedTuple):
    """Arguments of `build`; None: it does not take this one."""

    learning_rate: float | None = None
    weight_decay: float | None = None

    @property
    def arguments(self) -> dict[str, float]:
        """Those that `build` takes, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


# Trains the arms of a job at some seeds, and keeps them in a file.
Train = Callable[[Job, Sequence[int], pathlib.Path | None], Sequence[Run]]


@dataclasses.dataclass(frozen=True)
class PaperComparison(Comparison):
    """The measurements of `compare(controls="paper")`.

    Attributes:
        control: The unpruned arm that is the best on the validation data of the tuning seeds.
        learning_rates: The learning rate of each arm, chosen on these; empty without tuning.
        weight_decays: The weight decay of each arm, the same.
        tried: Of `"learning_rate"` and `"weight_decay"`, the values that were tried, if any.
        num_tuning_seeds: Number of the tuning seeds.
        schedule: The better schedule of DSD on these: `"dsd"`, or `"dsd in one run"`.
        pruned: The better one of pruning for good: `"sparse"`, or `"sparse in one run"`.
    """

    control: str = ""
    learning_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    weight_decays: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tried: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    num_tuning_seeds: int = 0
    schedule: str = DSD
    pruned: str = PRUNED

    def answer(self, control: str | None = None, when: str = BEST) -> Difference:
        """Returns the paired differences of DSD and an arm, DSD minus it, on test data.

        Its p-value is not adjusted for the number of answers.

        Args:
            control: The arm. Defaults to `None`: question (a), the best unpruned arm. That of
                question (b) is `pruned`.
            when: `"best"`: each at its best epoch on validation data; `"last"`: at the last epoch.
        """
        return difference(self.tests(self._ours, when), self.tests(control or self.control, when))

    @property
    def failed(self) -> list[Run]:
        """The runs in which a value was not finite, on validation or test data."""
        return [
            run for run in self.runs
            if not all(map(math.isfinite, (*run.validation, run.test_last, run.test_best)))
        ]  # fmt: skip

    @property
    def verdict(self) -> str:
        """The answers to both questions, at the best epochs."""
        return " ".join(f"({letter}) {self._sentence(letter)}" for letter in self._questions)

    @property
    def _ours(self) -> str:
        return self.schedule

    @property
    def _questions(self) -> dict[str, str]:
        asked = {"a": self.control, "b": self.pruned}
        return {letter: control for letter, control in asked.items() if control in self.arms}

    def _p_values(self, when: str) -> dict[str, float]:
        """Returns the p-value of each question, adjusted by Holm's method for both."""
        asked = self._questions.items()
        return holm({letter: self.answer(control, when).p_value for letter, control in asked})

    def _sentence(self, letter: str, when: str = BEST) -> str:
        control, p_value = self._questions[letter], self._p_values(when)[letter]
        found, mean = self.answer(control, when), mean_and_sd(self.tests(control, when))[0]
        margin = _EQUIVALENT * abs(mean)
        better = (found.mean < 0) == (self.mode == "min")
        ours = self._ours
        if not math.isfinite(found.mean):
            return f"No answer: not all values of {ours} and {control} are finite."
        if found.sd == 0:
            return (
                f"No difference to test: {ours} minus {control} is {found.mean:+.4g} in every seed."
            )
        is_equal = -margin < found.low and found.high < margin
        if p_value < 1 - CONFIDENCE:
            words = f"{ours} is {'better' if better else 'worse'} than {control}"
            words += ", by less than 1%" if is_equal else ""
        elif is_equal:
            words = f"{ours} and {control} are equal within 1%"
        else:
            words = f"No difference shown between {ours} and {control}"
        share = f" ({100 * found.smallest / abs(mean):.2g}%)" if mean else ""
        return (
            f"{words}: {ours} minus it {_interval(found, 4)}{_p_text(p_value)}. Smallest effect "
            f"that {found.number} seeds show four times in five, before adjustment: "
            f"{found.smallest:.2g}{share}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and str; None for NaN."""
        answers = {
            name: {when: dataclasses.asdict(self.answer(name, when)) for when in WHEN}
            for name in self.arms if name != self._ours
        }  # fmt: skip
        adjusted = {when: self._p_values(when) for when in WHEN}
        return {
            **super().to_dict(), "differences": plain(answers),
            "questions": self._questions, "adjusted_p_values": plain(adjusted),
        }  # fmt: skip

    def _best_control(self, when: str) -> str:
        return self.control

    def _lines(self) -> list[tuple[str, str]]:
        failed: dict[int, list[str]] = {}
        for run in self.failed:
            failed.setdefault(run.seed, []).append(run.arm)
        words = [f"seed {seed} ({'; '.join(arms)})" for seed, arms in failed.items()]
        return [
            *((f"question ({letter})", self._sentence(letter)) for letter in self._questions),
            ("at the last epochs", " ".join(
                f"({letter}) {self._ours} minus {control}: "
                f"{_interval(self.answer(control, LAST), 2)}"
                f"{_p_text(self._p_values(LAST)[letter])}."
                for letter, control in self._questions.items()
            )),
            ("metric", f"{self.metric} ({BETTER[self.mode]}), mean ± standard deviation"),
            ("training", f"{len(self.seeds)} seeds, {self.num_updates:,} updates in each arm; "
                         f"choices made on {self.num_tuning_seeds} other seeds. "
                         + (f"Not finite: {', '.join(words)}." if words else "No run failed.")),
        ]  # fmt: skip

    def _table(self) -> Table:
        table = super()._table()
        rows = [(*row[:1], *row[2:4], *self._against(row[0])) for row in table.rows]
        head = (*table.head[:1], *table.head[2:4], f"{self._ours} minus it, best epoch (95%)", "p")
        how = (
            f"Intervals are {CONFIDENCE:.0%} intervals of the t distribution, and p is of the "
            f"paired t-test, adjusted by Holm's method for both questions, and not adjusted in the "
            f"table. Fit on training data; best epochs are selected on validation data; learning "
            f"rates, weight decays, the best unpruned arm and schedules on that of the tuning "
            f"seeds."
        )
        chosen = [line for name in self.tried for line in self._chosen_lines(name)]
        return table._replace(head=head, rows=rows, lines=[*table.lines[:-1], *chosen, how])

    def _against(self, arm: str) -> tuple[str, str]:
        if arm == self._ours:
            return "", ""
        found = self.answer(arm)
        return _interval(found, 2), "" if math.isnan(found.p_value) else f"{found.p_value:.2g}"

    def _chosen_lines(self, name: str) -> list[str]:
        """Returns a line on the chosen values of a setting, and one for each arm at an end."""
        values: Mapping[str, float] = getattr(self, f"{name}s")
        arms: dict[float, list[str]] = {}
        for arm, value in values.items():
            arms.setdefault(value, []).append(arm)
        chosen = [f"{value:g} for {'; '.join(names)}" for value, names in arms.items()]
        if len(arms) == 1:
            chosen = [f"{next(iter(arms)):g} for all"]
        words, tried = name.replace("_", " "), self.tried[name]
        lines = [f"{words}, chosen for each arm: {'. '.join(chosen)}"]
        ends = {min(tried): "smaller", max(tried): "larger"}
        for arm, seems in ((self.control, "gain"), (self._ours, "lose")):
            if len(tried) > 1 and (end := ends.get(values[arm])):
                lines.append(
                    f"{arm} is best at the {end} end of the {words}s: try {end} ones, or what DSD "
                    f"seems to {seems} may be due to that"
                )
        return lines

    def _draw_gains(self, axes: "Axes") -> None:
        """Draws the mean difference of each question, with its interval."""
        for column, control in enumerate(self._questions.values()):
            for when, (marker, face, aside) in STYLES.items():
                found = self.answer(control, when)
                ends = [[found.mean - found.low], [found.high - found.mean]]
                axes.errorbar([column + aside], [found.mean], yerr=ends, fmt=marker, capsize=6,
                              color="black", markerfacecolor=face or "black")  # fmt: skip
        names = [f"({letter}) {control}" for letter, control in self._questions.items()]
        axes.axhline(0, color="gray", linestyle="--", linewidth=1)
        axes.set_xticks(range(len(names)), names, fontsize="small")
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylabel(f"{self._ours} minus it, mean and {CONFIDENCE:.0%} interval")


def _p_text(p_value: float) -> str:
    return "" if math.isnan(p_value) else f", p = {p_value:.2g}"


def _interval(found: Difference, digits: int) -> str:
    if not math.isfinite(found.mean):
        return "not finite"
    mean, low, high = (f"{each:+.{digits}g}" for each in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})"


class Chosen(NamedTuple):
    """Choices made on tuning seeds, as `PaperComparison` describes them."""

    control: str
    schedule: str
    pruned: str
    learning_rates: dict[str, float]
    weight_decays: dict[str, float]


def compare_as_paper(
    job: Job, seeds: Sequence[int], settings: Sequence[Setting], num_tuning_seeds: int,
    file: pathlib.Path | None, train: Train,
) -> tuple[tuple[Run, ...], Chosen]:  # fmt: skip
    """Trains the tuning seeds, then the seeds that are reported.

    Args:
        job: Of all arms. Its `build` takes the arguments of a setting.
        seeds: The seeds that are reported.
        settings: Those that are tried; at least one.
        num_tuning_seeds: Number of seeds that settings are chosen on.
        file: Name of the files of the runs, each with its setting in its name; None: no file.
        train: Trains a job.

    Returns:
        The runs, and what tuning has chosen.
    """
    tuned = [arm for arm in job.arms if arm not in _FOLLOWERS]
    at = [FIRST_TUNING_SEED + index for index in range(num_tuning_seeds)]
    costs: dict[str, dict[Setting, float]] = {arm: {} for arm in tuned}
    for setting in settings:
        runs = train(_part(job, setting, tuned), at, _file(file, "tuning", setting))
        for arm in tuned:
            costs[arm][setting] = _cost(runs, arm, job.mode)
    chosen = {arm: min(costs[arm], key=costs[arm].__getitem__) for arm in tuned}
    chosen |= {arm: chosen[DSD] for arm in job.arms if arm in _FOLLOWERS}

    def best(arms: Sequence[str]) -> str:
        found = [arm for arm in arms if arm in tuned]
        return min(found, key=lambda arm: costs[arm][chosen[arm]], default=PRUNED)

    def values(name: str) -> dict[str, float]:
        given = {arm: setting.arguments.get(name) for arm, setting in chosen.items()}
        return {arm: value for arm, value in given.items() if value is not None}

    runs = []
    for setting in dict.fromkeys(chosen.values()):
        arms = [arm for arm in job.arms if chosen[arm] == setting]
        part = train(_part(job, setting, arms), seeds, _file(file, "seeds", setting))
        runs += [run for run in part if run.arm != FIRST or setting == chosen[DSD]]
    in_order = tuple(sorted(runs, key=lambda run: seeds.index(run.seed)))
    names = best(UNPRUNED), best(_DSD_ARMS), best(_PRUNED_ARMS)
    return in_order, Chosen(*names, values("learning_rate"), values("weight_decay"))


def _part(job: Job, setting: Setting, names: Sequence[str]) -> Job:
    """Returns the job of some arms, at a setting."""
    arms = {name: job.arms[name] for name in names}
    build: Callable[..., Any] = job.build
    if setting.arguments:
        build = functools.partial(build, **setting.arguments)
    return dataclasses.replace(job, build=build, arms=arms)


def _file(file: pathlib.Path | None, stage: str, setting: Setting) -> pathlib.Path | None:
    tags = [stage]
    if setting.learning_rate is not None:
        tags.append(f"lr{setting.learning_rate:g}")
    if setting.weight_decay is not None:
        tags.append(f"{setting.weight_decay:g}")
    return file and file.with_name(f"{file.stem}-{'-'.join(tags)}{file.suffix}")


def _cost(runs: Sequence[Run], arm: str, mode: str) -> float:
    """Returns the mean best value on validation data, the smaller the better; NaN costs most."""
    values = [run.chosen_on(BEST) for run in runs if run.arm == arm]
    mean = sum(values) / len(values)
    if mean != mean:
        return float("inf")
    return mean if mode == "min" else -mean
