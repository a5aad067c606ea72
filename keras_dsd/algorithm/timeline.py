"""Phases and timelines as values: lengths, convergence, learning rates, the current phase."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from keras_dsd.algorithm import criteria, masks, position
from keras_dsd.algorithm.learning_rates import (
    GivenLearningRate,
    LearningRate,
    checked,
    curve,
    describe,
)
from keras_dsd.algorithm.phase_figure import Span, draw
from keras_dsd.algorithm.position import STEPS, Position, Start
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid, invalid_type, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LARGER_IS_BETTER = ("acc", "auc", "f1", "precision", "recall")


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Ends a phase when a monitored quantity has stopped improving.

    Args:
        monitor: Name of the quantity in the logs, such as `"val_loss"`.
        min_delta: Minimum change that counts as an improvement. Defaults to `0.0`.
        patience: Number of epochs without an improvement after which the phase ends. Epochs whose
            logs lack `monitor`, such as those without validation, do not count. Defaults to `3`.
        mode: `"min"` if smaller is better, `"max"` if larger is better; `"auto"` infers it from
            the name. Defaults to `"auto"`.
        restore_best: If `True`, the phase ends with the weights of its best epoch, as returned by
            `get_weights`; optimizer state is kept. The last phase ends with the last epoch of the
            run, not with a `fit` that is shorter than the timeline. Defaults to `False`.

    Raises:
        TypeError: `monitor` is not a str, `restore_best` is not a bool, or a number is of the
            wrong type.
        ValueError: `min_delta` is negative, `patience` below 1, or `mode` unknown.
    """

    monitor: str
    _: dataclasses.KW_ONLY
    min_delta: float = 0.0
    patience: int = 3
    mode: str = "auto"
    restore_best: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.monitor, str):
            hint = "Give a str, such as 'val_loss'."
            raise invalid_type("monitor", self.monitor, "to be a name in the logs", hint)
        checks.flag("restore_best", self.restore_best)
        advice = "Give 'min' for a loss, 'max' for an accuracy."
        checks.choice("mode", self.mode, ("auto", "min", "max"), advice)
        checks.normalise(
            self,
            min_delta=checks.not_negative("min_delta", self.min_delta),
            patience=checks.whole_number("patience", self.patience, least=1),
        )

    def values(self, history: Sequence[Mapping[str, float]]) -> list[float | None]:
        """Returns the values of `monitor` in the logs of a phase's epochs; None where absent."""
        return [logs.get(self.monitor) for logs in history]

    def length(self, values: Sequence[float | None]) -> int | None:
        """Returns the length of a phase in epochs; None if it is not over after these values."""
        best, waited = None, 0
        for index, value in enumerate(values):
            if value is None:
                continue
            waited += 1
            if self._is_better(value, best):
                best, waited = value, 0
            if waited >= self.patience:
                return index + 1
        return None

    def best(self, values: Sequence[float | None]) -> int | None:
        """Returns the index of the best value; None without values."""
        found, best = None, None
        for index, value in enumerate(values):
            if value is not None and self._is_better(value, best):
                found, best = index, value
        return found

    def _is_better(self, value: float, best: float | None) -> bool:
        larger = self.mode == "max" or (self.mode == "auto" and is_larger_better(self.monitor))
        if best is None:
            return value == value  # NaN is never better
        return value > best + self.min_delta if larger else value < best - self.min_delta

    def __str__(self) -> str:
        epochs = "an epoch" if self.patience == 1 else f"{self.patience} epochs"
        return f"until {self.monitor} has not improved for {epochs}"


def is_larger_better(name: str) -> bool:
    """Returns whether larger values of a metric are better, according to its name."""
    return any(part in name.lower() for part in _LARGER_IS_BETTER)


def _check_phase(phase: "DensePhase | SparsePhase") -> None:
    kind = type(phase).__name__
    if (phase.epochs is None) == (phase.steps is None):
        raise TypeError(
            f"Expected either `epochs` or `steps`. Received: epochs={shown(phase.epochs)} and "
            f"steps={shown(phase.steps)}. Write {kind}(10) for epochs, or {kind}(steps=2000)."
        )
    if phase.steps is None:
        epochs = checks.whole_number("epochs", phase.epochs, least=1)
        checks.normalise(phase, epochs=epochs)
    else:
        steps = checks.whole_number("steps", phase.steps, least=1, unit="steps")
        checks.normalise(phase, steps=steps)
    checks.normalise(phase, lr=checked("lr", phase.lr))
    if not isinstance(phase.until, Plateau | None):
        expected = "to be None (the phase lasts its `epochs`) or a Plateau"
        hint = "Give Plateau('val_loss', patience=3), or leave it out."
        raise invalid_type("until", phase.until, expected, hint)
    if phase.until is not None and phase.steps is not None:
        hint = f"Count the phase in epochs, {kind}(10, until=...), or leave out `until`."
        expected = "to be None where a phase is counted in steps, as a Plateau measures epochs"
        raise invalid("until", phase.until, expected, hint, f" and steps={phase.steps}")


@dataclasses.dataclass(frozen=True)
class DensePhase:
    """A phase that trains all weights.

    Args:
        epochs: Length of the phase in epochs; the maximum with `until`. At least 1. Give either
            `epochs` or `steps`.
        steps: Length of the phase in optimizer steps. At least 1.
        lr: Factor of the learning rate in the phase: a number; the name of a shape
            from the phase's start to its end, `"cosine"`, `"linear"` or `"steps"`; a `Decay`, for a
            shape with other values; or a function of the step, such as a Keras
            `LearningRateSchedule`. The function's values are factors too: one that starts at 1.0
            starts at your learning rate. Its step counts optimizer steps from the phase's start.
            Defaults to `1.0`.
        until: A `Plateau` that ends the phase early. Defaults to `None`: it lasts its `epochs`.
        ema: In the last phase, the momentum of moving averages of all trainable weights, as
            `ema_momentum` of Keras's optimizers: from the phase's start, average · ema + weight ·
            (1 - ema) after each step. The run ends with the averages. Defaults to `None`: with the
            weights.
        regrow_fraction: After a sparse phase, the fraction of its pruned weights that regrow, in
            (0, 1]: those with the largest sums of gradients over its last epoch. The others stay
            zero. Defaults to `1.0`.
        regrow_decay: After a sparse phase, weight decay of regrown weights alone, decoupled as that
            of AdamW: before each update, weight · (1 - learning rate · regrow_decay). Defaults to
            `0.0`.

    Raises:
        TypeError: `epochs` or `steps` is not an integer, both or none are given, `lr` is not a
            learning rate, another number is none, or `until` is not a `Plateau`.
        ValueError: `epochs` or `steps` is below 1, `lr` is not finite and above 0, `ema` is outside
            (0, 1), `regrow_fraction` outside (0, 1], `regrow_decay` negative, `until` is given with
            `steps`, or restores the best weights with `ema`.

    Reference:
        Evci et al., 2020, arXiv:1911.11134, for weights that regrow by their gradients.
    """

    epochs: int | None = None
    _: dataclasses.KW_ONLY
    steps: int | None = None
    lr: GivenLearningRate = 1.0
    until: Plateau | None = None
    ema: float | None = None
    regrow_fraction: float = 1.0
    regrow_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_phase(self)
        checks.normalise(
            self,
            regrow_fraction=checks.positive("regrow_fraction", self.regrow_fraction),
            regrow_decay=checks.not_negative("regrow_decay", self.regrow_decay),
        )
        if self.regrow_fraction > 1:
            hint = "Give a fraction, such as 0.5 for half of them."
            raise invalid("regrow_fraction", self.regrow_fraction, "to be in (0, 1]", hint)
        if self.ema is not None:
            self._check_ema()

    def _check_ema(self) -> None:
        ema = checks.positive("ema", self.ema)
        checks.normalise(self, ema=ema)
        if ema >= 1:
            raise invalid("ema", self.ema, "to be below 1", "Give a momentum, such as 0.999.")
        if self.until is not None and self.until.restore_best:
            hint = "Leave one out: the run ends with either."
            note = " with until=Plateau(restore_best=True)"
            raise invalid("ema", ema, "in a phase that restores no best weights", hint, note)

    def __str__(self) -> str:
        part = self.regrow_fraction
        regrown = "" if part == 1.0 else f", {part:.0%} of pruned weights regrow"
        decay = f", regrown weights decay by {self.regrow_decay:g}" if self.regrow_decay else ""
        averaged = "" if self.ema is None else f", averaged by {self.ema:g}"
        return (
            f"dense for {_length(self)}{describe(learning_rate_of(self))}{regrown}{decay}{averaged}"
        )


@dataclasses.dataclass(frozen=True)
class SparsePhase:
    """A phase that prunes weights at its start, by default the smallest, and keeps them at zero.

    Weights that are already zero are the smallest, and equal: if a sparse phase follows one of
    higher sparsity, regrown weights are chosen by index. Put a dense phase between the two.

    Args:
        epochs: Length of the phase in epochs; the maximum with `until`. At least 1. Give either
            `epochs` or `steps`.
        steps: Length of the phase in optimizer steps. At least 1.
        sparsity: Fraction of each selected weight tensor to prune, in [0, 1). Defaults to `None`:
            the sparsity that `apply` set for each weight.
        lr: Factor of the learning rate in the phase: a number; the name of a shape
            from the phase's start to its end, `"cosine"`, `"linear"` or `"steps"`; a `Decay`, for a
            shape with other values; or a function of the step, such as a Keras
            `LearningRateSchedule`. The function's values are factors too: one that starts at 1.0
            starts at your learning rate. Its step counts optimizer steps from the phase's start.
            Defaults to `1.0`.
        until: A `Plateau` that ends the phase early. Defaults to `None`: it lasts its `epochs`.
        criterion: Scores of weights; the lowest are pruned. `"magnitude"`; `"random"`, a control
            for other criteria; `"movement"`, the sum of -gradient · weight over the updates of the
            previous epoch; `"taylor"`, |sum of gradients · weight|; or a function of a
            `PrunableWeight` that returns an array of its shape, equal in every process. Defaults
            to `"magnitude"`.
        seed: Seed of `criterion="random"`, together with the path and the size of each weight.
            Defaults to `0`.
        ramp: Number of epochs, fewer than `epochs`, at whose starts weights are pruned: in epoch
            t = 1, 2, ... of the phase to the sparsity s · (1 - (1 - t / ramp)³), up to its own
            sparsity s. Masks only grow. Defaults to `1`: all weights are pruned at once.

    Raises:
        TypeError: `epochs`, `steps`, `seed` or `ramp` is not an integer, both or none of `epochs`
            and `steps` are given, `lr` is not a learning rate, `sparsity` is not a number, `until`
            is not a `Plateau`, or `criterion` is not callable.
        ValueError: `epochs`, `steps` or `ramp` is below 1, `lr` is not finite and above 0,
            `sparsity` is outside [0, 1), `until` is given with `steps`, `criterion` is unknown,
            `seed` is negative or not used, or a `ramp` is as long as the phase, or given with
            `steps` or `until`.

    Reference:
        Zhu and Gupta, 2017, arXiv:1710.01878, for `ramp`.
    """

    epochs: int | None = None
    _: dataclasses.KW_ONLY
    steps: int | None = None
    sparsity: float | None = None
    lr: GivenLearningRate = 1.0
    until: Plateau | None = None
    criterion: criteria.Criterion = "magnitude"
    seed: int = 0
    ramp: int = 1

    def __post_init__(self) -> None:
        _check_phase(self)
        if self.sparsity is not None:
            checks.normalise(self, sparsity=checks.fraction("sparsity", self.sparsity))
        seed = checks.whole_number("seed", self.seed, least=0, unit="any unit")
        checks.normalise(self, criterion=criteria.check(self.criterion), seed=seed)
        if seed and self.criterion != "random":
            note = f" with criterion={criteria.name_of(self.criterion)!r}"
            hint = "Leave it out, or give criterion='random'."
            raise invalid("seed", seed, "to be used by the criterion", hint, note)
        self._check_ramp()

    def _check_ramp(self) -> None:
        ramp = checks.whole_number("ramp", self.ramp, least=1)
        checks.normalise(self, ramp=ramp)
        if ramp > 1 and self.epochs is None:
            hint = f"Count the phase in epochs: SparsePhase({ramp + 1}, ramp={ramp})."
            raise invalid(
                "ramp", ramp, "in epochs, as the phase", hint, f" with steps={self.steps}"
            )
        if ramp > 1 and self.epochs is not None and ramp >= self.epochs:
            hint = "Train at the full sparsity for an epoch at least: give more epochs."
            note = f" with epochs={self.epochs}"
            raise invalid("ramp", ramp, "to be shorter than the phase", hint, note)
        if ramp > 1 and self.until is not None:
            hint = "Leave one out: a phase with a ramp lasts its epochs."
            note = f" with until={self.until!r}"
            raise invalid("ramp", ramp, "in a phase without `until`, which may end it", hint, note)

    def sparsity_at(self, epoch: int) -> masks.Sparsity:
        """Returns the sparsity in an epoch of the phase, counted from 0."""
        target, share = self.sparsity, self.share_at(epoch)
        if share == 1:
            return target
        return lambda weight: masks.share_of(weight, target) * share

    def share_at(self, epoch: int) -> float:
        """Returns the share of its sparsity that an epoch of the phase has, counted from 0."""
        return 1 - max(1 - (epoch + 1) / self.ramp, 0.0) ** 3

    def __str__(self) -> str:
        share = "" if self.sparsity is None else f" at sparsity {self.sparsity:g}"
        share += f" within {self.ramp} epochs" if self.ramp > 1 else ""
        by = "" if self.criterion == "magnitude" else f" by {criteria.name_of(self.criterion)}"
        seed = f" (seed {self.seed})" if self.criterion == "random" else ""
        return f"sparse for {_length(self)}{share}{by}{seed}{describe(learning_rate_of(self))}"


Phase = DensePhase | SparsePhase


def epochs_of(phases: Iterable[Phase]) -> int:
    """Returns how many epochs phases take together, but for those counted in steps."""
    return sum(phase.epochs or 0 for phase in phases)


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Phases, one after another. Each covers a half-open range [start, end) of epochs or steps.

    A phase counted in steps may end within an epoch; the next one starts with the step after. A
    phase of n epochs ends with the nth epoch that ends in it, so where it starts within an epoch,
    the rest of that epoch is its first.

    Args:
        phases: The phases in order; at least one.

    Raises:
        TypeError: `phases` is not a sequence of phases.
        ValueError: `phases` is empty, a sparse phase with a `ramp` follows a sparse phase, a phase
            before the last one has `ema`, one that follows no sparse phase `regrow_fraction` or
            `regrow_decay`, or one that needs gradients follows none in epochs.
    """

    phases: tuple[Phase, ...]

    def __init__(self, phases: Sequence[Phase]) -> None:
        hint = (
            "Give a list, such as [DensePhase(10), SparsePhase(10), DensePhase(10, lr=0.1)], or "
            "the `phases` of a preset."
        )
        expected = "to be a list of DensePhase and SparsePhase"
        phases = checks.listed("phases", phases, expected, hint)
        each = "to be a DensePhase or a SparsePhase"
        way = "Write SparsePhase(epochs) or DensePhase(epochs)."
        checks.check_items("phases", phases, Phase, each, way)
        if not phases:
            raise invalid("phases", phases, "to hold at least one phase", hint)
        for index, phase in enumerate(phases):
            _check_neighbours(phase, phases[:index], index + 1 == len(phases))
        object.__setattr__(self, "phases", tuple(phases))

    @property
    def epochs(self) -> int:
        """Total number of epochs of all phases, except those counted in steps."""
        return epochs_of(self.phases)

    @property
    def steps(self) -> int:
        """Total number of steps of the phases that are counted in steps."""
        return sum(phase.steps or 0 for phase in self.phases)

    @property
    def counts_steps(self) -> bool:
        """True if any phase is counted in steps."""
        return self.steps > 0

    @property
    def mixes_units(self) -> bool:
        """True if a phase is counted in steps, and another before the last one in epochs."""
        return self.counts_steps and epochs_of(self.phases[:-1]) > 0

    @property
    def needs_steps(self) -> bool:
        """True if a run needs its number of steps before each batch.

        With step state, it tells a checkpoint that was taken within an epoch.
        """
        return self.counts_steps or self.changes_learning_rate or self.has_step_state

    @property
    def changes_learning_rate(self) -> bool:
        """True if the learning rate changes inside a phase."""
        return not all(isinstance(phase.lr, float) for phase in self.phases)

    @property
    def has_step_state(self) -> bool:
        """True if steps of a phase keep something of weights: averages, sums, regrown weights."""
        return any(
            sums_for(phase) is not None
            or (isinstance(phase, DensePhase) and (phase.ema is not None or phase.regrow_decay > 0))
            for phase in self.phases
        )

    @property
    def monitors(self) -> tuple[str, ...]:
        """Names of the monitored quantities, without duplicates."""
        return tuple(dict.fromkeys(p.until.monitor for p in self.phases if p.until is not None))

    def is_sparse(self, index: int) -> bool:
        """Returns whether a phase of this index exists and is sparse."""
        return 0 <= index < len(self.phases) and isinstance(self.phases[index], SparsePhase)

    def is_redense(self, index: int) -> bool:
        """Returns whether a phase of this index exists and is dense after a sparse one."""
        return 0 < index < len(self.phases) and self.is_sparse(index - 1) > self.is_sparse(index)

    def kind(self, index: int) -> str:
        """Returns the kind of a phase: `"dense"`, `"sparse"` or, after one, `"re-dense"`."""
        if self.is_sparse(index):
            return "sparse"
        return "re-dense" if self.is_redense(index) else "dense"

    def starts(self, history: Sequence[Mapping[str, float]], step: int | None = None) -> list[int]:
        """Returns the first epochs, counted from 0, of the phases started so far.

        Without phases counted in steps, the last of them is the phase of epoch `len(history)`.
        Epochs past the end belong to the last phase. The same arguments always give the same
        phases, so a run can resume from them.

        Args:
            history: The values of `monitors` at each epoch and, where steps are counted, as in the
                logs, `dsd_steps`.
            step: How many steps the run has made; phases that start with a later step have not
                started. Defaults to `None`: those made by the end of the last epoch.
        """
        return [start.epoch for start in self.points(history, step)]

    def points(
        self, history: Sequence[Mapping[str, float]], step: int | None = None
    ) -> list[Start]:
        """Returns the epochs and steps at which the phases started so far start."""
        if step is None:
            step = int(history[-1].get(STEPS, 0)) if history else 0
        return position.starts_of(self.phases, history, step)

    def points_at_end(self, history: Sequence[Mapping[str, float]], epoch: int) -> list[Start]:
        """Returns where the phases start that have started as an epoch of `history` ends."""
        return position.starts_at_end(self.phases, history, epoch)

    def position(
        self,
        index: int,
        start: Start,
        history: Sequence[Mapping[str, float]],
        step: int,
        per_epoch: int | None,
    ) -> Position:
        """Returns where in a phase a run is.

        Args:
            index: Index of the phase.
            start: Where it starts.
            history: Of each epoch that has ended.
            step: How many steps the run has made.
            per_epoch: How many each epoch makes; None: as many as the last one made.
        """
        return position.position_in(self.phases[index], index, start, history, step, per_epoch)

    def end_step(self, index: int, start: Start) -> int | None:
        """Returns the step that ends a phase, of the run; None where it is counted in epochs."""
        steps = self.phases[index].steps
        return None if steps is None else start.step + steps

    def is_over(
        self,
        history: Sequence[Mapping[str, float]],
        remaining_epochs: str,
        step: int | None = None,
    ) -> bool:
        """Returns whether nothing is left to train after the epochs in `history` and `step`.

        With `remaining_epochs="stop"` the last phase ends with its `epochs` or `steps`; with
        `"redense"` it also has those that other phases did not use. What ends it early counts in
        any case.
        """
        points = self.points(history, step)
        if len(points) < len(self.phases):
            return False
        epochs = history[points[-1].epoch :]
        if position.converged(self.phases[-1], epochs) is not None:
            return True
        return remaining_epochs == "stop" and self.is_complete(history, step)

    def is_complete(self, history: Sequence[Mapping[str, float]], step: int | None = None) -> bool:
        """Returns whether every phase has had its length, in epochs or in steps."""
        points = self.points(history, step)
        last, start = self.phases[-1], points[-1]
        if len(points) < len(self.phases):
            return False
        if last.steps is not None:
            made = int(history[-1].get(STEPS, 0)) if step is None and history else step or 0
            return made >= start.step + last.steps
        return position.length_in_epochs(last, history[start.epoch :]) is not None

    def plot(self, steps_per_epoch: int | None = None) -> "Figure":
        """Returns a figure: the phases over epochs or steps, and factors of the learning rate.

        A function of the step is drawn where the steps of its phase are known. Where sparsity rises
        by a `ramp`, a second panel shows its share of the target. Phases that `until` may end early
        are drawn at their maximum length. The figure belongs to no window;
        `figure.savefig("timeline.png")` writes it.

        Args:
            steps_per_epoch: Number of steps of an epoch; needed where some phases are counted in
                epochs and others in steps, which the figure then shows. Defaults to `None`.

        Raises:
            ImportError: matplotlib is not installed.
            TypeError: `steps_per_epoch` is not an integer.
            ValueError: It is below 1, or needed and not given.
        """
        lengths = self._lengths(steps_per_epoch)
        spans = [
            self._span(index, length, steps_per_epoch or 0) for index, length in enumerate(lengths)
        ]
        return draw(spans, "step" if self.counts_steps else "epoch")

    def _span(self, index: int, length: int, steps_per_epoch: int) -> Span:
        """Returns a phase as the figure shows it."""
        phase, kind = self.phases[index], self.kind(index)
        steps = phase.steps or (phase.epochs or 0) * steps_per_epoch
        shares = [0.0]
        if isinstance(phase, SparsePhase):
            shares = [phase.share_at(epoch) for epoch in range(phase.epochs or 1)]
        curves = curve(learning_rate_of(phase), steps)
        return Span(length, kind, _title(phase, kind), *curves, shares)

    def _lengths(self, steps_per_epoch: int | None) -> list[int]:
        """Returns the lengths of the phases: in steps where any is counted in steps."""
        if steps_per_epoch is not None:
            checks.whole_number("steps_per_epoch", steps_per_epoch, least=1, unit="steps")
        elif self.counts_steps and self.epochs:
            expected = "to be given, as some phases are counted in epochs and others in steps"
            hint = "Give the number of steps of an epoch."
            raise invalid("steps_per_epoch", steps_per_epoch, expected, hint)
        per_epoch = (steps_per_epoch or 1) if self.counts_steps else 1
        return [phase.steps or (phase.epochs or 0) * per_epoch for phase in self.phases]

    def __str__(self) -> str:
        return ", then ".join(str(phase) for phase in self.phases)


def sums_for(phase: Phase) -> str | None:
    """Returns what is summed over the epoch before a phase prunes or regrows weights by it."""
    if isinstance(phase, SparsePhase):
        return criteria.SUMS.get(phase.criterion) if isinstance(phase.criterion, str) else None
    return "gradient" if phase.regrow_fraction < 1 else None


def _check_neighbours(phase: Phase, earlier: Sequence[Phase], is_last: bool) -> None:
    """Checks what a phase requires of those around it."""
    before = earlier[-1] if earlier else None
    after = f" after {before}" if before else " in the first phase"
    follows_sparse = isinstance(before, SparsePhase)
    if isinstance(phase, SparsePhase) and phase.ramp > 1 and follows_sparse:
        hint = "Put a DensePhase between the two, or prune at once."
        expected = "to rise from no sparsity, after a DensePhase or at the start"
        raise invalid("ramp", phase.ramp, expected, hint, after)
    if isinstance(phase, DensePhase):
        if phase.ema is not None and not is_last:
            hint = "Give it in the last phase alone: the run ends with the averages."
            raise invalid("ema", phase.ema, "in the last phase", hint, f" in a phase {phase}")
        for name, default in (("regrow_fraction", 1.0), ("regrow_decay", 0.0)):
            if getattr(phase, name) != default and not follows_sparse:
                hint = "Leave it out, or put a SparsePhase before."
                given = getattr(phase, name)
                raise invalid(name, given, "in a phase after a SparsePhase", hint, after)
    if sums_for(phase) is not None and (before is None or before.epochs is None):
        name = "criterion" if isinstance(phase, SparsePhase) else "regrow_fraction"
        hint = "Count the phase before in epochs: its last one sums gradients."
        if before is None:
            hint = "Put a DensePhase before, counted in epochs: its last one sums gradients."
        expected = "to follow a phase that is counted in epochs"
        raise invalid(name, getattr(phase, name), expected, hint, after)


def _title(phase: Phase, kind: str) -> str:
    until = "" if phase.until is None else f"\nuntil {phase.until.monitor}"
    sparsity = getattr(phase, "sparsity", None)
    return (kind if sparsity is None else f"{kind} {sparsity:.0%}") + until


def length_text(phase: Phase) -> str:
    """Returns the length of a phase as text, such as `"at most 10 epochs"`."""
    number, unit = phase.steps or phase.epochs, "epoch" if phase.steps is None else "step"
    length = f"{number} {unit}" if number == 1 else f"{number} {unit}s"
    return length if phase.until is None else f"at most {length}"


def _length(phase: Phase) -> str:
    length = length_text(phase)
    return length if phase.until is None else f"{length} ({phase.until})"


def learning_rate_of(phase: Phase) -> LearningRate:
    """Returns the learning rate of a phase, as `checked` returned it."""
    return cast("LearningRate", phase.lr)
