"""Position of a run in its phases, derived from its epochs and optimizer steps."""

import bisect
import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

# Name in the history and the logs of an epoch: number of steps of the run by its end.
STEPS = "dsd_steps"


class Until(Protocol):
    """Ends a phase by monitored values, such as a `Plateau`."""

    def values(self, history: Sequence[Mapping[str, float]]) -> list[float | None]:
        """Returns the values of the monitored quantity at epochs."""

    def length(self, values: Sequence[float | None]) -> int | None:
        """Returns the number of epochs of the phase; None if it is not over."""


class Length(Protocol):
    """Length of a phase: in epochs, an upper bound with `until`, or in steps."""

    @property
    def epochs(self) -> int | None:
        """Number of epochs of the phase; None if it is counted in steps."""

    @property
    def steps(self) -> int | None:
        """Number of optimizer steps of the phase; None if it is counted in epochs."""

    @property
    def until(self) -> Until | None:
        """Condition that ends the phase early, or None."""


class Start(NamedTuple):
    """Start of a phase.

    Attributes:
        epoch: The epoch at or within which it starts, counted from 0.
        step: Number of steps of the run before it; 0 if they are not counted.
    """

    epoch: int
    step: int


FIRST = Start(0, 0)


@dataclasses.dataclass(frozen=True)
class Position:
    """Position of a run between two steps.

    Attributes:
        index: Index of the phase.
        step: Number of steps of the phase so far.
        num_steps: Number of steps of the phase, an upper bound if `until` may end it early; None if
            it is counted in epochs of unknown length.
    """

    index: int
    step: int
    num_steps: int | None


def starts_of(
    phases: Sequence[Length], history: Sequence[Mapping[str, float]], step: int
) -> list[Start]:
    """Returns the starts of the phases that have started before step number `step` of a run.

    Args:
        phases: The lengths of the phases.
        history: The monitored values of each finished epoch and, if steps are counted, `STEPS`.
        step: Number of steps of the run so far.
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
    """Returns the starts of the phases that have started by the end of an epoch of `history`.

    The last one is the phase of its last step; the next phase starts with the next step.
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
    """Returns the position of a run in its phase; see `Timeline.position`."""
    num_steps = phase.steps
    if phase.epochs is not None:
        first, *ends = 0, *_ends(history)
        if per_epoch is None and ends:
            per_epoch = ends[-1] - [first, *ends][-2]
        if per_epoch:
            # A finished epoch, or a phase that starts within one, may be shorter.
            before = ends[-1] if ends else first
            left = start.epoch + phase.epochs - len(history)
            num_steps = before + left * per_epoch - start.step
    return Position(index, step - start.step, num_steps)


def length_in_epochs(phase: Length, history: Sequence[Mapping[str, float]]) -> int | None:
    """Returns the length in epochs of a phase with those in `history`; None if not over."""
    length, most = converged(phase, history), phase.epochs
    if most is None:
        return None
    if length is not None:
        return min(length, most)
    return most if len(history) >= most else None


def converged(phase: Length, history: Sequence[Mapping[str, float]]) -> int | None:
    """Returns the number of epochs in `history` until a phase converged, or None."""
    return None if phase.until is None else phase.until.length(phase.until.values(history))


def _ends(history: Sequence[Mapping[str, float]]) -> list[int]:
    return [int(epoch.get(STEPS, 0)) for epoch in history]


def _end(
    phase: Length, start: Start, history: Sequence[Mapping[str, float]], ends: list[int], step: int
) -> Start | None:
    """Returns the start of the phase after `phase`, or None if it has not started."""
    if phase.steps is not None:
        end = start.step + phase.steps
        # The step after the last one of an epoch is the first of the next epoch.
        return Start(max(start.epoch, bisect.bisect_right(ends, end)), end) if step >= end else None
    length = length_in_epochs(phase, history[start.epoch :])
    if length is None:
        return None
    epoch = start.epoch + length
    return Start(epoch, ends[epoch - 1])
