"""The only state of a run: which phase it is in. Enters and leaves phases across the seam."""

import pathlib
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from keras_dsd import checks
from keras_dsd.batch_norm import Batches
from keras_dsd.masks import check_finite
from keras_dsd.pruning import check_pruned_alike, masks_for
from keras_dsd.run_record import RunRecord
from keras_dsd.seam import PrunableWeight
from keras_dsd.timeline import SparsePhase, Timeline
from keras_dsd.training import Trainer
from keras_dsd.zeros import measure, num_zeros, sample_pruned

# Packages between the line of a user's that trains and this one.
_ON_THE_WAY = {"keras_dsd", "keras", "tf_keras", "tensorflow"}


class Controller:
    """Takes one model through a timeline.

    What is pruned is read back off the weights and their masks, so a run may begin at any epoch,
    from any checkpoint. Only its number is kept, to notice a mask that something else undoes.

    Args:
        timeline: The phases.
        trainer: The model's training side.
        reset: Which optimizer slots a change of phase sets back: `"pruned"`, `"all"`, `"none"`.
        leftover: `"redense"` where the last phase gets the epochs that others left over, `"stop"`
            where training ends without them.
        folder: Where to keep what `until` needs for a run to go on, or None.
        batches: What to estimate the statistics of BatchNormalization from after pruning, or None.
    """

    def __init__(
        self,
        timeline: Timeline,
        trainer: Trainer,
        reset: str = "pruned",
        leftover: str = "redense",
        folder: pathlib.Path | None = None,
        batches: Batches | None = None,
    ) -> None:
        self._timeline = timeline
        self._trainer = trainer
        self._reset = reset
        self._leftover = leftover
        self._batches = batches
        self._record = RunRecord(timeline, folder)
        self._index: int | None = None
        self._num_pruned = 0
        self._returned: list[tuple[PrunableWeight, np.ndarray]] = []
        self._clears_all = False

    def start(self, epochs: int | None) -> None:
        """Checks that the run can be made, and begins it.

        Args:
            epochs: The epoch that training is to end at, as given to `fit`; None if unknown.

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
        self._trainer.open()
        self._index = None
        self._returned = []

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
            _warn(
                f"What epoch {epoch} measured was not recorded: the run was stopped between a "
                f"callback that saved that epoch and DSDSchedule. It counts as not measured, so a "
                f"phase may last longer. Put DSDSchedule before BackupAndRestore."
            )
        starts = self._timeline.starts(self._record.history)
        index = len(starts) - 1
        phase = self._timeline.phases[index]
        if index != self._index:
            if epoch == starts[-1] > 0:
                self._say_if_unmeasured(index - 1, starts[-2], epoch)
                self._restore_best(epoch - 1)
            if self._index is None and epoch == starts[-1]:
                self._recover(index - 1)
            elif self._index is None and isinstance(phase, SparsePhase):
                self._check_goes_on(phase)
            self._clears_all = False
            changed = self._prune(phase) if isinstance(phase, SparsePhase) else self._return()
            if self._clears_all:
                self._trainer.clear_optimizers()
            if self._batches and isinstance(phase, SparsePhase) and epoch == starts[-1]:
                changed += f"; {self._trainer.estimate_batch_norms(self._batches)}"
            self._index = index
            logging.info(
                "DSD phase %d of %d begins at epoch %d: %s; %s",
                index + 1, len(self._timeline.phases), epoch + 1, phase, changed,
            )  # fmt: skip
        masked = isinstance(phase, SparsePhase)
        self._trainer.use_step(masked=masked, lr=phase.lr)

    def end_epoch(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Notes an epoch's logs, and returns what they are to carry besides.

        Args:
            logs: What Keras measured.

        Returns:
            `dsd_phase`, the index of the phase, and `dsd_sparsity`, the share of zeros among
            the selected weights, measured. In a sparse phase those count that its masks prune: a
            weight that they keep may underflow to zero, and is not pruned then.
        """
        if not isinstance(logs, Mapping):
            raise TypeError(
                f"Expected `logs` to be a dict from names to numbers. Received: "
                f"logs={checks.shown(logs)} of type {type(logs).__name__}. Give a dict, or nothing."
            )
        self._trainer.end_epoch()
        self._record.add(logs, self._all_weights)
        found = measure(self._trainer.weights)
        if found.num_astray or found.num_pruned < self._num_pruned:
            _warn(
                f"The mask did not hold: {found.num_zeros} weights are zero at the end of an epoch "
                f"in which {self._num_pruned} were to stay so. Something other than the model's "
                f"compiled training step updates or sets the weights; a DSDLoop has to call "
                f"apply_masks() after each update."
            )
        return {"dsd_phase": self._index, "dsd_sparsity": found.num_zeros / max(found.size, 1)}

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
        if self._is_pruned():
            _warn(
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

    def _is_pruned(self) -> bool:
        """Returns whether weights are pruned now, if only since others restored them so."""
        weights = self._trainer.weights
        if any(weight.mask is not None for weight in weights):
            return True
        samples = (weight.numpy().flat[positions] for weight, positions in self._returned)
        return bool(self._returned) and not any(sample.any() for sample in samples)

    def _say_if_unmeasured(self, index: int, start: int, end: int) -> None:
        until = self._timeline.phases[index].until
        logs = self._record.history[start:end]
        if until is not None and not any(until.monitor in each for each in logs):
            _warn(
                f"A phase is to end when {until.monitor!r} stops improving, but "
                f"{until.monitor!r} was in the logs of none of the {len(logs)} epochs that it "
                f"took. Give fit validation_data for a name that begins with val_, or put what "
                f"measures it before DSDSchedule in the list of callbacks; or give it to "
                f"DSDLoop.end_epoch({{...}})."
            )

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
                    weight.hold(mask)

    def _check_goes_on(self, phase: SparsePhase) -> None:
        """Checks weights with which a run begins within `phase`, before they are changed."""
        num_unknown = check_pruned_alike(self._trainer.weights, phase.sparsity)
        if num_unknown:
            _warn(
                f"A sparse phase goes on with {num_unknown} more zeros than its masks prune, and "
                f"the file has no masks: of equal weights, those that come first stay pruned. "
                f"The others train. Was it pruned at a higher sparsity, or have kept weights "
                f"underflowed to zero?"
            )

    def _prune(self, phase: SparsePhase) -> str:
        began = time.perf_counter()
        weights = self._trainer.weights
        if not weights:
            raise ValueError(
                "Expected trainable weights to prune when a sparse phase begins. Received: a model "
                "that has not been built, or in which all that was selected is frozen. Call "
                "model.build(input_shape), or the model on one batch, before fit; or unfreeze."
            )
        self._num_pruned = 0
        for weight, mask in masks_for(weights, phase.sparsity):
            self._num_pruned += self._hold(weight, mask)
        size = sum(int(np.prod(weight.shape)) for weight in weights)
        return (
            f"pruned {self._num_pruned} of {size} weights in {len(weights)} tensors, "
            f"masks took {time.perf_counter() - began:.3f} s"
        )

    def _return(self) -> str:
        held = [weight for weight in self._trainer.weights if weight.mask is not None]
        for weight in held:
            check_finite(weight.numpy(), weight.path)
        self._num_pruned, self._returned, num_returned = 0, [], 0
        for weight in held:
            mask = np.asarray(weight.mask)
            self._clear(weight, ~mask)
            weight.release()
            num_returned += num_zeros(mask, None)
            if not mask.all():
                self._returned.append((weight, sample_pruned(mask)))
        return f"{num_returned} weights return from zero" if held else "all weights train"

    def _hold(self, weight: PrunableWeight, mask: np.ndarray) -> int:
        """Puts a mask in force, unless it is already, and returns how many weights it prunes."""
        values, before = weight.numpy(), weight.mask
        if before is None or not np.array_equal(before, mask):
            returned = np.zeros(mask.shape, bool) if before is None else mask & ~before
            weight.hold(mask)
            if values[~mask].any() or returned.any():
                weight.assign(np.where(mask, values, np.zeros((), values.dtype)))
                self._clear(weight, ~mask | returned)
        return int(np.count_nonzero(~mask))

    def _clear(self, weight: PrunableWeight, positions: np.ndarray) -> None:
        """Sets back what optimizers keep of a weight that is pruned, or returns, at `positions`."""
        if self._reset == "none":
            weight.clear_averages(positions)
        else:
            weight.clear_slots(positions)
        self._clears_all = self._reset == "all"


def _warn(message: str) -> None:
    """Warns at the line that called Keras, each time: not only in the first run of a process."""
    frame: Any = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _ON_THE_WAY:
        frame = frame.f_back
    place = (frame.f_code.co_filename, frame.f_lineno)
    warnings.warn_explicit(message, UserWarning, *place, module=__name__, registry={})
