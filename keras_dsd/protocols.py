"""What the controller asks of a framework. Above this seam nothing knows which Keras it serves."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from keras_dsd.algorithm.weight import ReadableWeight


class PrunableWeight(ReadableWeight, Protocol):
    """One weight tensor that DSD prunes."""

    def assign(self, value: np.ndarray) -> None:
        """Sets the values; `value` has the shape `shape`."""

    def apply_mask(self, mask: np.ndarray) -> None:
        """Puts `mask` in force: masked training steps keep the weight at `weight * mask`."""

    def remove_mask(self) -> None:
        """Takes the mask out of force."""

    def reset_slots(self, positions: np.ndarray) -> None:
        """Sets optimizer slots back to their initial value where `positions` is True.

        Args:
            positions: Boolean array of shape `shape`.
        """

    def reset_averages(self, positions: np.ndarray) -> None:
        """Sets the moving averages of the weight that optimizers keep to zero at `positions`.

        Args:
            positions: Boolean array of shape `shape`.
        """


@dataclasses.dataclass(frozen=True)
class SkippedWeight:
    """One weight that DSD leaves dense.

    Attributes:
        path: Where it is in the model.
        shape: Its shape.
        reason: Why it stays dense, in words.
    """

    path: str
    shape: tuple[int, ...]
    reason: str

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class TrainingAdapter(Protocol):
    """What the training of one model is made of, in the terms of its Keras."""

    @property
    def weights(self) -> Sequence[PrunableWeight]:
        """The weights that DSD prunes, in the model's order; empty before they are made."""

    def check(self) -> None:
        """Raises ValueError where the model can't be trained by DSD, before anything changes."""

    def reset_optimizers(self) -> None:
        """Sets all slots of the optimizers back to their initial value, but moving averages."""

    @property
    def batch_norms(self) -> Sequence[Any]:
        """The BatchNormalization layers that train."""

    def forward(self, inputs: Any) -> None:
        """Runs the model on the inputs of a batch, as in training."""

    def scale(self, lr: float) -> None:
        """Multiplies the learning rate, which is unscaled, by `lr`, for all to see."""

    def unscale(self) -> None:
        """Takes that back, keeping what callbacks made of the learning rate meanwhile."""

    def learning_rates(self) -> list[float]:
        """Returns the learning rates that are not computed from the step, as they are now."""

    def prints(self) -> bool:
        """Returns whether this Keras prints its progress, and does not log it."""

    def masking(self) -> Callable[[], None]:
        """Returns what sets the weights now held, and their averages, to zero where pruned."""

    def is_tracing(self) -> bool:
        """Returns whether what is called now is being recorded, to be run again and again."""

    def is_scheduled(self) -> bool:
        """Returns whether a learning rate is computed from the step, and so can't be set."""

    def masks_of(self, variables: Sequence[Any] | None) -> list[Any]:
        """Returns the mask in force of each variable as the backend's boolean tensor, or None.

        Args:
            variables: Of the model or of its optimizers; None for all that the model trains.
        """

    def traced(self, lr: float) -> float:
        """Returns what of `lr` a compiled step holds in itself: `lr`, or 1.0."""

    def make_step(self, masked: bool, lr: float) -> dict[str, Any]:
        """Makes a training step that is compiled when it first runs.

        Args:
            masked: Whether each update ends in `weight * mask` for the weights that are held.
            lr: What `traced` returned.

        Returns:
            The attributes that make the model train by it, `train_function` among them.
        """


class OpenRun:
    """Stands on a model in place of its `make_train_function` while a run is open."""

    def abandon(self) -> None:
        """Ends a run that an exception stopped before it could end itself."""


def open_run_of(model: Any) -> OpenRun | None:
    """Returns the run that is open on `model`, in `fit` or stopped by an exception, or None."""
    found = vars(model).get("make_train_function")
    return found if isinstance(found, OpenRun) else None
