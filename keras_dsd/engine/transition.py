"""A phase change: as a value that can be read before it is applied, and its effect on weights."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from keras_dsd.algorithm import masks
from keras_dsd.algorithm.timeline import Phase, SparsePhase, Timeline
from keras_dsd.engine import observers
from keras_dsd.engine.batch_norm import Batches
from keras_dsd.engine.observers import Moment
from keras_dsd.engine.run_history import RunHistory
from keras_dsd.protocols import PrunableWeight
from keras_dsd.utils.warn import warn


@dataclasses.dataclass(frozen=True)
class Transition:
    """All that changes as a run enters a phase, in the order of the attributes.

    Attributes:
        index: Index of the phase.
        phase: The phase. Entering a sparse one prunes weights, entering a dense one removes masks.
        epoch: The epoch that is about to start, counted from 0.
        is_start: Whether it is the first one of the phase; otherwise the run resumes within it.
        warnings: Messages to the user.
        restored_epoch: The epoch whose weights, the best of the phase that ends, are restored
            first; None: weights stay as they are.
        lost_masks_of: The sparse phase that ends, where a run resumes right after it from a file
            that may hold its zeros but not its masks; these are applied again.
        checked_for: The sparse phase that a run resumes within: weights have to fit it, or dense.
        moments_before: Moments that observers are notified of before weights change.
        reset: Optimizer state to reset for pruned or regrown weights, as `DSDSchedule` has it.
        batches: Batches to estimate BatchNormalization statistics from afterwards, or None.
        moments_after: Moments that observers are notified of after that.
    """

    index: int
    phase: Phase
    epoch: int
    is_start: bool
    warnings: tuple[str, ...] = ()
    restored_epoch: int | None = None
    lost_masks_of: SparsePhase | None = None
    checked_for: SparsePhase | None = None
    moments_before: tuple[Moment, ...] = ()
    reset: str = "pruned"
    batches: Batches | None = None
    moments_after: tuple[Moment, ...] = ()


def transition_to(
    epoch: int,
    timeline: Timeline,
    history: RunHistory,
    current: int | None,
    *,
    reset: str,
    batches: Batches | None,
) -> Transition | None:
    """Returns the phase change at the start of an epoch, or None within a phase.

    `history` is of the epochs before. `current` is the index of the phase that the run is in, None
    where it starts or resumes.
    """
    starts = history.phase_starts
    index = len(starts) - 1
    if index == current:
        return None
    phase, previous = timeline.phases[index], index - 1
    is_start, is_resumed = epoch == starts[-1], current is None
    sparse = phase if isinstance(phase, SparsePhase) else None
    ended = timeline.phases[previous] if is_start and index > 0 else None
    ended_sparse = ended if isinstance(ended, SparsePhase) else None
    prunes = is_start and sparse is not None
    unmeasured = history.unmeasured(previous, starts[-2], epoch) if ended else None
    moments = [
        (observers.LAST_REDENSE_EPOCH, previous, prunes and timeline.is_redense(previous)),
        (observers.BEFORE_PRUNING, index, prunes),
        (observers.END_OF_SPARSE, previous, ended_sparse is not None and sparse is None),
    ]
    return Transition(
        index=index,
        phase=phase,
        epoch=epoch,
        is_start=is_start,
        warnings=(unmeasured,) if unmeasured else (),
        restored_epoch=history.epoch_to_restore() if ended else None,
        lost_masks_of=ended_sparse if is_resumed else None,
        checked_for=sparse if is_resumed and not is_start else None,
        moments_before=tuple(Moment(name, epoch, of) for name, of, is_due in moments if is_due),
        reset=reset,
        batches=batches if prunes else None,
        moments_after=(Moment(observers.AFTER_PRUNING, epoch, index),) if prunes else (),
    )


@dataclasses.dataclass(frozen=True)
class WeightChange:
    """Effect of a phase change on the weights: in words, and as `RunState` keeps it."""

    description: str
    num_pruned: int = 0
    regrown: tuple[tuple[PrunableWeight, np.ndarray], ...] = ()


class OptimizerReset:
    """Resets optimizer state of weights that are pruned or regrown, and counts these."""

    def __init__(self, reset: str) -> None:
        self._reset = reset
        self._num_weights = 0

    def reset_entries(self, weight: PrunableWeight, entries: np.ndarray) -> None:
        """Resets the state of `weight` where the boolean array `entries` is True."""
        if self._reset == "none":
            weight.reset_averages(entries)
        else:
            weight.reset_slots(entries)
        self._num_weights += int(np.count_nonzero(entries))

    @property
    def includes_all(self) -> bool:
        """Whether the state of all other weights is to be reset too."""
        return self._reset == "all" and self._num_weights > 0

    @property
    def description(self) -> str:
        """What happened to the state, for the log message; empty where nothing did."""
        if not self._num_weights:
            return ""
        if self._reset == "none":
            return "optimizer slots are kept"
        whose = "all" if self._reset == "all" else f"{self._num_weights:,}"
        return f"optimizer slots of {whose} weights begin anew"


def prune(
    weights: Sequence[PrunableWeight],
    sparsity: float | None,
    reset: OptimizerReset,
    advance: Callable[[str], None],
) -> WeightChange:
    """Applies the masks of a sparse phase, and calls `advance` with the path of each weight.

    Raises:
        ValueError: There are no weights, or one holds NaN or infinity; nothing was changed.
    """
    started = time.perf_counter()
    if not weights:
        raise ValueError(
            "Expected trainable weights to prune when a sparse phase begins. Received: a model "
            "that has not been built. Call model.build(input_shape), or the model on one batch, "
            "before fit."
        )
    num_pruned = 0
    for weight, mask in masks.masks_for(weights, sparsity):
        num_pruned += _apply_mask(weight, mask, reset)
        advance(weight.path)
    size = sum(int(np.prod(weight.shape)) for weight in weights)
    description = (
        f"pruned {num_pruned:,} of {size:,} weights in {len(weights)} tensors, "
        f"masks took {time.perf_counter() - started:.3f} s"
    )
    return WeightChange(description, num_pruned)


def refuse_frozen(name: str, frozen: Sequence[str]) -> None:
    """Refuses a sparse phase for which all that was selected is frozen, if anything is."""
    if frozen:
        shown = ", ".join(map(repr, frozen[:3])) + (", ..." if len(frozen) > 3 else "")
        raise ValueError(
            f"Expected trainable weights to prune when a sparse phase begins. Received: "
            f"model={name!r}, in which all that was selected is frozen: {shown}. Set trainable = "
            f"True on the model, or on these layers, before the phase begins. A discriminator that "
            f"is frozen for the combined model of a GAN: set discriminator.trainable = True before "
            f"each epoch of its own, and False before each of the combined model."
        )


def remove_masks(weights: Sequence[PrunableWeight], reset: OptimizerReset) -> WeightChange:
    """Removes all masks: pruned weights regrow from zero.

    Raises:
        ValueError: A masked weight holds NaN or infinity; nothing was changed.
    """
    masked = [weight for weight in weights if weight.mask is not None]
    for weight in masked:
        masks.check_finite(weight.numpy(), weight.path)
    regrown, num_regrown = [], 0
    for weight in masked:
        mask = np.asarray(weight.mask)
        reset.reset_entries(weight, ~mask)
        weight.remove_mask()
        num_regrown += masks.num_zeros(mask, None)
        if not mask.all():
            regrown.append((weight, masks.sample_pruned(mask)))
    description = f"{num_regrown:,} weights return from zero" if masked else "all weights train"
    return WeightChange(description, regrown=tuple(regrown))


def apply_lost_masks(weights: Sequence[PrunableWeight], phase: SparsePhase) -> None:
    """Applies the masks of a phase to weights that are zero where it prunes and have no mask.

    Without them these weights would regrow with optimizer state that an uninterrupted run resets.
    """
    for weight, mask in masks.masks_for(weights, phase.sparsity):
        if weight.mask is None and not weight.numpy()[~mask].any():
            weight.apply_mask(mask)


def check_resumed(weights: Sequence[PrunableWeight], phase: SparsePhase) -> None:
    """Checks the weights of a run that resumes within `phase`; changes nothing.

    Raises:
        ValueError: They were pruned at another sparsity.
    """
    num_unknown = masks.check_pruned_alike(weights, phase.sparsity)
    if num_unknown:
        warn(
            f"A sparse phase goes on with {num_unknown} more zeros than its masks prune, and "
            f"the file has no masks: of equal weights, those that come first stay pruned. "
            f"The others train. Was its sparsity higher, or have kept weights underflowed?"
        )


def _apply_mask(weight: PrunableWeight, mask: np.ndarray, reset: OptimizerReset) -> int:
    """Applies a mask unless it is active, and returns how many weights it prunes."""
    values, before = weight.numpy(), weight.mask
    if before is None or not np.array_equal(before, mask):
        regrown = np.zeros(mask.shape, bool) if before is None else mask & ~before
        weight.apply_mask(mask)
        if values[~mask].any() or regrown.any():
            weight.assign(np.where(mask, values, np.zeros((), values.dtype)))
            reset.reset_entries(weight, ~mask | regrown)
    return int(np.count_nonzero(~mask))
