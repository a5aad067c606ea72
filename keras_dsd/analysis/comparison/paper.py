"""The protocol in the paper's regime: more arms, tuning on seeds apart, and two questions.

(a) DSD against the best unpruned arm, which is chosen on the tuning seeds' validation data, as the
weight decay of each arm is. (b) DSD against weights that are pruned and never regrow. Random masks
and iterated DSD are trained with the weight decay of DSD.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_dsd.analysis.comparison.arms import (
    AT_ONCE,
    AVERAGED,
    DSD,
    FIRST,
    ITERATED,
    ONE_RUN,
    RANDOM,
)
from keras_dsd.analysis.comparison.arms import num_shared as num_shared_by
from keras_dsd.analysis.comparison.result import BEST, LAST, Comparison, Run
from keras_dsd.analysis.comparison.statistics import Difference, difference, mean_and_sd
from keras_dsd.analysis.comparison.training import Job
from keras_dsd.utils.tables import Table

UNPRUNED = ("dense", ONE_RUN, "llr", AT_ONCE, AVERAGED)
PRUNED = "sparse"
FIRST_TUNING_SEED = 1_000_000
_EQUIVALENT = 0.01
# Trained with the weight decay of DSD.
_FOLLOWERS = (RANDOM, ITERATED)

Decay = float | None
# Trains the arms of a job at some seeds, and keeps them in a file.
Train = Callable[[Job, Sequence[int], pathlib.Path | None], Sequence[Run]]


@dataclasses.dataclass(frozen=True)
class PaperComparison(Comparison):
    """The measurements of `compare(controls="paper")`.

    Attributes:
        control: The unpruned arm that is the best on the validation data of the tuning seeds.
        weight_decays: The weight decay of each arm, chosen on these; empty without tuning.
    """

    control: str = ""
    weight_decays: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def answer(self, control: str | None = None, when: str = BEST) -> Difference:
        """Returns the paired differences of DSD and an arm, DSD minus it, on test data.

        Args:
            control: The arm. Defaults to `None`: question (a), the best unpruned arm. `"sparse"` is
                question (b).
            when: `"best"`: each at its best epoch on validation data; `"last"`: at the last epoch.
        """
        return difference(self.tests(DSD, when), self.tests(control or self.control, when))

    @property
    def verdict(self) -> str:
        """The answers to both questions, at the best epochs."""
        asked = {"a": self.control, "b": PRUNED}
        return " ".join(
            f"({letter}) {self._sentence(control)}"
            for letter, control in asked.items() if control in self.arms
        )  # fmt: skip

    def _sentence(self, control: str) -> str:
        found, mean = self.answer(control), mean_and_sd(self.tests(control))[0]
        margin = _EQUIVALENT * abs(mean)
        better = (found.mean < 0) == (self.mode == "min")
        if found.p_value < 0.05:
            words = f"dsd is {'better' if better else 'worse'} than {control}"
        elif -margin < found.low and found.high < margin:
            words = f"dsd and {control} are equal within 1%"
        else:
            words = f"No difference shown between dsd and {control}"
        return (
            f"{words}: dsd minus it {found.mean:+.4g} (95% interval {found.low:+.4g} to "
            f"{found.high:+.4g}, p = {found.p_value:.2g}). Smallest effect that {found.number} "
            f"seeds show four times in five: {found.smallest:.2g}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and str; None for NaN."""
        answers = {
            name: {when: dataclasses.asdict(self.answer(name, when)) for when in (BEST, LAST)}
            for name in self.arms if name != DSD
        }  # fmt: skip
        return {**super().to_dict(), "differences": answers}

    def _best_control(self, when: str) -> str:
        return self.control

    def _table(self) -> Table:
        table = super()._table()
        decays = [f"{arm}: weight decay {value:g}" for arm, value in self.weight_decays.items()]
        return table._replace(lines=[*table.lines, *decays])


def compare_as_paper(
    job: Job, seeds: Sequence[int], weight_decays: Sequence[float], num_tuning_seeds: int,
    file: pathlib.Path | None, train: Train,
) -> tuple[tuple[Run, ...], str, dict[str, float]]:  # fmt: skip
    """Trains the tuning seeds, then the seeds that are reported.

    Args:
        job: Of all arms. With weight decays, its `build` takes one as `weight_decay`.
        seeds: The seeds that are reported.
        weight_decays: The values that are tried; none: `build` takes no argument.
        num_tuning_seeds: Number of seeds that settings are chosen on.
        file: Name of the files of the runs, each with its weight decay in its name; None: no file.
        train: Trains a job.

    Returns:
        The runs, the best unpruned arm, and the weight decay of each arm.
    """
    decays: list[Decay] = list(weight_decays) or [None]
    tuned = [arm for arm in job.arms if arm not in _FOLLOWERS]
    at = [FIRST_TUNING_SEED + index for index in range(num_tuning_seeds)]
    costs: dict[str, dict[Decay, float]] = {arm: {} for arm in tuned}
    for decay in decays:
        runs = train(_part(job, decay, tuned), at, _file(file, "tuning", decay))
        for arm in tuned:
            costs[arm][decay] = _cost(runs, arm, job.mode)
    chosen = {arm: min(costs[arm], key=costs[arm].__getitem__) for arm in tuned}
    chosen |= {arm: chosen[DSD] for arm in job.arms if arm in _FOLLOWERS}
    unpruned = [arm for arm in UNPRUNED if arm in tuned]
    control = min(unpruned, key=lambda arm: costs[arm][chosen[arm]])
    runs = []
    for decay in dict.fromkeys(chosen.values()):
        arms = [arm for arm in job.arms if chosen[arm] == decay]
        part = train(_part(job, decay, arms), seeds, _file(file, "seeds", decay))
        runs += [run for run in part if run.arm != FIRST or decay == chosen[DSD]]
    return (
        tuple(sorted(runs, key=lambda run: seeds.index(run.seed))), control,
        {arm: decay for arm, decay in chosen.items() if decay is not None},
    )  # fmt: skip


def _part(job: Job, decay: Decay, names: Sequence[str]) -> Job:
    """Returns the job of some arms, at a weight decay."""
    arms = {name: job.arms[name] for name in names}
    build: Callable[..., Any] = job.build
    if decay is not None:
        build = functools.partial(build, weight_decay=decay)
    return dataclasses.replace(job, build=build, arms=arms, num_shared=num_shared_by(arms))


def _file(file: pathlib.Path | None, stage: str, decay: Decay) -> pathlib.Path | None:
    tag = stage if decay is None else f"{stage}-{decay:g}"
    return file and file.with_name(f"{file.stem}-{tag}{file.suffix}")


def _cost(runs: Sequence[Run], arm: str, mode: str) -> float:
    """Returns the mean best value on validation data, the smaller the better; NaN costs most."""
    values = [run.chosen_on(BEST) for run in runs if run.arm == arm]
    mean = sum(values) / len(values)
    if mean != mean:
        return float("inf")
    return mean if mode == "min" else -mean
