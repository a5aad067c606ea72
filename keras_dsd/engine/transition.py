"""A phase change as a value, computed before it is applied, and its effect on weights."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from keras_dsd.algorithm import criteria
from keras_dsd.algorithm.criteria import (
    Scores,
    SumOf,
    gradient_scores,
    regrown_sparsity,
    scores_of,
)
from keras_dsd.algorithm.device_masks import (
    Measured,
    are_pruned_by,
    check_finite,
    check_pruned_alike,
    masks_for,
    measure,
)
from keras_dsd.algorithm.masks import Sparsity
from keras_dsd.algorithm.phases import DensePhase, Phase, SparsePhase
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine import observers
from keras_dsd.engine.batch_norm import Batches
from keras_dsd.engine.observers import Moment
from keras_dsd.engine.run_history import RunHistory
from keras_dsd.protocols import PrunableWeight, Tensor
from keras_dsd.utils.warn import warn


@dataclasses.dataclass(frozen=True)
class Transition:
    """Changes that come with a phase, in the order of the attributes.

    Attributes:
        index: Index of the phase.
        phase: The phase. A sparse phase prunes weights, a dense phase removes masks.
        epoch: The epoch that is about to start, or that the next step belongs to, counted from 0.
        is_start: True if the phase starts now; False if the run resumes within it.
        num_epochs: Number of epochs of the phase that have ended.
        warnings: Messages to the user.
        restored_epoch: The best epoch of the phase that ends, whose weights are restored first;
            None if no weights are restored.
        lost_masks_of: The phase that ends, if weights are pruned in it and the run resumes right
            after it: a checkpoint may hold its zeros without its masks, which are applied again.
        is_resumed: True if this epoch is the first of the run. If the run resumes within a sparse
            phase, weights must be dense or match it.
        moments_before: Moments that observers are notified of before weights change.
        reset: Optimizer state to reset for pruned or regrown weights; see `DSDSchedule`.
        batches: Batches to estimate BatchNormalization statistics from afterwards, or None.
        moments_after: Moments that observers are notified of after that.
    """

    index: int
    phase: Phase
    epoch: int
    is_start: bool
    num_epochs: int = 0
    warnings: tuple[str, ...] = ()
    restored_epoch: int | None = None
    lost_masks_of: Phase | None = None
    is_resumed: bool = False
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
    step: int | None = None,
    per_execution: int = 1,
    reset: str,
    batches: Batches | None,
) -> Transition | None:
    """Returns the phase change at the next step, or None within a phase.

    Args:
        epoch: The epoch that is about to start, or that the next step belongs to.
        timeline: The phases.
        history: The history of the epochs before.
        current: Index of the current phase; None if the run starts or resumes.
        step: Number of steps of the run so far; None if they are not counted.
        per_execution: Number of steps that one call of the training step makes. A phase starts with
            the first call after its start.
        reset: See `DSDSchedule`.
        batches: Batches of `batch_norm_data`; see `DSDSchedule`.
    """
    starts = history.phase_starts(step)
    index = len(starts) - 1
    if index == current:
        return None
    is_next = current is not None and index > current
    if current is not None and is_next:
        index = current + 1  # phases that no step was in are entered and left
    phase, start, previous = timeline.phases[index], starts[index], index - 1
    is_start, is_resumed = epoch == start.epoch, current is None
    if timeline.counts_steps and step is not None:
        is_start = is_next or step - start.step < per_execution
    sparse = phase if isinstance(phase, SparsePhase) else None
    ended = timeline.phases[previous] if is_start and index > 0 else None
    ended_sparse = ended if isinstance(ended, SparsePhase) else None
    prunes = is_start and sparse is not None
    unmeasured = None
    if ended is not None and ended.until is not None:
        unmeasured = history.unmeasured(previous, starts[previous].epoch, epoch)
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
        num_epochs=epoch - start.epoch,
        warnings=(unmeasured,) if unmeasured else (),
        restored_epoch=history.epoch_to_restore() if ended and ended.until else None,
        lost_masks_of=ended if is_resumed and ended is not None and leaves_masks(ended) else None,
        is_resumed=is_resumed,
        moments_before=tuple(Moment(name, epoch, of) for name, of, is_due in moments if is_due),
        reset=reset,
        batches=batches if prunes else None,
        moments_after=(Moment(observers.AFTER_PRUNING, epoch, index),) if prunes else (),
    )


def leaves_masks(phase: Phase) -> bool:
    """Returns whether weights are pruned as a phase ends."""
    return isinstance(phase, SparsePhase) or phase.regrow_fraction < 1


def check_complete(timeline: Timeline, divided: Sequence[str]) -> None:
    """Raises ValueError if scores of phases need complete weights, which no process has.

    Args:
        timeline: The phases.
        divided: Paths of the weights that are sharded over processes.
    """
    for index, phase in enumerate(timeline.phases if divided else ()):
        if isinstance(phase, DensePhase):
            is_needed, received = phase.regrow_fraction < 1, f"{phase.regrow_fraction=}"
        else:
            is_masked = index > 0 and leaves_masks(timeline.phases[index - 1])
            reads_mask = phase.criterion == "random" and (phase.ramp > 1 or is_masked)
            is_needed = criteria.reads_weights(phase.criterion) or reads_mask
            received = f"criterion={criteria.name_of(phase.criterion)!r}, ramp={phase.ramp}"
        if is_needed:
            raise ValueError(
                f"Expected phases that rank weights by magnitude and regrow all of them, as "
                f"{divided[0]} is sharded over processes, of which none has all of it. Received: "
                f"phases[{index}] with {received.removeprefix('phase.')}. Leave it out, or shard "
                f"kernels within each process."
            )


@dataclasses.dataclass(frozen=True)
class WeightChange:
    """Effect of a phase change on the weights: as text, and as `RunState` stores it."""

    description: str
    num_pruned: int = 0
    masked: frozenset[str] = frozenset()
    regrown: tuple[tuple[PrunableWeight, int], ...] = ()


class OptimizerReset:
    """Resets optimizer state of pruned and regrown weights."""

    def __init__(self, reset: str) -> None:
        self._reset = reset
        self._kinds: list[str] = []

    def reset_entries(self, weight: PrunableWeight, mask: Tensor, number: int, kind: str) -> None:
        """Resets the state of the entries that `mask` prunes.

        Args:
            weight: The weight.
            mask: Boolean mask of the kept entries.
            number: Number of the pruned entries.
            kind: `"pruned"` or `"regrown"`: their state after the phase change.
        """
        if not number:
            return
        (weight.reset_averages if self._reset == "none" else weight.reset_slots)(mask)
        if kind not in self._kinds:
            self._kinds.append(kind)

    @property
    def includes_all(self) -> bool:
        """True if the state of all other weights is reset too."""
        return self._reset == "all" and bool(self._kinds)

    @property
    def description(self) -> str:
        """Description of the reset for the log message; empty if no state is affected."""
        if not self._kinds:
            return ""
        if self._reset == "none":
            return "optimizer state kept"
        whose = "all" if self._reset == "all" else " and ".join(self._kinds)
        return f"optimizer state reset for {whose} weights"


class Pruning(NamedTuple):
    """Sparsity and scores of a pruning; scores are None for magnitudes."""

    sparsity: Sparsity
    scores: Scores | None = None

    def checked_by(self, check: Callable[[Sequence[np.ndarray]], None]) -> "Pruning":
        """Returns the pruning with a check of masks that a function of the user decides."""
        if self.scores is None or not self.scores.is_custom:
            return self
        return self._replace(scores=self.scores._replace(check=check))


def pruning_in(phase: SparsePhase, epoch: int = 0, sum_of: SumOf | None = None) -> Pruning:
    """Returns the pruning of an epoch of a sparse phase, counted from 0.

    `sum_of` returns the sum over the previous epoch for a weight.
    """
    return Pruning(phase.sparsity_at(epoch), scores_of(phase.criterion, phase.seed, sum_of))


def left_pruned(weights: Sequence[PrunableWeight], phase: Phase, before: Phase) -> Pruning:
    """Returns how weights are pruned as a phase ends: a sparse one, or the dense one after it."""
    if isinstance(phase, SparsePhase):
        return pruning_in(phase, phase.ramp)
    if not isinstance(before, SparsePhase):
        raise TypeError(f"Expected a sparse phase before. Received: before={before}. Pass one.")
    sparsity = before.sparsity_at(before.ramp)
    return Pruning(regrown_sparsity(weights, sparsity, phase.regrow_fraction))


def regrowing(
    weights: Sequence[PrunableWeight],
    phase: DensePhase,
    before: Phase,
    transition: Transition,
    sum_of: SumOf,
) -> Pruning:
    """Returns how the weights stay pruned that do not regrow in a dense phase.

    Raises:
        ValueError: A weight has an N:M pattern; or the run resumes within the phase, and weights
            are not pruned so.
    """
    sparsity = left_pruned(weights, phase, before).sparsity
    if transition.is_start:
        return Pruning(sparsity, gradient_scores("gradient", sum_of))
    if not are_pruned_by(weights, sparsity, None):
        raise ValueError(
            f"Expected the weights of the dense phase that the run resumes within, of which a part "
            f"is pruned. Received: other weights, with regrow_fraction={phase.regrow_fraction}. "
            f"Nothing was changed. Load a checkpoint of this phase, or start at its first epoch."
        )
    return Pruning(sparsity)


def prune(
    weights: Sequence[PrunableWeight],
    pruning: Pruning,
    reset: OptimizerReset,
    advance: Callable[[str], None],
) -> WeightChange:
    """Applies the masks of a sparse phase, and calls `advance` with the path of each weight.

    Raises:
        TypeError: The criterion is a callable whose scores are not numbers.
        ValueError: There are no weights, or weights or scores hold NaN or infinity, or scores are
            of another shape, or masks differ between processes; nothing is changed.
    """
    if not weights:
        raise ValueError(
            "Expected trainable weights to prune when a sparse phase starts. Received: a model "
            "that has not been built. Call model.build(input_shape), or call the model on one "
            "batch, before fit."
        )
    made = list[tuple[PrunableWeight, Tensor]]()
    for weight, mask in masks_for(weights, pruning.sparsity, pruning.scores):
        made.append((weight, mask))
        advance(weight.path)
    measured = _measure_under(made)
    for (weight, mask), found in zip(made, measured, strict=True):
        _apply_mask(weight, mask, found, reset)
    num_pruned = sum(found.num_pruned for found in measured)
    size = sum(math.prod(weight.shape) for weight in weights)
    tensors = f"{len(weights)} tensor{'' if len(weights) == 1 else 's'}"
    numbers = f"{num_pruned:,} of {size:,} weights in {tensors}"
    description = f"{num_pruned / max(size, 1):.1%} sparsity ({numbers})"
    return WeightChange(description, num_pruned, frozenset(weight.path for weight in weights))


def refuse_frozen(name: str, frozen: Sequence[str]) -> None:
    """Refuses a sparse phase if all selected weights are frozen."""
    if frozen:
        shown = ", ".join(map(repr, frozen[:3])) + (", ..." if len(frozen) > 3 else "")
        raise ValueError(
            f"Expected trainable weights to prune when a sparse phase starts. Received: "
            f"model={name!r}, whose selected weights are all frozen: {shown}. Set trainable = True "
            f"on the model, or on these layers, before the phase starts. If a GAN's discriminator "
            f"is frozen in the combined model, set discriminator.trainable = True before each "
            f"epoch of the discriminator, and False before each epoch of the combined model."
        )


def hold_masks(weights: Sequence[PrunableWeight]) -> None:
    """Sets pruned weights to zero, under the active masks."""
    for weight in weights:
        mask = weight.mask_tensor()
        if mask is not None:
            weight.zero(mask)


def remove_masks(weights: Sequence[PrunableWeight], reset: OptimizerReset) -> WeightChange:
    """Removes all masks: pruned weights regrow from zero.

    Raises:
        ValueError: A masked weight holds NaN or infinity; nothing is changed.
    """
    active = [(weight, weight.mask_tensor()) for weight in weights]
    masked = [(weight, mask) for weight, mask in active if mask is not None]
    measured = _measure_under(masked)
    check_finite([weight for weight, _ in masked], measured)
    regrown = []
    for (weight, mask), found in zip(masked, measured, strict=True):
        reset.reset_entries(weight, mask, found.num_pruned, "regrown")
        weight.remove_mask()
        if found.num_pruned:
            regrown.append((weight, found.num_pruned))
    num_regrown = sum(number for _, number in regrown)
    description = f"{num_regrown:,} weights regrow from zero" if masked else "all weights train"
    return WeightChange(description, regrown=tuple(regrown))


def apply_lost_masks(weights: Sequence[PrunableWeight], pruning: Pruning) -> None:
    """Applies masks to weights without a mask whose pruned entries are all zero.

    Without them these weights would regrow with optimizer state that an uninterrupted run resets.
    """
    is_scored = pruning.scores is not None and pruning.scores.is_repeatable
    if not (is_scored and are_pruned_by(weights, *pruning)):
        pruning = Pruning(pruning.sparsity)  # masks are recovered from the zeros
    made = list(masks_for(weights, *pruning))
    for (weight, mask), found in zip(made, _measure_under(made), strict=True):
        if not weight.is_masked and not found.num_violations:
            weight.apply_mask(mask)


def pruning_of(
    weights: Sequence[PrunableWeight], transition: Transition, sum_of: SumOf | None = None
) -> Pruning:
    """Returns the pruning at the start of a sparse phase; changes nothing.

    Weights of a resumed run may be pruned, also within the first epoch of the phase. Their masks
    are recovered from the zeros, by magnitudes, if their scores are not repeatable.

    Raises:
        ValueError: The run resumes within a phase, and weights were pruned at another sparsity.
    """
    phase, epoch = transition.phase, transition.num_epochs
    if not isinstance(phase, SparsePhase):
        raise TypeError(f"Expected a sparse phase. Received: phase={phase}. Enter a SparsePhase.")
    pruning = pruning_in(phase, epoch, sum_of)
    is_repeatable = pruning.scores is None or pruning.scores.is_repeatable
    if transition.is_start:
        # The zeros may be those of a sparse phase that ends.
        is_read = transition.is_resumed and transition.lost_masks_of is None and not is_repeatable
        zeros = Pruning(pruning.sparsity)
        return zeros if is_read and are_pruned_by(weights, *zeros) else pruning
    before = pruning_in(phase, max(epoch - 1, 0), sum_of)
    if before.scores is not None and is_repeatable and are_pruned_by(weights, *before):
        return before
    if epoch < phase.ramp and are_pruned_by(weights, pruning.sparsity, None):
        return Pruning(pruning.sparsity)  # the run was stopped within this epoch
    is_pruned, num_unknown = check_pruned_alike(weights, before.sparsity)
    if num_unknown:
        warn(
            f"The run resumes within a sparse phase with {num_unknown} more zeros than its masks "
            f"prune, and the checkpoint holds no masks: among equal weights, the first by index "
            f"stay pruned and the others train. Check that the sparsity is that of the saved run, "
            f"and that kept weights have not underflowed to zero."
        )
    return Pruning(before.sparsity) if is_pruned else before


def _measure_under(pairs: Sequence[tuple[PrunableWeight, Tensor]]) -> list[Measured]:
    """Measures weights under masks, in one transfer."""
    return measure([weight for weight, _ in pairs], [mask for _, mask in pairs])


def _apply_mask(
    weight: PrunableWeight, mask: Tensor, found: Measured, reset: OptimizerReset
) -> None:
    """Applies a mask unless it is active; `found` are the measurements under it."""
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
        reset.reset_entries(weight, mask, found.num_pruned, "pruned")
        if before is not None:  # entries that stay pruned are reset already
            reset.reset_entries(weight, before, num_regrown, "regrown")
