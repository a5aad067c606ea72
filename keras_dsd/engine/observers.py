"""What a run tells whoever watches it: when a phase begins, what weights are around its ends."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from keras_dsd.algorithm.timeline import Phase, Timeline
from keras_dsd.protocols import PrunableWeight
from keras_dsd.utils import checks
from keras_dsd.utils.checks import shown

BEFORE_PRUNING = "before pruning"
AFTER_PRUNING = "after pruning"
END_OF_SPARSE = "end of sparse"
FIRST_REDENSE_EPOCH = "first re-dense epoch"
LAST_REDENSE_EPOCH = "last re-dense epoch"
# As they follow each other around a sparse phase.
MOMENTS = (
    BEFORE_PRUNING, AFTER_PRUNING, END_OF_SPARSE, FIRST_REDENSE_EPOCH, LAST_REDENSE_EPOCH,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment around a boundary between phases.

    Attributes:
        name: `"before pruning"`, `"after pruning"`, `"end of sparse"` (masks are still in force),
            `"first re-dense epoch"` (its end) or `"last re-dense epoch"` (likewise).
        epoch: How many epochs had been trained.
        phase: Index of the sparse phase that begins or ends, or of the dense phase after it.
    """

    name: str
    epoch: int
    phase: int


class Observer:
    """What `DSDSchedule(observers=[...])` takes: each method is called as a run goes on.

    These do nothing; a subclass has those it needs. None may change a weight. After an exception
    inside `fit`, `on_end` is not called.
    """

    def __getattr__(self, name: str) -> Any:
        where = ""
        if name.startswith(("on_", "set_", "_implements_")):  # Keras asks a callback for these
            where = ". It is no callback: give it to DSDSchedule(..., observers=[...]), not to fit"
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{where}.")

    def on_begin(self, timeline: Timeline) -> None:
        """A run begins, or goes on."""

    def on_phase(self, index: int, phase: Phase, epoch: int, changed: str) -> None:
        """A phase begins, or a run goes on within it.

        Args:
            index: Of the phase, from 0.
            phase: What it is.
            epoch: The epoch that is about to begin, counted from 0.
            changed: What changed with it, in words.
        """

    def on_moment(self, moment: Moment, weights: Sequence[PrunableWeight]) -> None:
        """Weights are at a moment around a boundary.

        A run that goes on is told of the moments that it comes to, and not again of earlier ones.
        """

    def on_epoch_end(
        self, epoch: int, logs: Mapping[str, Any], weights: Sequence[PrunableWeight]
    ) -> None:
        """An epoch is over.

        Args:
            epoch: Counted from 0.
            logs: What it measured, with `dsd_phase` and `dsd_sparsity`.
            weights: What DSD prunes.
        """

    def on_end(self) -> None:
        """The run is over."""


class Watched(Protocol):
    """What has the weights that observers are shown."""

    @property
    def weights(self) -> Sequence[PrunableWeight]:
        """What DSD prunes."""


class Audience:
    """All observers of a run. Weights are looked up only where there is one.

    Args:
        observers: Told in this order.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def begin(self, timeline: Timeline) -> None:
        """Tells that a run begins."""
        for each in self._observers:
            each.on_begin(timeline)

    def phase(self, index: int, phase: Phase, epoch: int, changed: str) -> None:
        """Tells that a phase begins."""
        for each in self._observers:
            each.on_phase(index, phase, epoch, changed)

    def moment(self, moment: Moment, watched: Watched) -> None:
        """Shows the weights at a moment."""
        for each in self._observers:
            each.on_moment(moment, watched.weights)

    def epoch_end(self, epoch: int, logs: Mapping[str, Any], watched: Watched) -> None:
        """Tells that an epoch is over."""
        for each in self._observers:
            each.on_epoch_end(epoch, logs, watched.weights)

    def end(self) -> None:
        """Tells that the run is over."""
        for each in self._observers:
            each.on_end()


def check_observers(observers: Any) -> tuple[Observer, ...]:
    """Checks what `DSDSchedule` was given.

    Raises:
        TypeError: `observers` is no list, or an item is no `Observer`.
    """
    if isinstance(observers, str | bytes) or not isinstance(observers, Sequence):
        raise TypeError(
            f"Expected `observers` to be a list. Received: observers={shown(observers)} of type "
            f"{type(observers).__name__}. Write observers=[dsd.WeightHistory()]."
        )
    given = checks.items("observers", observers)
    for index, each in enumerate(given):
        if not isinstance(each, Observer):
            raise TypeError(
                f"Expected every item of `observers` to be an Observer, such as WeightHistory() "
                f"or DSDTensorBoard(log_dir). Received: observers[{index}]={shown(each)} of type "
                f"{type(each).__name__}. Give callbacks of Keras to fit."
            )
    return tuple(given)
