"""A phase change: as a value that can be read before it is applied, and its effect on weights."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

from keras_dsd.algorithm.device_masks import (
    Measured,
    check_finite,
    check_pruned_alike,
    masks_for,
    measure,
)
from keras_dsd.algorithm.timeline import Phase, SparsePhase, Timeline
from keras_dsd.engine import observers
from keras_dsd.engine.batch_norm import Batches
from keras_dsd.engine.observers import Moment
from keras_dsd.engine.run_history import RunHistory
from keras_dsd.protocols import PrunableWeight, Tensor
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
    masked: frozenset[str] = frozenset()
    regrown: tuple[tuple[PrunableWeight, int], ...] = ()


class OptimizerReset:
    """Resets optimizer state of weights that are pruned or regrown, and counts these."""

    def __init__(self, reset: str) -> None:
        self._reset = reset
        self._num_weights = 0

    def reset_pruned(self, weight: PrunableWeight, mask: Tensor, number: int) -> None:
        """Resets the state of `weight` where `mask` prunes it, in a number of entries."""
        if number:
            (weight.reset_averages if self._reset == "none" else weight.reset_slots)(mask)
        self._num_weights += number

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
    made = []
    for weight, mask in masks_for(weights, sparsity):
        made.append((weight, mask))
        advance(weight.path)
    seconds, measured = time.perf_counter() - started, _measure_under(made)
    for (weight, mask), found in zip(made, measured, strict=True):
        _apply_mask(weight, mask, found, reset)
    num_pruned = sum(found.num_pruned for found in measured)
    size = sum(math.prod(weight.shape) for weight in weights)
    description = (
        f"pruned {num_pruned:,} of {size:,} weights in {len(weights)} tensors, "
        f"masks took {seconds:.3f} s"
    )
    return WeightChange(description, num_pruned, frozenset(weight.path for weight in weights))


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


def hold_masks(weights: Sequence[PrunableWeight]) -> None:
    """Sets weights to zero where an active mask prunes them."""
    for weight in weights:
        mask = weight.mask_tensor()
        if mask is not None:
            weight.zero(mask)


def remove_masks(weights: Sequence[PrunableWeight], reset: OptimizerReset) -> WeightChange:
    """Removes all masks: pruned weights regrow from zero.

    Raises:
        ValueError: A masked weight holds NaN or infinity; nothing was changed.
    """
    active = [(weight, weight.mask_tensor()) for weight in weights]
    masked = [(weight, mask) for weight, mask in active if mask is not None]
    measured = _measure_under(masked)
    check_finite([weight for weight, _ in masked], measured)
    regrown = []
    for (weight, mask), found in zip(masked, measured, strict=True):
        reset.reset_pruned(weight, mask, found.num_pruned)
        weight.remove_mask()
        if found.num_pruned:
            regrown.append((weight, found.num_pruned))
    num_regrown = sum(number for _, number in regrown)
    description = f"{num_regrown:,} weights return from zero" if masked else "all weights train"
    return WeightChange(description, regrown=tuple(regrown))


def apply_lost_masks(weights: Sequence[PrunableWeight], phase: SparsePhase) -> None:
    """Applies the masks of a phase to weights that are zero where it prunes and have no mask.

    Without them these weights would regrow with optimizer state that an uninterrupted run resets.
    """
    made = list(masks_for(weights, phase.sparsity))
    for (weight, mask), found in zip(made, _measure_under(made), strict=True):
        if not weight.is_masked and not found.num_violations:
            weight.apply_mask(mask)


def check_resumed(weights: Sequence[PrunableWeight], phase: SparsePhase) -> None:
    """Checks the weights of a run that resumes within `phase`; changes nothing.

    Raises:
        ValueError: They were pruned at another sparsity.
    """
    num_unknown = check_pruned_alike(weights, phase.sparsity)
    if num_unknown:
        warn(
            f"A sparse phase goes on with {num_unknown} more zeros than its masks prune, and "
            f"the file has no masks: of equal weights, those that come first stay pruned. "
            f"The others train. Was its sparsity higher, or have kept weights underflowed?"
        )


def _measure_under(pairs: Sequence[tuple[PrunableWeight, Tensor]]) -> list[Measured]:
    """Measures weights under masks, all in one transfer."""
    return measure([weight for weight, _ in pairs], [mask for _, mask in pairs])


def _apply_mask(
    weight: PrunableWeight, mask: Tensor, found: Measured, reset: OptimizerReset
) -> None:
    """Applies a mask unless it is active; `found` was measured under it."""
    before, num_regrown = weight.mask_tensor(), 0
    if before is not None:
        num_different = weight.arrays.num_different(before, mask)
        if not num_different:
            return
        [earlier] = measure([weight], [before])
        num_regrown = (num_different + earlier.num_pruned - found.num_pruned) // 2
    weight.apply_mask(mask)
    if found.num_violations or num_regrown:
        weight.zero(mask)
        reset.reset_pruned(weight, mask, found.num_pruned)
        if before is not None:  # what it pruned and still does was reset just now
            reset.reset_pruned(weight, before, num_regrown)
