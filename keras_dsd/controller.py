"""The only state of a run: which phase it is in. Enters and leaves phases across the seam."""

import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from keras_dsd.pruning import masks_for
from keras_dsd.seam import PrunableWeight
from keras_dsd.timeline import SparsePhase, Timeline
from keras_dsd.training import Trainer

# Packages between the line of a user's that trains and this one.
_ON_THE_WAY = {"keras_dsd", "keras", "tf_keras", "tensorflow"}


class Controller:
    """Takes one model through a timeline.

    What is pruned is read back off the weights and their masks, so a run may begin at any epoch,
    from any checkpoint. Only its number is kept, to notice a mask that something else undoes.

    Args:
        timeline: The phases.
        trainer: The model's training side.
    """

    def __init__(self, timeline: Timeline, trainer: Trainer) -> None:
        self._timeline = timeline
        self._trainer = trainer
        self._index: int | None = None
        self._num_pruned = 0
        self._num_returned = 0

    def start(self, epochs: int | None) -> None:
        """Checks that the run can be made, and begins it.

        Args:
            epochs: The epoch that training is to end at, as given to `fit`; None if unknown.

        Raises:
            ValueError: The timeline does not fit, or the model can't be trained by DSD.
        """
        if epochs is not None and epochs < self._timeline.epochs:
            raise ValueError(
                f"Expected the phases to fit in the epochs of `fit`: they take "
                f"{self._timeline.epochs} ({self._timeline}). Received: epochs={epochs}. Call fit "
                f"with epochs={self._timeline.epochs} or more, or shorten the phases."
            )
        self._trainer.check()
        self._trainer.open()
        self._index = None
        self._num_returned = 0

    def begin_epoch(self, epoch: int) -> None:
        """Enters the phase that `epoch` is in.

        Args:
            epoch: Counted from 0.

        Raises:
            ValueError: A weight to be pruned holds NaN or infinity.
        """
        index = self._timeline.index_at(epoch)
        phase = self._timeline.phases[index]
        if index != self._index:
            if self._index is None and epoch == self._timeline.start_of(index):
                self._recover(index - 1)
            changed = self._prune(phase) if isinstance(phase, SparsePhase) else self._return()
            self._index = index
            logging.info(
                "DSD phase %d of %d begins at epoch %d: %s; %s",
                index + 1, len(self._timeline.phases), epoch + 1, phase, changed,
            )  # fmt: skip
        masked = isinstance(phase, SparsePhase)
        self._trainer.use_step(masked=masked, lr=phase.lr)

    def end_epoch(self) -> dict[str, Any]:
        """Returns what the epoch's logs are to carry.

        Returns:
            `dsd_phase`, the index of the phase, and `dsd_sparsity`, the share of zeros among
            the selected weights, measured.
        """
        self._trainer.end_epoch()
        num_zeros, size = count_zeros(self._trainer.weights)
        if num_zeros < self._num_pruned:
            _warn(
                f"The mask did not hold: {num_zeros} weights are zero at the end of an epoch in "
                f"which {self._num_pruned} were to stay so. Something other than the model's "
                f"compiled training step updates or sets the weights."
            )
        return {"dsd_phase": self._index, "dsd_sparsity": num_zeros / max(size, 1)}

    def stop(self) -> None:
        """Ends the run, wherever it is."""
        index, self._index = self._index, None
        self._trainer.close()
        if self._is_pruned():
            _warn(
                "Training ended with pruned weights: the sparse phase was the last one reached "
                "(or its weights were restored). Go on with `initial_epoch` to train them dense "
                "again, or use the model as it is, sparse."
            )
        elif index is not None and index + 1 < len(self._timeline.phases):
            logging.warning(
                "Training ended in DSD phase %d of %d; the phases after it did not run. "
                "Go on with `initial_epoch` to run them.",
                index + 1, len(self._timeline.phases),
            )  # fmt: skip

    def _is_pruned(self) -> bool:
        """Returns whether weights are pruned now, if only since others restored them so."""
        weights = self._trainer.weights
        if any(weight.mask is not None for weight in weights):
            return True
        return 0 < self._num_returned <= count_zeros(weights)[0]

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
            self._num_pruned += _hold(weight, mask)
        size = sum(int(np.prod(weight.shape)) for weight in weights)
        return (
            f"pruned {self._num_pruned} of {size} weights in {len(weights)} tensors, "
            f"masks took {time.perf_counter() - began:.3f} s"
        )

    def _return(self) -> str:
        self._num_pruned = self._num_returned = 0
        for weight in self._trainer.weights:
            mask = weight.mask
            if mask is not None:
                weight.clear_slots(~mask)
                weight.release()
                self._num_returned += int(np.count_nonzero(~mask))
        if self._num_returned:
            return f"{self._num_returned} weights return from zero"
        return "all weights train"


def count_zeros(weights: Sequence[PrunableWeight]) -> tuple[int, int]:
    """Returns how many values of `weights` are zero, and how many there are."""
    values = [weight.numpy() for weight in weights]
    size = sum(value.size for value in values)
    return size - sum(int(np.count_nonzero(value)) for value in values), size


def _warn(message: str) -> None:
    """Warns at the line that called Keras, each time: not only in the first run of a process."""
    frame: Any = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _ON_THE_WAY:
        frame = frame.f_back
    place = (frame.f_code.co_filename, frame.f_lineno)
    warnings.warn_explicit(message, UserWarning, *place, module=__name__, registry={})


def _hold(weight: PrunableWeight, mask: np.ndarray) -> int:
    """Puts a mask in force, unless it is already, and returns how many weights it prunes."""
    values, before = weight.numpy(), weight.mask
    if before is None or not np.array_equal(before, mask):
        returned = np.zeros(mask.shape, bool) if before is None else mask & ~before
        weight.hold(mask)
        if values[~mask].any() or returned.any():
            weight.assign(np.where(mask, values, np.zeros((), values.dtype)))
            weight.clear_slots(~mask | returned)
    return int(np.count_nonzero(~mask))
