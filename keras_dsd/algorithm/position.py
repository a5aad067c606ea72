"""Where in its phases a run is, derived from the epochs and optimizer steps that it has made."""

import bisect
import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

# In the history and the logs of an epoch: the steps that the run has made by its end.
STEPS = "dsd_steps"


class Until(Protocol):
    """Ends a phase by what its epochs measured, as a `Plateau` does."""

    def values(self, history: Sequence[Mapping[str, float]]) -> list[float | None]:
        """Returns the values of the monitored quantity at epochs."""

    def length(self, values: Sequence[float | None]) -> int | None:
        """Returns how many epochs the phase lasts; None where it is not over."""


class Length(Protocol):
    """The length of a phase: in epochs, and at most so many with `until`, or in steps."""

    @property
    def epochs(self) -> int | None:
        """How many epochs the phase lasts; None where it is counted in steps."""

    @property
    def steps(self) -> int | None:
        """How many optimizer steps the phase lasts; None where it is counted in epochs."""

    @property
    def until(self) -> Until | None:
        """What ends the phase early."""


class Start(NamedTuple):
    """Where a phase starts.

    Attributes:
        epoch: The epoch that it starts with or within, counted from 0.
        step: Number of steps that the run makes before; 0 where nothing counts them.
    """

    epoch: int
    step: int


FIRST = Start(0, 0)


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a run is, between two steps.

    Attributes:
        index: Index of the phase.
        step: Number of steps that the phase has made.
        num_steps: Number of steps that it takes, at most where `until` may end it early; None where
            it is counted in epochs and their number of steps is not known yet.
    """

    index: int
    step: int
    num_steps: int | None


def starts_of(
    phases: Sequence[Length], history: Sequence[Mapping[str, float]], step: int
) -> list[Start]:
    """Returns where the phases start that have started before a run makes the step number `step`.

    Args:
        phases: The lengths of the phases.
        history: Of each epoch that has ended, the monitored values and, where steps are counted,
            `STEPS`.
        step: Number of steps that the run has made.
    """
    ends = _ends(history)
    starts = [FIRST]
    for phase in phases[:-1]:
        end = _end(phase, starts[-1], history, ends, step)
        if end is None:
            break
        starts.append(end)
    return starts


def starts_at_end(
    phases: Sequence[Length], history: Sequence[Mapping[str, float]], epoch: int
) -> list[Start]:
    """Returns where the phases start that have started as an epoch of `history` ends.

    The last one is the phase of its last step: the next one starts with the step after.
    """
    ends = _ends(history)
    first = ends[epoch - 1] if epoch else 0
    return starts_of(phases, history[:epoch], max(ends[epoch] - 1, first))


def position_in(
    phase: Length,
    index: int,
    start: Start,
    history: Sequence[Mapping[str, float]],
    step: int,
    per_epoch: int | None,
) -> Position:
    """Returns where in a phase a run is; arguments as of `Timeline.position`."""
    num_steps = phase.steps
    if phase.epochs is not None:
        first, *ends = 0, *_ends(history)
        if per_epoch is None and ends:
            per_epoch = ends[-1] - [first, *ends][-2]
        if per_epoch:
            # An epoch that has ended, or a phase that starts within one, may be shorter.
            before = ends[-1] if ends else first
            left = start.epoch + phase.epochs - len(history)
            num_steps = before + left * per_epoch - start.step
    return Position(index, step - start.step, num_steps)


def length_in_epochs(phase: Length, history: Sequence[Mapping[str, float]]) -> int | None:
    """Returns the length of a phase in epochs that has those in `history`; None: not over."""
    length, most = converged(phase, history), phase.epochs
    if most is None:
        return None
    if length is not None:
        return min(length, most)
    return most if len(history) >= most else None


def converged(phase: Length, history: Sequence[Mapping[str, float]]) -> int | None:
    """Returns after how many of the epochs in `history` a phase had converged, or None."""
    return None if phase.until is None else phase.until.length(phase.until.values(history))


def _ends(history: Sequence[Mapping[str, float]]) -> list[int]:
    return [int(epoch.get(STEPS, 0)) for epoch in history]


def _end(
    phase: Length, start: Start, history: Sequence[Mapping[str, float]], ends: list[int], step: int
) -> Start | None:
    """Returns where the phase after `phase` starts, or None: it has not."""
    if phase.steps is not None:
        end = start.step + phase.steps
        # The step after the last one of an epoch is the next epoch's first.
        return Start(max(start.epoch, bisect.bisect_right(ends, end)), end) if step >= end else None
    length = length_in_epochs(phase, history[start.epoch :])
    if length is None:
        return None
    epoch = start.epoch + length
    return Start(epoch, ends[epoch - 1])
