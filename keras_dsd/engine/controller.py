"""The controller: takes one model through a timeline, through the protocols alone."""

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np
from absl import logging

from keras_dsd.algorithm.device_masks import Measured, measure
from keras_dsd.algorithm.learning_rates import LearningRate, factor_text
from keras_dsd.algorithm.phases import DensePhase, Phase, SparsePhase, learning_rate_of
from keras_dsd.algorithm.position import FIRST, STEPS, Position, Start, position_in
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine import phase_rates
from keras_dsd.engine import transition as transitions
from keras_dsd.engine.batch_norm import Batches
from keras_dsd.engine.messages import phase_message
from keras_dsd.engine.observers import FIRST_REDENSE_EPOCH, LAST_REDENSE_EPOCH, Moment, Observer
from keras_dsd.engine.run_history import RunHistory
from keras_dsd.engine.step_extras import PhaseExtras
from keras_dsd.engine.steps import StepCounter
from keras_dsd.engine.trainer import Trainer
from keras_dsd.engine.transition import Pruning, Transition
from keras_dsd.protocols import PrunableWeight, Tensor, UpdateCount, WeightCopies
from keras_dsd.utils import checks
from keras_dsd.utils.progress import progress_bar
from keras_dsd.utils.warn import warn

# A transition that takes longer than this shows a progress bar.
_SECONDS_WITHOUT_BAR = 1.0


@dataclasses.dataclass
class RunState:
    """State of a run, other than the model's weights and masks.

    `Controller.start` creates it and `Controller.stop` discards it; only the history is kept. The
    phase of an epoch, its start and its remaining epochs are derived from the history.

    Attributes:
        history: Monitored values, best weights and warnings. Shared by all runs of the model
            through the same phases; with `backup_dir`, values and weights are also shared between
            processes.
        is_open: True if the run was started and not stopped.
        epochs: The epoch at which training ends; None if unknown. Scope: the run.
        is_shown: True if phase changes are printed instead of logged. Scope: the run.
        steps: Counts the steps of the run; None if no phase needs them. Scope: the run.
        is_in_epoch: True if an epoch has started and not ended. Scope: the epoch.
        phase_index: Index of the current phase; None while the run starts or resumes. Scope: the
            phase.
        phase_start: Where the current phase starts. Scope: the phase.
        is_phase_start: True if the phase starts with the next step. Scope: the epoch.
        num_pruned: Number of pruned weights, to detect violated masks. Scope: the phase.
        is_violated: True if the last epoch ended with violated masks, which was warned of. Scope:
            the phase.
        masked: Paths of the masked weights. Scope: the phase.
        unpruned: Earlier values, by path, of weights that were pruned before any optimizer update
            was observed. Scope: up to the first training step.
        is_rate_checked: True if the scaling of the learning rate was checked. Scope: the run.
        filled_from: The first batch of the learning rate factors that were passed last; None until
            it starts. Scope: the epoch.
        num_factors: Number of these factors. Scope: the run.
        user_rates: The learning rates, without the factor, as the phase was entered. Scope: the
            phase.
        peak_rate: The largest of them so far. Scope: the run.
        regrown: Tensors with regrown weights, each with their number, to detect that something
            else restored pruned weights. Scope: the phase.
    """

    history: RunHistory
    is_open: bool = False
    epochs: int | None = None
    is_shown: bool = False
    steps: StepCounter | None = None
    is_in_epoch: bool = False
    phase_index: int | None = None
    phase_start: Start = FIRST
    is_phase_start: bool = False
    num_pruned: int = 0
    is_violated: bool = False
    masked: frozenset[str] = frozenset()
    unpruned: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    is_rate_checked: bool = False
    filled_from: int | None = None
    num_factors: int = 1
    user_rates: Sequence[float] = ()
    peak_rate: float = 0.0
    regrown: tuple[tuple[PrunableWeight, int], ...] = ()


class Controller:
    """Takes one model through a timeline.

    Masks are recovered from the weights, so a run can start at any epoch, from any checkpoint. The
    arguments are those of `DSDSchedule`: `folder` is `backup_dir`, `batches` are `batch_norm_data`.
    """

    def __init__(
        self,
        timeline: Timeline,
        trainer: Trainer,
        reset: str = "pruned",
        remaining_epochs: str = "redense",
        folder: pathlib.Path | None = None,
        batches: Batches | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._timeline = timeline
        self._trainer = trainer
        self._reset = reset
        self._remaining_epochs = remaining_epochs
        self._batches = batches
        self._observers = observers
        self._extras = PhaseExtras(timeline, trainer, folder is not None)
        self._run = RunState(RunHistory(timeline, folder))
        self._num_batches: int | None = None

    @property
    def is_open(self) -> bool:
        """True if a run was started and not stopped."""
        return self._run.is_open

    @property
    def is_in_epoch(self) -> bool:
        """True if an epoch has started and not ended."""
        return self._run.is_in_epoch

    @property
    def is_over(self) -> bool:
        """True if the last phase is over, so that training ends."""
        run = self._run
        step = None if run.steps is None else run.steps.next
        return self._timeline.is_over(run.history.epochs, self._remaining_epochs, step)

    @property
    def is_in_last_phase(self) -> bool:
        """True if a run has entered the last phase, and not ended."""
        return self._run.phase_index == len(self._timeline.phases) - 1

    @property
    def is_last_step(self) -> bool:
        """True if the next step ends training, within its epoch or not."""
        phase, run = self._timeline.phases[-1], self._run
        if phase.steps is None or run.steps is None or self._remaining_epochs == "redense":
            return False
        is_last = self._index + 1 == len(self._timeline.phases)
        return is_last and run.steps.next >= run.phase_start.step + phase.steps

    @property
    def starts_phase(self) -> bool:
        """True if the next step starts a phase, according to batches."""
        return self._run.steps is not None and self._run.steps.next >= self._end_step

    @property
    def position(self) -> Position | None:
        """Position of the run in steps; None if no phase needs them, or before any epoch."""
        run = self._run
        if run.steps is None or run.phase_index is None:
            return None
        return self._timeline.position(
            run.phase_index, run.phase_start, run.history.epochs, run.steps.step,
            run.steps.per_epoch,
        )  # fmt: skip

    @property
    def _step(self) -> int | None:
        return None if self._run.steps is None else self._run.steps.step

    def start(
        self,
        epochs: int | None,
        verbose: bool = False,
        num_batches: int | None = None,
        earlier: UpdateCount | None = None,
        initial_step: int | None = None,
    ) -> None:
        """Checks that the model can be trained, and starts a run.

        Args:
            epochs: The epoch at which `fit` ends.
            verbose: Whether `fit` shows its progress.
            num_batches: Number of batches of an epoch; None if unknown.
            earlier: Count of the optimizer when `fit` was called; None if unknown.
            initial_step: Step of the run at that count; None if the count itself tells.

        Raises:
            ValueError: DSD can't train the model, or the folder for backups is not writable.
                Nothing is changed.
        """
        self._trainer.check()
        phase_rates.check(self._timeline, self._trainer)
        transitions.check_complete(self._timeline, self._trainer.divided)
        self._extras.check()
        self._run.history.check()
        self._trainer.check_same(self._description())
        for observer in self._observers:
            observer.is_chief = self._trainer.is_chief
            observer.on_begin(self._timeline)
        self._trainer.open(self._after_first_step, self._prune_unfrozen)
        is_shown = verbose and self._trainer.prints()
        history = self._run.history.last_of(self._trainer.model)
        self._run = RunState(history, is_open=True, epochs=epochs, is_shown=is_shown)
        self._num_batches = num_batches
        if self._timeline.needs_steps:
            self._run.steps = StepCounter(self._trainer, num_batches, earlier, initial_step)

    def _description(self) -> str:
        """Returns what several processes that train one model have to be given alike."""
        observers = ", ".join(type(each).__name__ for each in self._observers)
        weights = ", ".join(
            f"{each.path} ({each.sparsity:g}, {each.pattern}, {each.scope})"
            for each in self._trainer.weights
        )
        return (
            f"{self._timeline}; reset={self._reset!r}; remaining_epochs="
            f"{self._remaining_epochs!r}; observers=[{observers}]; weights: {weights}"
        )

    def begin_epoch(self, epoch: int) -> None:
        """Enters the phase of an epoch, counted from 0.

        Raises:
            TypeError: `epoch` is not an integer.
            ValueError: `epoch` is negative; a weight to prune or regrow holds NaN or infinity; the
                run resumes within a sparse phase with weights that were pruned at another sparsity;
                or the history of earlier epochs is needed and missing. No weight is changed.
        """
        epoch = checks.whole_number("epoch", epoch, least=0)
        if not self._run.history.resume(epoch, self._all_weights):
            warn(
                f"The monitored values of epoch {epoch} are missing: the run was stopped after "
                f"another callback saved this epoch and before DSDSchedule recorded it. The phase "
                f"may last longer. Put DSDSchedule before BackupAndRestore."
            )
        steps = self._run.steps
        if steps is not None:
            steps.begin_epoch()
            if self._run.phase_index is None:
                self._find_step(steps, epoch)
        if not self._enter(epoch) and self._run.masked:
            self._hold_masks()
        self._grow_masks(epoch)
        self._extras.begin(self._index, self._num_epochs)
        self._use_step()
        self._run.is_in_epoch = True

    def _find_step(self, steps: StepCounter, epoch: int) -> None:
        """Determines the step at which a run starts or resumes, and checks its phases."""
        steps.resume(self._run.history, self._timeline, epoch)
        per_execution, lengths = steps.per_execution, [p.steps for p in self._timeline.phases]
        for length in filter(None, lengths):
            hint = f"Give at least {per_execution}, or compile with fewer steps_per_execution"
            if length < per_execution:
                expected = "to be at least the steps of one execution"
                note = f", with {per_execution} steps in each execution"
                raise checks.invalid("steps", length, expected, f"{hint}.", note)
            if length % per_execution:
                self._warn_once(
                    "steps are not a multiple",
                    f"A phase of {length} steps ends up to {per_execution - 1} steps late, at the "
                    f"end of an execution: steps_per_execution={per_execution}. Use a multiple of "
                    f"it as the number of steps.",
                )
        index = len(self._run.history.phase_starts(steps.step)) - 1
        if steps.is_assumed:
            warn(
                f"The optimizer has made {steps.step:,} steps, so the run resumes after them, in "
                f"phase {index + 1} of {len(lengths)}. To start a new run, with the first phase, "
                f"give DSDSchedule initial_step=0; to resume without this warning, give "
                f"initial_step={steps.step}."
            )

    def begin_batch(self, batch: int) -> bool:
        """Enters the phase of a step within an epoch, and returns whether one starts.

        Args:
            batch: Index of the batch in the epoch, or of the first one of an execution.

        Raises:
            ValueError: A weight to prune or regrow holds NaN or infinity, or a run resumes within
                an epoch whose gradients are summed.
        """
        steps = self._run.steps
        if steps is None:
            return False
        if steps.is_before_first_batch:
            self._extras.check_first_batch(batch, len(self._run.history.epochs))
        is_due = steps.begin_batch(batch, self._end_step) >= self._end_step
        starts = is_due and self._enter(len(self._run.history.epochs))
        if starts:
            self._extras.begin(self._index, self._num_epochs)
            self._use_step()
        if self._timeline.changes_learning_rate:
            self._begin_factor(batch, steps)
        return starts

    def _begin_factor(self, batch: int, steps: StepCounter) -> None:
        """Advances to the factor of a batch, and passes further ones where they run out."""
        run = self._run
        if run.filled_from is None:
            run.filled_from = batch
        elif batch + steps.batches_per_execution > run.filled_from + run.num_factors:
            self._trainer.set_factors(self._factors())
            run.filled_from = batch
        else:
            self._trainer.begin_step()

    @property
    def _index(self) -> int:
        """Index of the current phase."""
        return self._run.phase_index or 0

    @property
    def _end_step(self) -> float:
        """The step that ends the phase; infinity if no step does."""
        is_last = self._index + 1 == len(self._timeline.phases)
        end = self._timeline.end_step(self._index, self._run.phase_start)
        return math.inf if is_last or end is None else end

    def _use_step(self) -> None:
        self._trainer.use_step(
            masked=self._run.masked, factors=self._factors(), extras=self._extras.current
        )

    @property
    def _num_epochs(self) -> int:
        """Number of epochs of the phase that have ended."""
        return len(self._run.history.epochs) - self._run.phase_start.epoch

    @property
    def _lr(self) -> LearningRate:
        return learning_rate_of(self._timeline.phases[self._index])

    def _factors(self) -> np.ndarray:
        """Returns the learning rate factors of the next batches."""
        run = self._run
        if run.steps is None or not self._timeline.changes_learning_rate:
            return np.array([self._lr], np.float64)
        run.filled_from = None
        run.num_factors = max(phase_rates.NUM_FACTORS, run.steps.batches_per_execution)
        return self._factors_at(run.steps, run.steps.of_next_batches(run.num_factors))

    def _factors_at(self, steps: StepCounter, of_run: Sequence[int]) -> np.ndarray:
        """Returns the learning rate factors at steps of the run, which the current phase makes."""
        run, phase, history = self._run, self._timeline.phases[self._index], self._run.history
        start = run.phase_start
        if self._is_extended:
            phase = self._extended(phase, steps)
        position = position_in(
            phase, self._index, start, history.epochs, steps.step, steps.per_epoch
        )
        fraction = min((len(history.epochs) - start.epoch) / (phase.epochs or 1), 1.0)
        of_phase = [max(step - start.step, 0) for step in of_run]
        return phase_rates.factors_of(self._lr, of_phase, position.num_steps, fraction)

    def _extended(self, phase: Phase, steps: StepCounter) -> Phase:
        """Returns the last phase with all remaining epochs, or steps, of `fit`."""
        run, made = self._run, len(self._run.history.epochs)
        epochs = max(run.epochs or 0, made)
        if phase.epochs is not None:
            length = max(phase.epochs, epochs - run.phase_start.epoch)
            return dataclasses.replace(phase, epochs=length)
        end = (run.history.steps_before(made) or 0) + (epochs - made) * (steps.per_epoch or 0)
        length = max(phase.steps or 0, end - run.phase_start.step)
        return dataclasses.replace(phase, steps=length)

    @property
    def _is_extended(self) -> bool:
        """True if the phase is the last one, and has all remaining epochs of `fit`."""
        is_last = self._index + 1 == len(self._timeline.phases)
        return is_last and self._remaining_epochs == "redense"

    def _enter(self, epoch: int) -> bool:
        """Enters the phase of the next step, also through phases without steps; returns if any."""
        entered = self._run.is_phase_start = False
        while (transition := self.transition(epoch)) is not None:
            if isinstance(transition.phase, SparsePhase) and not self._trainer.weights:
                transitions.refuse_frozen(self._trainer.model.name, self._trainer.frozen)
            self._apply(transition)
            starts = self._run.history.phase_starts(self._step)
            self._run.phase_start = starts[transition.index]
            self._run.is_phase_start, entered = transition.is_start, True
        return entered

    def transition(self, epoch: int) -> Transition | None:
        """Returns the phase change at the next step, of `epoch`, or None; changes nothing."""
        run = self._run
        return transitions.transition_to(
            epoch, self._timeline, run.history, run.phase_index, step=self._step,
            per_execution=1 if run.steps is None else run.steps.per_execution,
            reset=self._reset, batches=self._batches,
        )  # fmt: skip

    def _apply(self, transition: Transition) -> None:
        for message in transition.warnings:
            warn(message)
        if transition.restored_epoch is not None:
            self._restore(transition.restored_epoch)
        self._extras.resume(transition, self._run.history, self._step)
        self._warn_of_untrained(self._trainer.leave_untrained_dense())
        if transition.lost_masks_of is not None:
            weights, before = self._trainer.weights, self._timeline.phases[transition.index - 2]
            pruning = transitions.left_pruned(weights, transition.lost_masks_of, before)
            transitions.apply_lost_masks(weights, pruning)
        phase = transition.phase
        change_by = self._pruning(transition)
        self._notify(transition.moments_before)
        run, weights = self._run, self._trainer.weights  # in the complete model, each time
        is_first = run.phase_index is None and isinstance(phase, SparsePhase)
        if is_first and self._trainer.may_leave_untrained:
            run.unpruned = {each.path: each.copy() for each in weights}
        self._extras.keep_masks(transition)
        texts = self._change(change_by, transition.batches)
        self._extras.enter(transition)
        texts.append(self._trainer.learning_rate_text(learning_rate_of(phase)))
        self._notify(transition.moments_after)
        run.phase_index = transition.index
        self._check_user_rates(transition)
        self._announce(transition, ", ".join(filter(None, texts)))

    def _pruning(self, transition: Transition) -> Pruning | None:
        """Returns how weights are pruned in the phase that is entered; None: not at all."""
        phase, weights = transition.phase, self._trainer.weights
        if isinstance(phase, SparsePhase):
            return transitions.pruning_of(weights, transition, self._sum_of)
        if not transitions.leaves_masks(phase):
            return None
        before = self._timeline.phases[transition.index - 1]
        return transitions.regrowing(weights, phase, before, transition, self._sum_of)

    def _sum_of(self, weight: Any) -> np.ndarray:
        return self._extras.sum_of(weight, self._run.history)

    def _change(self, pruning: Pruning | None, batches: Batches | None) -> list[str]:
        """Prunes weights or removes masks, with all further changes, and describes these."""
        reset = transitions.OptimizerReset(self._reset)
        run, weights = self._run, self._trainer.weights
        if pruning is None:
            change = transitions.remove_masks(weights, reset)
        else:
            with self._bar(len(weights)) as advance:
                pruning = pruning.checked_by(self._trainer.check_same_masks)
                change = transitions.prune(weights, pruning, reset, advance)
        run.num_pruned, run.masked, run.regrown = change.num_pruned, change.masked, change.regrown
        if reset.includes_all:
            self._trainer.reset_optimizers()
        statistics = ""
        if batches is not None:
            with self._bar(batches.number) as advance:
                statistics = self._trainer.estimate_batch_norms(batches, advance)
        return [change.description, statistics, reset.description]

    def _grow_masks(self, epoch: int) -> None:
        """Prunes further weights at the start of an epoch, if the phase has a ramp."""
        phase, num_epochs = self._timeline.phases[self._index], epoch - self._run.phase_start.epoch
        if isinstance(phase, SparsePhase) and 0 < num_epochs < phase.ramp:
            pruning = transitions.pruning_in(phase, num_epochs, self._sum_of)
            texts = self._change(pruning, self._batches)
            self._show(f"Epoch {epoch + 1}: {', '.join(filter(None, texts))}")

    def _hold_masks(self) -> None:
        """Applies the masks to weights that were replaced after the last training step."""
        num_violations = self._measured()[0].num_violations
        is_known, self._run.is_violated = self._run.is_violated, False
        if not num_violations:
            return
        if not is_known:
            warn(
                f"Weights were replaced during the sparse phase: {num_violations} pruned weights "
                f"were set to other values after the last training step (set_weights, "
                f"load_weights, a callback that restores earlier weights). They are set to zero, "
                f"as masks stay active until the phase ends. Restore weights of this phase, or use "
                f"until=keras_dsd.Plateau(..., restore_best=True)."
            )
        transitions.hold_masks(self._trainer.weights)

    def _prune_unfrozen(self) -> frozenset[str]:
        """Prunes weights that were unfrozen after a sparse phase started, before its first step.

        Returns the paths of all masked weights.
        """
        phase, weights = self._timeline.phases[self._index], self._trainer.weights
        unfrozen = any(weight.path not in self._run.masked for weight in weights)
        if isinstance(phase, SparsePhase) and self._run.is_phase_start and unfrozen:
            reset = transitions.OptimizerReset(self._reset)
            pruning = transitions.pruning_in(phase, 0, self._sum_of)
            pruning = pruning.checked_by(self._trainer.check_same_masks)
            change = transitions.prune(weights, pruning, reset, lambda path: None)
            self._run.num_pruned, self._run.masked = change.num_pruned, change.masked
        return self._run.masked

    def _after_first_step(self) -> None:
        """Checks, after the first training step of the run, which weights it updates."""
        unpruned, self._run.unpruned = self._run.unpruned, {}
        if not self._trainer.is_observed:
            self._run.is_rate_checked = True
            self._warn_once(
                "no optimizer was seen",
                f"No optimizer was seen to update weights in the training step of "
                f"model={self._trainer.model.name!r}: a custom tf.function was traced before this "
                f"fit, or the step updates weights without an optimizer. Masks are applied after "
                f"each step; the learning rate factor of a phase is not. Create the tf.function "
                f"again before fit, update weights with an optimizer, or write a custom training "
                f"loop with keras_dsd.DSDLoop.",
            )
            return
        untrained = [each for each in self._trainer.untrained() if each.path in unpruned]
        for weight, found in zip(untrained, measure(untrained), strict=True):
            self._run.num_pruned -= found.num_pruned
            weight.apply_mask(weight.arrays.all_kept(weight.tensor()))
            weight.assign(unpruned[weight.path])
        self._warn_of_untrained([weight.path for weight in untrained])

    def _warn_of_untrained(self, untrained: Sequence[str]) -> None:
        warned = self._run.history.warned
        paths = [path for path in untrained if f"untrained {path}" not in warned]
        warned.update(f"untrained {path}" for path in paths)
        if paths:
            shown = ", ".join(map(repr, paths[:3])) + (", ..." if len(paths) > 3 else "")
            warn(
                f"No optimizer trains {len(paths)} of the selected weights: {shown}. They stay "
                f"dense, as they would not regrow after pruning. Exclude them with apply(model, "
                f"exclude=[...]), or freeze their layers (such as a target network or a teacher). "
                f"report(model) lists them."
            )

    def _check_user_rates(self, transition: Transition) -> None:
        """Warns once if the user's learning rates run down before a later phase."""
        run, index = self._run, transition.index
        run.user_rates, message = self._trainer.learning_rates(), None
        rate = max(run.user_rates, default=0.0)
        if transition.epoch == 0 and index == 0:
            message = phase_rates.run_down_message(self._timeline, self._trainer, self._num_batches)
        elif index > 0 and run.user_rates and phase_rates.has_run_down(rate, run.peak_rate):
            message = phase_rates.ran_down_message(self._timeline, index, run.peak_rate, rate)
        run.peak_rate = max(run.peak_rate, rate)
        if message is not None:
            self._warn_once("the learning rate runs down", message)

    def _check_learning_rate(self, lr: LearningRate) -> None:
        """Warns once if the learning rate factor of a phase has no effect."""
        if lr == 1.0 or self._run.is_rate_checked or self._trainer.was_skipped:
            return
        self._run.is_rate_checked = True
        shown = factor_text(lr)
        if not self._trainer.is_observed:
            self._warn_once(
                "no optimizer was seen",
                f"The phase multiplies learning rates by {shown}, but no optimizer was seen to "
                f"update weights: the training function was traced before the phase. Call it for "
                f"the first time after begin_epoch(), or create it again: tf.function(train_step).",
            )
        for name in self._trainer.unscaled_optimizers:
            self._warn_once(
                f"{name} reads no learning rate",
                f"The phase multiplies learning rates by {shown}, but {name} updates weights "
                f"without reading its `learning_rate`. Received: optimizer={name}. Read "
                f"self.learning_rate in its update, or use phases with lr=1.0 and redense_lr=1.0 "
                f"and scale the learning rate yourself.",
            )

    def _announce(self, transition: Transition, changed: str) -> None:
        index, phase, epoch = transition.index, transition.phase, transition.epoch
        is_start, step = transition.is_start, self._step if self._timeline.counts_steps else None
        self._show(phase_message(self._timeline, index, epoch, is_start, changed, step))
        for observer in self._observers:
            observer.on_phase(index, phase, epoch, changed)

    def _show(self, message: str) -> None:
        if self._run.is_shown:  # where Keras shows its progress
            # Within an epoch, the progress bar has left the cursor in its line.
            print("\n" * self._run.is_in_epoch + message, flush=True)
        else:
            logging.info("%s", message)

    def end_epoch(self, logs: Mapping[str, float]) -> dict[str, float]:
        """Adds the logs of an epoch to the history, and returns further entries for them.

        Returns:
            `dsd_phase`, the index of the phase; `dsd_sparsity`, the measured fraction of zeros
            among the selected weights (in a sparse phase, of pruned weights: a kept weight that
            underflows to zero does not count); `dsd_epochs_left`, the remaining epochs of the
            phase, an upper bound if `until` may end it early; and `dsd_learning_rate`, the learning
            rate in use at the last step, of the first optimizer that was seen to update weights, if
            it has one.
            If phases are counted in steps, also `dsd_steps`, the number of steps of the run so far;
            the remaining epochs of a phase in steps are those it takes at this epoch's length.
        """
        if not isinstance(logs, Mapping):
            hint = "Pass a dict, or nothing."
            raise checks.invalid_type("logs", logs, "to be a dict from names to numbers", hint)
        self._trainer.end_epoch()
        steps, start = self._run.steps, self._run.phase_start
        epoch, index = len(self._run.history.epochs), self._index
        step = None if steps is None else steps.end_epoch()
        factor = self._last_factor(steps)
        self._run.history.add(logs, self._all_weights, step)
        self._extras.end_epoch(self._run.history, index, self._num_epochs)
        found, size = self._measured()
        is_violated = found.num_violations or found.num_pruned < self._run.num_pruned
        self._run.is_violated = bool(is_violated)
        if is_violated:
            warn(
                f"The masks were violated: {found.num_zeros} weights are zero at the end of an "
                f"epoch in which {self._run.num_pruned} are pruned. Weights were replaced after "
                f"its last training step (set_weights, load_weights, a callback that restores "
                f"earlier weights), or something other than this step updates them; a custom "
                f"training loop calls DSDLoop.apply_masks() after each update. Masks are applied "
                f"again at the start of the next epoch."
            )
        self._check_learning_rate(self._lr)
        if phase_rates.is_at_end(self._lr, factor):
            self._warn_once("the learning rate is at its end", phase_rates.at_end_message(epoch))
        measured: dict[str, float] = {
            "dsd_phase": index,
            "dsd_sparsity": found.num_zeros / max(size, 1),
            "dsd_epochs_left": self._epochs_left(epoch + 1),
        }
        if step is not None and self._timeline.counts_steps:
            measured[STEPS] = step
        if self._trainer.is_observed:
            rates = self._trainer.learning_rates()
            self._note_rates(rates)
            for rate in rates[:1]:
                measured["dsd_learning_rate"] = rate * factor
        if epoch == start.epoch and self._timeline.is_redense(index):
            self._notify([Moment(FIRST_REDENSE_EPOCH, epoch + 1, index)])
        for observer in self._observers:
            observer.on_epoch_end(epoch, {**logs, **measured}, self._trainer.weights)
        self._run.is_in_epoch = False
        return measured

    def _last_factor(self, steps: StepCounter | None) -> float:
        """Returns the learning rate factor of the epoch's last step."""
        lr = self._lr
        if isinstance(lr, float) or steps is None:
            return float(cast("float", lr))
        return float(self._factors_at(steps, [steps.step - 1])[0])

    def _note_rates(self, rates: Sequence[float]) -> None:
        """Warns once if the user's learning rates have changed in a phase that changes them."""
        run = self._run
        phase_rates.warn_if_set(run.user_rates, rates, self._lr, self._warn_once)
        run.peak_rate = max(run.peak_rate, *rates, 0.0)

    def _measured(self) -> tuple[Measured, int]:
        """Returns measurements of all weights together, in one transfer, and their size."""
        weights = self._trainer.weights
        found = zip(Measured(0, 0, 0, 0), *measure(weights), strict=True)
        return Measured(*map(sum, found)), sum(math.prod(each.shape) for each in weights)

    def _epochs_left(self, epoch: int) -> int:
        """Returns the remaining epochs of the phase, at most where `until` may end it early."""
        run, phase = self._run, self._timeline.phases[self._index]
        if phase.steps is None:
            end = run.phase_start.epoch + (phase.epochs or 0)
        else:
            made, earlier = (run.history.steps_before(each) or 0 for each in (epoch, epoch - 1))
            left = max(run.phase_start.step + phase.steps - made, 0)
            end = epoch + math.ceil(left / max(made - earlier, 1))
        if self._index + 1 == len(self._timeline.phases) and self._remaining_epochs == "redense":
            end = max(end, run.epochs or 0)
        return max(end - epoch, 0)

    def stop(self) -> None:
        """Ends the run, in any phase."""
        self._trainer.leave_untrained_dense()
        run, self._run = self._run, RunState(self._run.history)
        index, last = run.phase_index, len(self._timeline.phases) - 1
        is_over = not self._may_resume(run)
        if index == last and is_over:
            if (best := run.history.epoch_to_restore()) is not None:
                self._restore(best)
            run.history.forget_best()
        if index is not None:
            num_epochs = len(run.history.epochs) - run.phase_start.epoch
            self._extras.stop(run.history, index, num_epochs, is_over)
        self._trainer.close()
        if index is not None and is_over and self._timeline.is_redense(index):
            self._notify([Moment(LAST_REDENSE_EPOCH, len(run.history.epochs), index)])
        for observer in self._observers:
            observer.on_end()
        resume = f"Resume with `initial_epoch={len(run.history.epochs)}`"
        if self._is_pruned(run.regrown) and self._ends_sparse(index):
            self._warn_once(
                "ended with pruned weights",
                f"Training ended with pruned weights: the sparse phase was the last one reached "
                f"(or its weights were restored). {resume} to regrow them, or use the sparse model "
                f"as it is.",
            )
        elif index is not None and index < last:
            message = (
                f"Training ended in DSD phase {index + 1} of {last + 1}: the later phases did not "
                f"run. {resume} to run them."
            )
            # Early stopping is intended; too few epochs may be a mistake.
            if self._is_short(run):
                self._warn_once("ended before the last phase", message)
            else:
                logging.warning(message)

    def _ends_sparse(self, index: int | None) -> bool:
        """Returns whether pruned weights are not those that a last phase leaves pruned."""
        last = self._timeline.phases[-1]
        is_meant = isinstance(last, DensePhase) and transitions.leaves_masks(last)
        return not (is_meant and index == len(self._timeline.phases) - 1)

    def _may_resume(self, run: RunState) -> bool:
        """Returns whether training ended as planned, before the last epoch of the timeline.

        Early stopping, or anything else that stops `fit` before its last epoch, ends the run.
        """
        is_short = run.epochs is None or self._is_short(run)
        is_complete = len(run.history.epochs) >= self._timeline.epochs
        if self._timeline.counts_steps:
            is_complete = self._timeline.is_complete(run.history.epochs)
        return is_short and not is_complete and not self.is_over

    def _is_short(self, run: RunState) -> bool:
        """Returns whether `fit` was given fewer epochs than the timeline takes.

        Where that takes steps, whether it has had all its epochs.
        """
        if run.epochs is None:
            return False
        if self._timeline.counts_steps:
            return len(run.history.epochs) >= run.epochs
        return run.epochs < self._timeline.epochs

    def _warn_once(self, kind: str, message: str) -> None:
        """Warns once in a run, which may take several calls of `fit`."""
        if kind not in self._run.history.warned:
            self._run.history.warned.add(kind)
            warn(message)

    def _notify(self, moments: Sequence[Moment]) -> None:
        for moment, observer in itertools.product(moments, self._observers):
            observer.on_moment(moment, self._trainer.weights)

    def _bar(self, total: int) -> AbstractContextManager[Callable[[str], None]]:
        return progress_bar(self._run.is_shown, total, 0, after=_SECONDS_WITHOUT_BAR)

    def _is_pruned(self, regrown: tuple[tuple[PrunableWeight, int], ...]) -> bool:
        """Returns whether weights are pruned, be it because pruned weights were restored."""
        if any(weight.is_masked for weight in self._trainer.weights):
            return True
        found = measure([weight for weight, _ in regrown])
        numbers = zip(found, regrown, strict=True)
        return bool(regrown) and all(each.num_zeros >= number for each, (_, number) in numbers)

    def _all_weights(self) -> WeightCopies:
        return self._trainer.get_weights()

    def _restore(self, epoch: int) -> None:
        self._trainer.set_weights(self._run.history.best_weights(epoch))
        logging.info("DSD restored the weights of epoch %d, the best epoch of its phase", epoch + 1)
