"""The only state of a run: which phase it is in. Enters and leaves phases across the seam."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from absl import logging

from keras_dsd.algorithm.masks import check_pruned_alike, masks_for
from keras_dsd.algorithm.sparsity import measure
from keras_dsd.algorithm.timeline import SparsePhase, Timeline
from keras_dsd.engine.batch_norm import Batches
from keras_dsd.engine.messages import say, warn_user
from keras_dsd.engine.observers import (
    AFTER_PRUNING,
    BEFORE_PRUNING,
    END_OF_SPARSE,
    FIRST_REDENSE_EPOCH,
    LAST_REDENSE_EPOCH,
    Audience,
    Moment,
    Observer,
)
from keras_dsd.engine.run_history import RunRecord
from keras_dsd.engine.trainer import Trainer
from keras_dsd.engine.transition import Slots, prune, release
from keras_dsd.protocols import PrunableWeight
from keras_dsd.utils import checks
from keras_dsd.utils.progress import progress_bar

# What takes longer where phases meet gets a progress bar.
_SECONDS_WITHOUT_BAR = 1.0


class Controller:
    """Takes one model through a timeline.

    What is pruned is read back off the weights and their masks, so a run may begin at any epoch,
    from any checkpoint. Only its number is kept, to notice a mask that something else undoes.

    Args:
        timeline: The phases.
        trainer: The model's training side.
        reset: Which optimizer slots a change of phase sets back: `"pruned"`, `"all"`, `"none"`.
        remaining_epochs: `"redense"` where the last phase gets the epochs that others did not
            use, `"stop"` where training ends without them.
        folder: Where to keep what `until` needs for a run to go on, or None.
        batches: What to estimate the statistics of BatchNormalization from after pruning, or None.
        observers: What is told of the run.
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
        self._leftover = remaining_epochs
        self._batches = batches
        self._audience = Audience(observers)
        self._record = RunRecord(timeline, folder)
        self._index: int | None = None
        self._start: int | None = None
        self._epochs: int | None = None
        self._is_shown = False
        self._num_pruned = 0
        self._returned: tuple[tuple[PrunableWeight, np.ndarray], ...] = ()

    def start(self, epochs: int | None, verbose: bool = False) -> None:
        """Checks that the run can be made, and begins it.

        Args:
            epochs: The epoch that training is to end at, as given to `fit`; None if unknown.
            verbose: Whether to print what changes, rather than to log it.

        Raises:
            ValueError: The timeline does not fit, or the model can't be trained by DSD, or the
                folder for backups can't be written to.
        """
        if epochs is not None and epochs < self._timeline.epochs:
            raise ValueError(
                f"Expected the phases to fit in the epochs of `fit`: they take "
                f"{self._timeline.epochs} ({self._timeline}). Received: epochs={epochs}. Call fit "
                f"with epochs={self._timeline.epochs} or more, or shorten the phases."
            )
        self._trainer.check()
        self._record.check()
        self._audience.begin(self._timeline)
        self._trainer.open()
        self._index, self._epochs = None, epochs
        self._is_shown = verbose and self._trainer.prints()
        self._returned = ()

    def begin_epoch(self, epoch: int) -> None:
        """Enters the phase that `epoch` is in.

        Args:
            epoch: Counted from 0.

        Raises:
            TypeError: `epoch` is not an integer.
            ValueError: `epoch` is negative; a weight to be pruned, or to return, holds NaN or
                infinity; the run goes on within a sparse phase with weights that were pruned at
                another sparsity; or a record of earlier epochs is needed and there is none. All
                weights are as they were.
        """
        epoch = checks.whole_number("epoch", epoch, least=0)
        if not self._record.go_on(epoch, self._all_weights):
            warn_user(
                f"What epoch {epoch} measured was not recorded: the run was stopped between a "
                f"callback that saved that epoch and DSDSchedule. It counts as not measured, so a "
                f"phase may last longer. Put DSDSchedule before BackupAndRestore."
            )
        starts = self._timeline.starts(self._record.history)
        index = len(starts) - 1
        phase = self._timeline.phases[index]
        if index != self._index:
            if epoch == starts[-1] > 0:
                self._record.warn_if_unmeasured(index - 1, starts[-2], epoch)
                self._restore_best(epoch - 1)
            if self._index is None and epoch == starts[-1]:
                self._recover(index - 1)
            elif self._index is None and isinstance(phase, SparsePhase):
                self._check_goes_on(phase)
            self._enter(index, epoch, is_start=epoch == starts[-1])
        self._trainer.use_step(masked=isinstance(phase, SparsePhase), lr=phase.lr)

    def _enter(self, index: int, epoch: int, is_start: bool) -> None:
        """Enters a phase, at its start or, where a run goes on, within it."""
        phase, slots = self._timeline.phases[index], Slots(self._reset)
        weights = self._trainer.weights  # looked up in the whole model, each time
        if isinstance(phase, SparsePhase):
            if is_start:
                self._tell_of_redense_end(index - 1)
                self._tell(BEFORE_PRUNING, index)
            with self._bar(len(weights)) as told:
                change = prune(weights, phase.sparsity, slots, told)
        else:
            if is_start and self._timeline.is_sparse(index - 1):
                self._tell(END_OF_SPARSE, index - 1)
            change = release(weights, slots)
        self._num_pruned, self._returned = change.num_pruned, change.returned
        if slots.all_begin_anew:
            self._trainer.reset_optimizers()
        words = [change.words, slots.words, self._trainer.rate_words(phase.lr)]
        if isinstance(phase, SparsePhase) and is_start:
            if self._batches:
                with self._bar(self._batches.number) as told:
                    words.insert(1, self._trainer.estimate_batch_norms(self._batches, told))
            self._tell(AFTER_PRUNING, index)
        self._index, self._start = index, epoch if is_start else None
        self._announce(index, epoch, "; ".join(filter(None, words)))

    def _announce(self, index: int, epoch: int, changed: str) -> None:
        phase = self._timeline.phases[index]
        say(
            f"DSD phase {index + 1} of {len(self._timeline.phases)} begins at epoch {epoch + 1}: "
            f"{phase}; {changed}",
            shown=self._is_shown,
        )
        self._audience.phase(index, phase, epoch, changed)

    def end_epoch(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Notes an epoch's logs, and returns what they are to carry besides.

        Args:
            logs: What Keras measured.

        Returns:
            `dsd_phase`, the index of the phase; `dsd_sparsity`, the share of zeros among
            the selected weights, measured: in a sparse phase those count that its masks prune, as a
            weight that they keep may underflow to zero, and is not pruned then; and
            `dsd_epochs_left`, of the phase, at most where `until` may end it early.
        """
        if not isinstance(logs, Mapping):
            raise TypeError(
                f"Expected `logs` to be a dict from names to numbers. Received: "
                f"logs={checks.shown(logs)} of type {type(logs).__name__}. Give a dict, or nothing."
            )
        self._trainer.end_epoch()
        self._record.add(logs, self._all_weights)
        found = measure(self._trainer.weights)
        if found.num_violations or found.num_pruned < self._num_pruned:
            warn_user(
                f"The mask did not hold: {found.num_zeros} weights are zero at the end of an epoch "
                f"in which {self._num_pruned} were to stay so. Something other than the model's "
                f"compiled training step updates or sets the weights; a DSDLoop has to call "
                f"apply_masks() after each update."
            )
        measured = {
            "dsd_phase": self._index,
            "dsd_sparsity": found.num_zeros / max(found.size, 1),
            "dsd_epochs_left": self._epochs_left(),
        }
        epoch = len(self._record.history) - 1
        if epoch == self._start and self._timeline.is_redense(self._index or 0):
            self._tell(FIRST_REDENSE_EPOCH, self._index or 0)
        self._audience.epoch_end(epoch, {**logs, **measured}, self._trainer)
        return measured

    def _epochs_left(self) -> int:
        """Returns how many epochs the phase has yet, at most where `until` may end it early."""
        starts = self._timeline.starts(self._record.history[:-1])
        end = starts[-1] + self._timeline.phases[len(starts) - 1].epochs
        if len(starts) == len(self._timeline.phases) and self._leftover == "redense":
            end = max(end, self._epochs or 0)
        return max(end - len(self._record.history), 0)

    @property
    def is_over(self) -> bool:
        """Whether the last phase is over, so that training is to end."""
        return self._timeline.is_over(self._record.history, self._leftover)

    def stop(self) -> None:
        """Ends the run, wherever it is."""
        index, self._index = self._index, None
        if index is not None and index + 1 == len(self._timeline.phases):
            self._restore_best(len(self._record.history) - 1)
        self._trainer.close()
        if index is not None:
            self._tell_of_redense_end(index)
        self._audience.end()
        if self._is_pruned():
            warn_user(
                "Training ended with pruned weights: the sparse phase was the last one reached "
                "(or its weights were restored). Go on at the next epoch (`initial_epoch` of fit) "
                "to train them dense again, or use the model as it is, sparse."
            )
        elif index is not None and index + 1 < len(self._timeline.phases):
            logging.warning(
                "Training ended in DSD phase %d of %d; the phases after it did not run. "
                "Go on at the next epoch (`initial_epoch` of fit) to run them.",
                index + 1, len(self._timeline.phases),
            )  # fmt: skip

    def _tell(self, name: str, index: int) -> None:
        self._audience.moment(Moment(name, len(self._record.history), index), self._trainer)

    def _tell_of_redense_end(self, index: int) -> None:
        if self._timeline.is_redense(index):
            self._tell(LAST_REDENSE_EPOCH, index)

    def _bar(self, total: int) -> AbstractContextManager[Callable[[str], None]]:
        return progress_bar(self._is_shown, total, 0, after=_SECONDS_WITHOUT_BAR)

    def _is_pruned(self) -> bool:
        """Returns whether weights are pruned now, if only since others restored them so."""
        weights = self._trainer.weights
        if any(weight.mask is not None for weight in weights):
            return True
        samples = (weight.numpy().flat[positions] for weight, positions in self._returned)
        return bool(self._returned) and not any(sample.any() for sample in samples)

    def _all_weights(self) -> list[np.ndarray]:
        for weight in self._trainer.weights[:1]:
            weight.numpy()  # brings a JAX model's values back from where fit keeps them
        return [np.array(value) for value in self._trainer.model.get_weights()]

    def _restore_best(self, epoch: int) -> None:
        """Sets the weights to the best of the phase that ended with `epoch`, if asked to."""
        best = self._record.best_epoch(epoch) if epoch >= 0 else None
        if best is not None and best != epoch:
            self._trainer.model.set_weights(self._record.best_weights(best))
            logging.info("DSD restored the weights of epoch %d, the best of its phase", best + 1)

    def _recover(self, index: int) -> None:
        """Puts masks back in force where a run goes on right after phase `index`, if sparse.

        A checkpoint of the phase's last epoch may hold the zeros and not the masks; without them
        the weights would return with slots that a run in one piece clears.
        """
        phase = self._timeline.phases[index] if index >= 0 else None
        if isinstance(phase, SparsePhase):
            for weight, mask in masks_for(self._trainer.weights, phase.sparsity):
                if weight.mask is None and not weight.numpy()[~mask].any():
                    weight.apply_mask(mask)

    def _check_goes_on(self, phase: SparsePhase) -> None:
        """Checks weights with which a run begins within `phase`, before they are changed."""
        num_unknown = check_pruned_alike(self._trainer.weights, phase.sparsity)
        if num_unknown:
            warn_user(
                f"A sparse phase goes on with {num_unknown} more zeros than its masks prune, and "
                f"the file has no masks: of equal weights, those that come first stay pruned. "
                f"The others train. Was it pruned at a higher sparsity, or have kept weights "
                f"underflowed to zero?"
            )
