"""What the controller asks of a framework. Above this seam nothing knows which Keras it serves."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class PrunableWeight(Protocol):
    """One weight tensor that DSD prunes."""

    @property
    def path(self) -> str:
        """Where the weight is in the model, such as `"dense/kernel"`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""

    @property
    def sparsity(self) -> float:
        """The share of the tensor that `apply` was asked to prune, a fraction in [0, 1)."""

    @property
    def mask(self) -> np.ndarray | None:
        """The mask in force, boolean, of shape `shape`, True where kept; None in dense phases."""

    def numpy(self) -> np.ndarray:
        """Returns a copy of the values, in the dtype the optimizer updates."""

    def assign(self, value: np.ndarray) -> None:
        """Sets the values; `value` has the shape `shape`."""

    def hold(self, mask: np.ndarray) -> None:
        """Puts `mask` in force: masked training steps keep the weight at `weight * mask`."""

    def release(self) -> None:
        """Takes the mask out of force."""

    def clear_slots(self, positions: np.ndarray) -> None:
        """Sets optimizer slots back to their initial value where `positions` is True.

        Args:
            positions: Boolean array of shape `shape`.
        """


class Trainer(Protocol):
    """The training side of one model, for as long as a `fit` lasts."""

    @property
    def weights(self) -> Sequence[PrunableWeight]:
        """The weights that DSD prunes, in the model's order."""

    def check(self) -> None:
        """Raises ValueError where the model can't be trained by DSD, before anything changes."""

    def open(self) -> None:
        """Begins: from now on the trainer may change how the model trains."""

    def use_step(self, *, masked: bool, lr: float) -> None:
        """Chooses the compiled training step for the steps that follow.

        Args:
            masked: Whether each update ends in `weight * mask` for the weights that are held.
            lr: What the learning rate, as the user's own callbacks drive it, is multiplied by.
        """

    def end_epoch(self) -> None:
        """Notes that an epoch is over."""

    def close(self) -> None:
        """Ends: the model trains as it did before `open`, at its unscaled learning rate."""
