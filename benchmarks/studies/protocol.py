"""The protocol of the studies: arms of equal updates, tuning on seeds apart, and the statistics.

Fixed before the runs that it judges; docs/results.md describes it. Nothing here trains:
`trials.py` does, `tasks.py` has the tasks, and `run.py` is the command.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from keras_dsd.algorithm.phases import DensePhase, Phase, SparsePhase
from keras_dsd.analysis.comparison.statistics import Difference, difference, holm

# Seeds of tuning start here; those that are reported count from 0.
FIRST_TUNING_SEED = 1000
# An interval within this share of the control's mean shows that the two are equal in practice.
EQUIVALENT = 0.01

# With fewer seeds a task gives no answer.
LEAST_SEEDS = 10

# The name of a task ends so if another task differs in the learning rates after convergence alone.
# Its plain runs are those of that task, so that it has a table apart, and no answer more.
AT_PAPER_RATES = "-paper-rates"

FIRST = "first dense"
SAME, AVERAGED, SINGLE, LOW, HIGH = (
    "same rates", "same rates, averaged", "one run", "low rate", "first rate",
)  # fmt: skip
PRUNED, DSD, RANDOM, ITERATED = "pruned", "dsd", "dsd, random masks", "dsd, iterated"
PRUNED_SINGLE, DSD_SINGLE, RANDOM_SINGLE = (
    "pruned in one run", "dsd in one run", "dsd in one run, random masks",
)  # fmt: skip
PLAIN = (SAME, AVERAGED, SINGLE, LOW, HIGH)
# Schedules with the same masks, of which tuning chooses one.
PRUNED_ARMS, DSD_ARMS = (PRUNED, PRUNED_SINGLE), (DSD, DSD_SINGLE)
RANDOM_OF = {DSD: RANDOM, DSD_SINGLE: RANDOM_SINGLE}
# These are trained with the settings that tuning chose for another arm, and not tuned.
SETTINGS_OF = {AVERAGED: SAME, RANDOM: DSD, RANDOM_SINGLE: DSD_SINGLE, ITERATED: DSD}
WORDS = {
    SAME: "the learning rates of DSD in every epoch, no masks",
    AVERAGED: "the same, scored by the mean of its weights at the epochs of the last phase so far",
    SINGLE: "one conventional run: the first dense phase's schedule, stretched over all epochs",
    LOW: "trained on at the last learning rate of the first dense phase (LLR)",
    HIGH: "trained on at the first learning rate",
    PRUNED: "as DSD, but pruned weights never regrow",
    PRUNED_SINGLE: "as `dsd in one run`, but pruned weights never regrow",
    DSD: "Dense-Sparse-Dense",
    DSD_SINGLE: "one conventional run, sparse in the last epochs before its rate falls",
    RANDOM: "DSD with masks drawn at random",
    RANDOM_SINGLE: "`dsd in one run` with masks drawn at random",
    ITERATED: "DSD twice in the same epochs, at a sparsity of 50 %, then 25 %",
}
_ITERATED_RATES = (1.0, 0.3, 0.3, 0.1)
ITERATED_SPARSITIES = (0.5, 0.25)


def steps(epochs: int, first: float = 1.0) -> tuple[float, ...]:
    """Returns factors of the learning rate that fall twice to a tenth, as in conventional training.

    Half of the epochs are at `first`, three tenths at a tenth of it, the rest at a hundredth.
    """
    at_first, at_tenth = max(1, round(0.5 * epochs)), round(0.3 * epochs)
    lengths = (at_first, at_tenth, epochs - at_first - at_tenth)
    return tuple(first * 0.1**index for index, length in enumerate(lengths) for _ in range(length))


@dataclasses.dataclass(frozen=True)
class Arm:
    """An arm.

    Attributes:
        shared: How many epochs of the first dense phase it has in common with other arms.
        rates: Factor of the learning rate in each epoch after these.
        phases: What a `DSDSchedule` takes for the epochs after these; none in plain arms.
    """

    shared: int
    rates: tuple[float, ...]
    phases: tuple[Phase, ...] = ()


@dataclasses.dataclass(frozen=True)
class Lengths:
    """The epochs of the three phases; each has learning rates that fall by `steps`.

    Attributes:
        dense: Epochs of the first dense phase, until it has converged.
        sparse: Epochs of the sparse phase.
        redense: Epochs of the last phase.
        sparse_lr: Factor of the learning rate at which the sparse phase starts.
        redense_lr: Factor of the learning rate at which the last phase starts.
    """

    dense: int
    sparse: int
    redense: int
    sparse_lr: float = 1.0
    redense_lr: float = 0.1

    @property
    def first(self) -> tuple[float, ...]:
        """The learning rates of the first dense phase."""
        return steps(self.dense)

    @property
    def rest(self) -> tuple[float, ...]:
        """The learning rates of the sparse and the last phase."""
        return steps(self.sparse, self.sparse_lr) + steps(self.redense, self.redense_lr)

    @property
    def epochs(self) -> int:
        """The epochs of every arm."""
        return self.dense + self.sparse + self.redense

    @property
    def dense_in_run(self) -> int:
        """The epochs of `dsd in one run` before it is sparse: the first phase's first rate."""
        return max(1, round(0.5 * self.dense))

    @property
    def sparse_in_run(self) -> int:
        """The sparse epochs of `dsd in one run`: until its learning rate falls."""
        return max(1, round(0.5 * self.epochs)) - self.dense_in_run

    @property
    def after_run(self) -> int:
        """The epochs after the sparse ones of `dsd in one run`."""
        return self.epochs - self.dense_in_run - self.sparse_in_run

    def dense_before(self, arm: str) -> int:
        """The epochs before an arm of `DSD_ARMS` is sparse."""
        return self.dense if arm == DSD else self.dense_in_run

    def before_regrowth(self, arm: str) -> int:
        """The epochs before pruned weights regrow in an arm of `DSD_ARMS`."""
        sparse = self.sparse if arm == DSD else self.sparse_in_run
        return self.dense_before(arm) + sparse

    @property
    def rest_of_run(self) -> tuple[float, ...]:
        """The learning rates of one conventional run, after its epochs of `dense_in_run`."""
        return steps(self.epochs)[self.dense_in_run :]


def arms(lengths: Lengths, sparsity: float, seed: int = 0) -> dict[str, Arm]:
    """Returns every arm that is trained, `AVERAGED` apart, which is `SAME` scored otherwise.

    Args:
        lengths: The epochs and learning rates of the phases.
        sparsity: Of the sparse phase.
        seed: Of random masks.
    """
    dense, rest = lengths.dense, lengths.rest
    sparse, after = SparsePhase(lengths.sparse, sparsity=sparsity), lengths.redense
    in_run, after_run = SparsePhase(lengths.sparse_in_run, sparsity=sparsity), lengths.after_run
    return {
        SAME: Arm(dense, rest),
        SINGLE: Arm(lengths.dense_in_run, lengths.rest_of_run),
        LOW: Arm(dense, (lengths.first[-1],) * len(rest)),
        HIGH: Arm(dense, (1.0,) * len(rest)),
        PRUNED: Arm(dense, rest, (sparse, _longer(sparse, after))),
        DSD: Arm(dense, rest, (sparse, DensePhase(after))),
        RANDOM: Arm(dense, rest, (_at_random(sparse, seed), DensePhase(after))),
        ITERATED: _iterated(lengths),
        **{
            name: Arm(lengths.dense_in_run, lengths.rest_of_run, phases)
            for name, phases in {
                PRUNED_SINGLE: (in_run, _longer(in_run, after_run)),
                DSD_SINGLE: (in_run, DensePhase(after_run)),
                RANDOM_SINGLE: (_at_random(in_run, seed), DensePhase(after_run)),
            }.items()
        },
    }  # fmt: skip


def _longer(phase: SparsePhase, epochs: int) -> SparsePhase:
    return dataclasses.replace(phase, epochs=epochs)


def _at_random(phase: SparsePhase, seed: int) -> SparsePhase:
    return dataclasses.replace(phase, criterion="random", seed=seed)


def _iterated(of: Lengths) -> Arm:
    epochs, first = of.sparse + of.redense, of.sparse_lr
    quarter = epochs // 4
    lengths = (epochs - 3 * quarter, quarter, quarter, quarter)
    rates: tuple[float, ...] = ()
    phases: list[Phase] = []
    for index, (length, factor) in enumerate(zip(lengths, _ITERATED_RATES, strict=True)):
        rates += steps(length, factor * first)
        sparsity = ITERATED_SPARSITIES[index // 2]
        phases.append(DensePhase(length) if index % 2 else SparsePhase(length, sparsity=sparsity))
    return Arm(of.dense, rates, tuple(phases))


@dataclasses.dataclass(frozen=True)
class Setting:
    """Tuned settings: each arm gets the best one on the tuning seeds' validation data.

    Attributes:
        l2: The coefficient of Keras's `L2` regularizer, which all kernels have.
        lr: The first learning rate.
        sparsity: Of DSD and of what is pruned for good; None in plain arms.
    """

    l2: float
    lr: float
    sparsity: float | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """An arm, trained from one seed.

    Attributes:
        seed: The seed.
        arm: The name of the arm.
        setting: What it was trained with.
        validation: The loss on validation data after each epoch, those of the first phase too.
        test: The same on test data; empty of tuning seeds, whose test data nobody looks at.
        train: The training loss of each epoch, as `fit` averages it, without penalties.
        error: The share of wrong test answers at the best and at the last epoch; NaN without any.
        num_updates: How many updates the optimizer made.
        seconds: CPU time of the epochs that are this arm's own.
    """

    seed: int
    arm: str
    setting: Setting
    validation: tuple[float, ...]
    test: tuple[float, ...]
    train: tuple[float, ...]
    error: tuple[float, float]
    num_updates: int
    seconds: float

    @property
    def best_epoch(self) -> int:
        """The epoch that validation chooses: of equal ones the first, in every arm alike."""
        return best_epoch(self.validation)

    @property
    def test_best(self) -> float:
        """The primary outcome: the test loss after the epoch that validation chooses."""
        return self.test[self.best_epoch]


def best_epoch(validation: Sequence[float]) -> int:
    """Returns the index of the smallest value, of equal ones the first; NaN is never the best."""
    order = [(value != value, value, epoch) for epoch, value in enumerate(validation)]
    return min(order)[2]


def chosen_setting(tuning: Sequence[Run], arm: str) -> Setting:
    """Returns the setting whose mean best validation loss over the tuning seeds is the smallest."""
    return min(_means(tuning, SETTINGS_OF.get(arm, arm)).items(), key=lambda item: item[1])[0]


def chosen_settings(tuning: Sequence[Run]) -> dict[str, Setting]:
    """Returns the setting of each arm that is trained on the reported seeds."""
    return {arm: chosen_setting(tuning, arm) for arm in reported_arms(tuning)}


def best_of(tuning: Sequence[Run], arms: Sequence[str]) -> str:
    """Returns the arm that is best on the tuning seeds, each with its own setting."""
    return min(arms, key=lambda arm: _means(tuning, arm)[chosen_setting(tuning, arm)])


def reported_arms(tuning: Sequence[Run]) -> tuple[str, ...]:
    """Returns the arms that are trained on the reported seeds.

    They are all but for random masks, which are those of the schedule of DSD that is best.
    """
    at_random = RANDOM_OF[best_of(tuning, DSD_ARMS)]
    return (*PLAIN, *PRUNED_ARMS, *DSD_ARMS, at_random, ITERATED)


def _means(tuning: Sequence[Run], arm: str) -> dict[Setting, float]:
    found: dict[Setting, list[float]] = {}
    for run in tuning:
        if run.arm == arm:
            found.setdefault(run.setting, []).append(run.validation[run.best_epoch])
    most = max(map(len, found.values()))  # a setting that diverged in a seed does not win by that
    return {
        setting: sum(values) / most
        for setting, values in found.items()
        if len(values) == most and all(value == value for value in values)
    }


@dataclasses.dataclass(frozen=True)
class Answer:
    """Answer of a task to one question, on its reported seeds.

    Attributes:
        arm: The schedule of DSD.
        control: The arm that it is measured against.
        mean: The control's mean primary outcome.
        best: DSD minus the control, seed by seed, at the epochs that validation chooses.
        last: The same at the last epoch.
        num_better: In how many seeds DSD is better at the chosen epoch.
    """

    arm: str
    control: str
    mean: float
    best: Difference
    last: Difference
    num_better: int

    @property
    def is_equivalent(self) -> bool:
        """True if the interval lies within `EQUIVALENT` of the control."""
        margin = EQUIVALENT * abs(self.mean)
        return -margin < self.best.low and self.best.high < margin


def answer(runs: Sequence[Run], control: str, arm: str) -> Answer:
    """Returns the paired difference, arm minus control, over the seeds that have both."""
    ours, theirs = ({run.seed: run for run in runs if run.arm == name} for name in (arm, control))
    seeds = sorted(set(ours) & set(theirs))
    pairs = [(ours[seed], theirs[seed]) for seed in seeds]
    best = [(one.test_best, other.test_best) for one, other in pairs]
    last = [(one.test[-1], other.test[-1]) for one, other in pairs]
    return Answer(
        arm, control, sum(other for _, other in best) / len(best),
        difference(*zip(*best, strict=True)), difference(*zip(*last, strict=True)),
        sum(one < other for one, other in best),
    )  # fmt: skip


def verdicts(answers: Mapping[str, Answer]) -> dict[str, str]:
    """Returns, for each task, better, worse, equal or not shown; p by Holm over all tasks.

    What is better or worse, with an interval within `EQUIVALENT` of the control, is said to be so.
    """
    adjusted = holm({name: each.best.p_value for name, each in answers.items()})
    return {name: _verdict(each, adjusted[name]) for name, each in answers.items()}


def _verdict(found: Answer, p_value: float) -> str:
    equal = "within 1 %" if found.is_equivalent else ""
    if p_value < 0.05:
        return ("better" if found.best.mean < 0 else "worse") + (equal and f", {equal}")
    return f"equal {equal}" if equal else "no difference shown"
