"""Optimizer steps of a run: counted on the host, batch by batch, from readings of the optimizer."""

from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine.run_history import RunHistory
from keras_dsd.engine.trainer import Trainer
from keras_dsd.protocols import UpdateCount


class StepCounter:
    """Counts the steps of a run without waiting for the device at each of them.

    A step is one update by the optimizer, which counts them itself, in every checkpoint; so a run
    resumes from that count. It is read as an epoch starts and ends, after the first batch, which
    shows how many updates a batch makes, and where a phase should end. Between two readings,
    batches are counted. In a custom training loop, whose variables may hold their values only as an
    epoch starts and ends, it is read where a run starts or resumes alone.

    Args:
        trainer: Trains the model.
        num_batches: Number of batches of an epoch; None if unknown.
        earlier: What the optimizer had counted as `fit` was called; None if unknown.

    Attributes:
        step: Number of steps that the run has made before the batch that was begun last.
        is_loaded: Whether something has loaded the optimizer since `fit` was called.
    """

    def __init__(
        self, trainer: Trainer, num_batches: int | None, earlier: UpdateCount | None
    ) -> None:
        self.step = 0
        self.is_loaded = False
        self._earlier = earlier
        self._trainer = trainer
        self._num_batches = num_batches
        self._origin = 0  # steps of the optimizer before the run's first
        self._number, self._per_step = 0, 1  # of updates, when it was read
        self._batch: int | None = None  # the next one then
        self._latest = 0
        self._per_batch, self._per_execution = 1, 1
        self._is_measured = False
        self._is_in_epoch = False

    @property
    def next(self) -> int:
        """Number of steps that it has made after that batch, as far as batches tell."""
        is_begun = self._is_in_epoch and self._batch is not None
        return self._counted(self._latest + self._per_execution) if is_begun else self.step

    @property
    def per_execution(self) -> int:
        """The most steps that one call of the training step makes."""
        return self._in_steps(self._per_batch * self._per_execution, up=True)

    @property
    def per_epoch(self) -> int | None:
        """Number of steps of an epoch, as far as `fit` knows it; None if it does not."""
        if self._num_batches is None:
            return None
        return self._in_steps(self._num_batches * self._per_batch)

    def resume(self, history: RunHistory, timeline: Timeline, epoch: int) -> None:
        """Finds the step that a `fit` or a loop starts at.

        Args:
            history: Of the epochs before. Steps that it lacks are added.
            timeline: The phases.
            epoch: The epoch that it starts with.

        Raises:
            ValueError: The phase depends on the steps of earlier epochs, and nothing tells them.
        """
        count = self._trainer.update_count()
        if count is not None:
            self._number, self._per_step = count.number, count.per_step
            self.is_loaded = self._earlier not in (None, count)
        counted = self._in_steps(self._number)
        made, known = counted - history.origin, history.steps_before(epoch)
        counts_from_first = timeline.phases[0].steps is not None
        if epoch == 0:
            step = made if counts_from_first or self.is_loaded else 0
        elif known is not None:
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
        """Starts an epoch: its batches are counted anew."""
        self._batch, self._is_in_epoch = None, True
        self._per_execution = self._trainer.batches_per_execution

    def begin_batch(self, batch: int, end: float) -> int:
        """Returns how many steps the run has made before a batch.

        Args:
            batch: Its index in the epoch; of an execution of several, that of the first.
            end: The step that ends the phase, where the optimizer is read.
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
        """Returns how many steps the run has made by the end of an epoch."""
        if self._batch is not None:
            self._read(self._latest + self._per_execution)
        self._is_in_epoch = False
        return self.step

    def _read(self, batch: int) -> None:
        """Reads the optimizer before a batch, or counts batches where that tells nothing."""
        assert self._batch is not None
        step, batches = self._counted(batch), batch - self._batch
        count = self._trainer.update_count() if self._trainer.may_read_steps else None
        if count is None:
            self._number += batches * self._per_batch
        else:
            updates = count.number - self._number
            self._number, self._per_step = count.number, count.per_step
            if updates < 0:  # another optimizer: the model was compiled anew
                self._origin = self._in_steps(count.number) - step
            else:
                self._per_batch = max(self._per_batch, -(-updates // batches))
        self._batch, self._is_measured = batch, True
        self.step = self._counted(batch)

    def _counted(self, batch: int) -> int:
        """Returns the steps made before a batch, by the batches since the last reading."""
        batches = batch - (batch if self._batch is None else self._batch)
        return self._in_steps(self._number + batches * self._per_batch) - self._origin

    def _unrecorded(self, timeline: Timeline, epoch: int, made: int) -> list[int]:
        """Returns the steps made by the ends of the epochs before `epoch`, each taken as long."""
        if self._num_batches is not None:
            batches = self._num_batches * self._per_batch
            return [self._in_steps(batches * each) for each in range(1, epoch + 1)]
        if timeline.counts_steps and (timeline.mixes_units or not made):
            raise ValueError(
                f"Expected to know how many steps the {epoch} epochs before have made, as phases "
                f"are counted in steps. Received: initial_epoch={epoch}, an optimizer that has "
                f"made {made} updates, and no record of them. Load the optimizer with the "
                f"weights, give fit steps_per_epoch, or give DSDSchedule the backup_dir of the "
                f"run that stopped."
            )
        return [made * each // epoch for each in range(1, epoch + 1)]

    def _in_steps(self, number: int, up: bool = False) -> int:
        """Returns the number of steps that so many updates make, rounded down or up."""
        return -(-number // self._per_step) if up else number // self._per_step
