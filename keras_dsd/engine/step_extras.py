"""Extras of training steps, in addition to updates and masks, and their state in a run."""

from collections.abc import Sequence

import numpy as np

from keras_dsd.algorithm.phases import DensePhase, SparsePhase, sums_for
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine.run_history import RunHistory
from keras_dsd.engine.trainer import NO_EXTRAS, Trainer
from keras_dsd.engine.transition import Transition
from keras_dsd.protocols import PrunableWeight, StepExtras, WeightCopies


def extras_at(timeline: Timeline, index: int, num_epochs: int) -> StepExtras:
    """Returns the extras of the steps of a phase after a number of its epochs."""
    phase = timeline.phases[index]
    sums = None
    if isinstance(phase, SparsePhase) and num_epochs + 1 < phase.ramp:
        sums = sums_for(phase)  # the next epoch prunes further weights
    elif index + 1 < len(timeline.phases):
        may_end = phase.until is not None or num_epochs + 1 == phase.epochs
        sums = sums_for(timeline.phases[index + 1]) if may_end else None
    if isinstance(phase, DensePhase):
        return StepExtras(phase.ema, sums, phase.regrow_decay)
    return StepExtras(sums=sums)


def extras_in(timeline: Timeline) -> set[StepExtras]:
    """Returns the extras of the steps of all epochs."""
    found = {
        extras_at(timeline, index, num_epochs)
        for index, phase in enumerate(timeline.phases)
        for num_epochs in {0, (phase.epochs or 1) - 1}
    }
    return found - {NO_EXTRAS}


def refuse_within_epoch(epoch: int, extras: StepExtras) -> None:
    """Raises ValueError: a run resumes within an epoch whose first steps have left something."""
    kinds = {
        "ema": ("moving averages", extras.ema is not None),
        "regrow_decay": ("regrown weights", extras.regrow_decay > 0),
        "a criterion of gradients": ("sums of gradients", extras.sums is not None),
    }
    name, (what, _) = next(each for each in kinds.items() if each[1][1])
    raise ValueError(
        f"Expected a checkpoint of the end of an epoch, as a phase has {name}: checkpoints do not "
        f"hold its {what}. Received: initial_epoch={epoch}, and an optimizer that has made steps "
        f"of this epoch. Nothing was changed. Save checkpoints at the ends of epochs "
        f"(save_freq='epoch') and resume from one of them, or start again."
    )


class PhaseExtras:
    """Starts, stores and ends the extras of the steps of one run.

    Args:
        timeline: The phases.
        trainer: Trains the model.
        is_backed_up: Whether the history has a folder.
    """

    def __init__(self, timeline: Timeline, trainer: Trainer, is_backed_up: bool) -> None:
        self._timeline = timeline
        self._trainer = trainer
        self._is_backed_up = is_backed_up
        self._sums: dict[str, np.ndarray] | None = None
        self.current = NO_EXTRAS

    def check(self) -> None:
        """Raises ValueError if the model can't be trained with them."""
        for extras in extras_in(self._timeline):
            self._trainer.check_extras(extras)

    def resume(self, transition: Transition, history: RunHistory, step: int | None) -> None:
        """Restores the state of steps if a run resumes within a phase, at a step.

        Raises:
            ValueError: The state is needed and unknown, as always if the checkpoint was taken
                within an epoch in which averages moved, or weights regrew.
        """
        extras = extras_at(self._timeline, transition.index, transition.num_epochs)
        if extras.ema is None and not extras.regrow_decay:
            return
        is_within_epoch = (step or 0) > (history.steps_before(transition.epoch) or 0)
        is_lost = extras.ema is not None or not transition.num_epochs
        if transition.is_resumed and is_within_epoch and is_lost:
            refuse_within_epoch(transition.epoch, extras)
        if transition.is_start:
            return
        state, weights = self._trainer.step_state, self._trainer.weights
        if extras.ema is not None:
            state.start_averages()
        if extras.regrow_decay:
            state.set_regrown([(each, each.arrays.all_kept(each.tensor())) for each in weights])
        state.set_kept(extras, history.state(transition.epoch, state.kept(extras)))

    def keep_masks(self, transition: Transition) -> None:
        """Keeps the masks that are about to be removed, if regrown weights decay."""
        phase = transition.phase
        if not isinstance(phase, DensePhase) or not phase.regrow_decay or not transition.is_start:
            return
        pairs = []
        for weight in self._trainer.weights:
            mask = weight.mask_tensor()
            kept = weight.arrays.all_kept(weight.tensor()) if mask is None else mask
            pairs.append((weight, kept))
        self._trainer.step_state.set_regrown(pairs)
        self._trainer.forget_decaying_steps()

    def enter(self, transition: Transition) -> None:
        """Starts the moving averages of a phase that starts, at its first weights."""
        phase = transition.phase
        if isinstance(phase, DensePhase) and phase.ema is not None and transition.is_start:
            self._trainer.step_state.start_averages()
        if not isinstance(phase, DensePhase) or not phase.regrow_decay:
            self._trainer.step_state.set_regrown([])

    def begin(self, index: int, num_epochs: int) -> None:
        """Starts an epoch, or a phase within one, whose first epoch is the rest of this one."""
        self.current = extras_at(self._timeline, index, num_epochs)
        if self.current.sums is not None:
            self._trainer.step_state.start_sums()

    def check_first_batch(self, batch: int, epoch: int) -> None:
        """Checks that an epoch whose gradients are summed starts with its first batch.

        Raises:
            ValueError: A run resumes with a later one.
        """
        if batch > 0 and self.current.sums is not None:
            refuse_within_epoch(epoch, self.current)

    def end_epoch(self, history: RunHistory, index: int, num_epochs: int) -> None:
        """Writes what the next epoch needs, once the epoch is in the history."""
        self._sums = None
        if self._is_backed_up and self._is_needed:
            self._keep(history, index, num_epochs, is_written=True)

    def stop(self, history: RunHistory, index: int, num_epochs: int, is_over: bool) -> None:
        """Ends the run with the averages, or keeps what another `fit` resumes with."""
        if not self._is_needed:
            return
        if not is_over:
            self._keep(history, index, num_epochs, is_written=False)
        elif self.current.ema is not None:
            self._trainer.step_state.apply_averages()

    @property
    def _is_needed(self) -> bool:
        return self.current != NO_EXTRAS

    def _keep(self, history: RunHistory, index: int, num_epochs: int, is_written: bool) -> None:
        phase, epoch = self._timeline.phases[index], len(history.epochs)
        is_ended = len(history.phase_starts()) - 1 > index
        grows = isinstance(phase, SparsePhase) and num_epochs < phase.ramp
        state = self._trainer.step_state
        if self.current.sums is not None and (is_ended or grows):
            history.keep_state(epoch, WeightCopies.complete(state.sums()), is_written)
        elif not is_ended and (self.current.ema is not None or self.current.regrow_decay):
            history.keep_state(epoch, state.kept(self.current), is_written)

    def sum_of(self, weight: PrunableWeight, history: RunHistory) -> np.ndarray:
        """Returns what the epoch before has summed for a weight; zeros if it was frozen then.

        Raises:
            ValueError: It is unknown, or nothing was summed for any weight.
        """
        if self._sums is None:
            weights = self._trainer.weights
            if self.current.sums is not None:
                values: Sequence[np.ndarray] = self._trainer.step_state.sums()
            else:
                like = [np.empty(each.shape, np.float32) for each in weights]
                found = history.state(len(history.epochs), WeightCopies.complete(like))
                values = list(found.arrays.values())
            if not any(each.any() for each in values):
                raise ValueError(
                    "Expected gradients in the epoch before weights are pruned, or regrow, by "
                    "them. Received: none, so no optimizer of Keras was seen to update a weight. "
                    "Update weights by optimizer.apply in train_step, or use another criterion."
                )
            self._sums = {each.path: v for each, v in zip(weights, values, strict=True)}
        return self._sums.get(weight.path, np.zeros(weight.shape, np.float32))
