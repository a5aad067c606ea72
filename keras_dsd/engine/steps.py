"""Optimizer steps of a run, counted on the host between readings of the optimizer."""

from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine.run_history import RunHistory
from keras_dsd.engine.trainer import Trainer
from keras_dsd.protocols import UpdateCount


class StepCounter:
    """Counts the steps of a run without waiting for the device at each of them.

    A step is one optimizer update. The optimizer counts updates, also in checkpoints, so a run
    resumes from this count. It is read at the start and end of an epoch, after the first batch,
    which shows the number of updates per batch, and at the expected end of a phase. Between two
    readings, batches are counted. In a custom training loop, whose variables may be up to date only
    at the start and end of an epoch, it is read only when a run starts or resumes.

    Args:
        trainer: Trains the model.
        num_batches: Number of batches of an epoch; None if unknown.
        earlier: Count of the optimizer when `fit` was called; None if unknown.
        initial_step: Step of the run at that count; None if the count itself tells.

    Attributes:
        step: Number of steps of the run before the last started batch.
        is_loaded: True if the optimizer was loaded since `fit` was called.
        is_assumed: True if a run starts with updates that an earlier run may have made.
    """

    def __init__(
        self,
        trainer: Trainer,
        num_batches: int | None,
        earlier: UpdateCount | None,
        initial_step: int | None = None,
    ) -> None:
        self.step = 0
        self.is_loaded = self.is_assumed = False
        self._earlier, self._initial_step = earlier, initial_step
        self._trainer = trainer
        self._num_batches = num_batches
        self._origin = 0  # steps of the optimizer before the first of the run
        self._number, self._per_step = 0, 1  # of updates, when it was read
        self._batch: int | None = None  # the next one then
        self._latest = 0
        self._per_batch, self._per_execution = 1, 1
        self._is_measured = False
        self._is_in_epoch = False

    @property
    def next(self) -> int:
        """Number of steps after this batch, according to batches."""
        is_begun = self._is_in_epoch and self._batch is not None
        return self._counted(self._latest + self._per_execution) if is_begun else self.step

    @property
    def per_execution(self) -> int:
        """Maximum number of steps of one call of the training step."""
        return self._in_steps(self._per_batch * self._per_execution, up=True)

    @property
    def per_epoch(self) -> int | None:
        """Number of steps of an epoch; None if unknown."""
        if self._num_batches is None:
            return None
        return self._in_steps(self._num_batches * self._per_batch)

    def of_next_batches(self, number: int) -> list[int]:
        """Returns how many steps the run makes before each of the next batches."""
        first = 0 if self._batch is None else self._latest - self._batch
        numbers = (self._number + (first + i) * self._per_batch for i in range(number))
        return [self._in_steps(each) - self._origin for each in numbers]

    @property
    def batches_per_execution(self) -> int:
        """Maximum number of batches in one call of the training step."""
        return self._per_execution

    @property
    def is_before_first_batch(self) -> bool:
        """True if no batch of the epoch has started."""
        return self._batch is None

    def resume(self, history: RunHistory, timeline: Timeline, epoch: int) -> None:
        """Determines the first step of a `fit` or a loop.

        Args:
            history: The history of earlier epochs. Missing numbers of steps are added.
            timeline: The phases.
            epoch: The first epoch.

        Raises:
            ValueError: The phase depends on unknown steps of earlier epochs.
        """
        count = self._trainer.update_count()
        if count is not None:
            self._number, self._per_step = count.number, count.per_step
            self.is_loaded = self._earlier not in (None, count)
        counted = self._in_steps(self._number)
        known = history.steps_before(epoch)
        is_start = epoch == 0 or (self.is_loaded and known is None)
        if self._initial_step is not None and is_start:
            earlier = self._number if self._earlier is None else self._earlier.number
            history.origin = self._in_steps(earlier) - self._initial_step
        made = counted - history.origin
        counts_from_first = timeline.phases[0].steps is not None
        if epoch == 0:
            is_told = self.is_loaded or self._initial_step is not None
            self.is_assumed = counts_from_first and made > 0 and not is_told
            step = made if counts_from_first or is_told else 0
        elif known is not None:
            if self._num_batches:  # as the run measured it before
                batches = epoch * self._num_batches
                self._per_batch = max(round(known * self._per_step / batches), 1)
            step = max(made, known)
            history.fill_steps([step] * epoch)
        else:
            ends = self._unrecorded(timeline, epoch, made)
            is_within = ends[-1] <= made <= ends[-1] + ends[-1] // epoch
            step = made if made and (counts_from_first or is_within) else ends[-1]
            history.fill_steps([min(each, step) for each in ends])
        self._origin = history.origin = counted - step
        self.step = step

    def begin_epoch(self) -> None:
        """Starts an epoch: resets the count of its batches."""
        self._batch, self._is_in_epoch = None, True
        self._per_execution = self._trainer.batches_per_execution

    def begin_batch(self, batch: int, end: float) -> int:
        """Returns the number of steps of the run before a batch.

        Args:
            batch: Its index in the epoch; that of the first batch of an execution.
            end: The step that ends the phase, at which the optimizer is read.
        """
        if self._batch is None:
            self._batch = batch
        self._latest = batch
        self.step = self._counted(batch)
        is_due = self.step >= end or not self._is_measured
        if batch > self._batch and is_due:
            self._read(batch)
        return self.step

    def end_epoch(self) -> int:
        """Returns the number of steps of the run by the end of an epoch."""
        if self._batch is not None:
            self._read(self._latest + self._per_execution)
        self._is_in_epoch = False
        return self.step

    def _read(self, batch: int) -> None:
        """Reads the optimizer before a batch, or counts batches if the optimizer has no count."""
        assert self._batch is not None
        step, batches = self._counted(batch), batch - self._batch
        count = self._trainer.update_count() if self._trainer.may_read_steps else None
        if count is None:
            self._number += batches * self._per_batch
        else:
            updates = count.number - self._number
            self._number, self._per_step = count.number, count.per_step
            if updates < 0:  # another optimizer: the model was compiled again
                self._origin = self._in_steps(count.number) - step
            else:
                self._per_batch = max(self._per_batch, -(-updates // batches))
        self._batch, self._is_measured = batch, True
        self.step = self._counted(batch)

    def _counted(self, batch: int) -> int:
        """Returns the number of steps before a batch, from the batches since the last reading."""
        batches = batch - (batch if self._batch is None else self._batch)
        return self._in_steps(self._number + batches * self._per_batch) - self._origin

    def _unrecorded(self, timeline: Timeline, epoch: int, made: int) -> list[int]:
        """Returns the numbers of steps by the ends of earlier epochs, assuming equal lengths."""
        if self._num_batches is not None:
            batches = self._num_batches * self._per_batch
            return [self._in_steps(batches * each) for each in range(1, epoch + 1)]
        if timeline.counts_steps and (timeline.mixes_units or not made):
            raise ValueError(
                f"Expected a known number of steps of the previous {epoch} epochs, as phases are "
                f"counted in steps. Received: initial_epoch={epoch}, an optimizer that has made "
                f"{made} updates, and no record of steps. Load the optimizer with the weights, "
                f"pass steps_per_epoch to fit, or pass the backup_dir of the interrupted run to "
                f"DSDSchedule."
            )
        return [made * each // epoch for each in range(1, epoch + 1)]

    def _in_steps(self, number: int, up: bool = False) -> int:
        """Returns the number of steps of a number of updates, rounded down or up."""
        return -(-number // self._per_step) if up else number // self._per_step
