"""Observers of a run: notified of phases, of weights around phase changes, and of epochs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NoReturn

from keras_dsd.algorithm.phases import Phase
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.protocols import PrunableWeight
from keras_dsd.utils import checks

BEFORE_PRUNING = "before pruning"
AFTER_PRUNING = "after pruning"
END_OF_SPARSE = "end of sparse"
FIRST_REDENSE_EPOCH = "first re-dense epoch"
LAST_REDENSE_EPOCH = "last re-dense epoch"
# In their order around a sparse phase.
MOMENTS = (
    BEFORE_PRUNING, AFTER_PRUNING, END_OF_SPARSE, FIRST_REDENSE_EPOCH, LAST_REDENSE_EPOCH,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment around a phase change.

    Attributes:
        name: `"before pruning"`, `"after pruning"`, `"end of sparse"` (masks are still active),
            `"first re-dense epoch"` (its end) or `"last re-dense epoch"` (its end).
        epoch: Number of epochs trained so far.
        phase: Index of the sparse phase that starts or ends, or of the dense phase after it.
    """

    name: str
    epoch: int
    phase: int


class Observer:
    """Base class of the items of `DSDSchedule(observers=[...])`.

    Its methods do nothing; a subclass overrides those it needs. No method may change a weight.
    After an exception inside `fit`, `on_end` is not called.

    Several processes that train one model are all given the same observers, and all of them are
    notified: to measure a weight with parts on devices of several processes takes all of these. One
    of them writes.

    Attributes:
        is_chief: Whether this process is the one that writes files, figures or logs. Set when a run
            starts. Defaults to `True`.
    """

    is_chief: bool = True

    def __getattr__(self, name: str) -> NoReturn:
        where = ""
        if name.startswith(("on_", "set_", "_implements_")):  # Keras asks a callback for these
            where = (
                ". It is not a callback: pass it to DSDSchedule(..., observers=[...]), not to fit"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{where}.")

    def on_begin(self, timeline: Timeline) -> None:
        """Called when a run starts or resumes."""

    def on_phase(self, index: int, phase: Phase, epoch: int, changed: str) -> None:
        """Called when a phase starts, or a run resumes within it.

        Args:
            index: Index of the phase, from 0.
            phase: The phase.
            epoch: The epoch that is about to start or, within one, that one; counted from 0.
            changed: Description of the changes that come with it.
        """

    def on_moment(self, moment: Moment, weights: Sequence[PrunableWeight]) -> None:
        """Called at a moment around a phase change.

        A resumed run notifies of the moments that it reaches, and not of earlier ones.
        """

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, float], weights: Sequence[PrunableWeight]
    ) -> None:
        """Called at the end of an epoch.

        Args:
            epoch: The epoch, counted from 0.
            logs: Its logs, including those that `DSDSchedule` adds.
            weights: The weights that DSD prunes.
        """

    def on_end(self) -> None:
        """Called at the end of the run."""


def check_observers(observers: object) -> tuple[Observer, ...]:
    """Returns the checked argument `observers` of `DSDSchedule` as a tuple.

    Raises:
        TypeError: `observers` is not a list, or an item is not an `Observer`.
    """
    hint = "Write observers=[dsd.WeightHistory()]."
    given = checks.listed("observers", observers, "to be a list", hint)
    expected = "to be an Observer, such as WeightHistory() or DSDTensorBoard(log_dir)"
    checks.check_items("observers", given, Observer, expected, "Pass Keras callbacks to fit.")
    return tuple(given)
