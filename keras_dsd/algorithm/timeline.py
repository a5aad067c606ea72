"""Timelines as values: phases in a row, and the phase of an epoch or a step."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_dsd.algorithm import position
from keras_dsd.algorithm.learning_rates import curve
from keras_dsd.algorithm.phase_figure import Span, draw
from keras_dsd.algorithm.phases import (
    DensePhase,
    Phase,
    SparsePhase,
    epochs_of,
    learning_rate_of,
    steps_of,
    sums_for,
)
from keras_dsd.algorithm.position import STEPS, Position, Start
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        steps = steps_of(phase, steps_per_epoch)
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
        return [steps_of(phase, per_epoch) for phase in self.phases]

    def __str__(self) -> str:
        return ", then ".join(str(phase) for phase in self.phases)


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
