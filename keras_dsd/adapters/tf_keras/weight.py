"""PrunableWeight over a tf_keras variable and the mask variable that TF-MOT's wrapper keeps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_dsd.adapters.tf_keras import optimizer
from keras_dsd.algorithm.kernel_layout import Layout, layout_of
from keras_dsd.algorithm.selection import FROZEN


def path_of(variable: Any, prefix: str = "") -> str:
    """Returns the path of a variable: the models around it, then its own name."""
    return prefix + variable.name.rpartition(":")[0]


def frozen(layer: Any) -> str | None:
    """Returns the reason why the weights of `layer` stay dense unless named, or None."""
    return None if layer.trainable else FROZEN


def _layout(variable: Any, layer: Any) -> Layout:
    parts = [part for part in layer._flatten_layers() if part is not layer]
    holders = (part for part in parts if any(variable is each for each in _own(part)))
    return layout_of(next(holders, layer), len(variable.shape))


def _own(layer: Any) -> list[Any]:
    return layer._trainable_weights + layer._non_trainable_weights


class Candidate:
    """A weight that may be selected; what a callable given as `sparsity` gets to see.

    Args:
        variable: The kernel.
        layer: The layer that holds it, or holds the one that does.
        prefix: What its path starts with.
    """

    def __init__(self, variable: Any, layer: Any, prefix: str) -> None:
        self.variable = variable
        self.path = self.short_path = path_of(variable, prefix)
        self.shape = tuple(variable.shape)
        self.layout = _layout(variable, layer)

    def numpy(self) -> np.ndarray:
        """Returns a copy of the values, in the dtype the optimizer updates."""
        return np.array(self.variable.numpy())


class Weight(Candidate):
    """A weight that DSD prunes.

    Args:
        variable: The kernel.
        wrapper: The wrapper of the layer that holds it.
        sparsity: The share of it that `apply` was asked to prune.
        mask: The mask variable, of the kernel's shape; 1 where kept.
        threshold: The scalar variable that TF-MOT's tools read beside it.
        optimizers: Those whose slots are to be cleared.
    """

    def __init__(
        self,
        variable: Any,
        wrapper: Any,
        sparsity: float,
        mask: Any,
        threshold: Any,
        optimizers: Sequence[Any] = (),
    ) -> None:
        super().__init__(variable, wrapper.layer, wrapper.prefix)
        self.sparsity = sparsity
        self.pattern = wrapper.selection.pattern
        self.scope = wrapper.selection.scope
        self.mask_variable = mask
        self._threshold = threshold
        self._optimizers = optimizers

    @property
    def mask(self) -> np.ndarray | None:
        """The mask in force, boolean, True where kept; None in dense phases."""
        mask = self.mask_variable.numpy() != 0
        return None if mask.all() else mask

    def assign(self, value: np.ndarray) -> None:
        """Sets the values."""
        self.variable.assign(value)

    def apply_mask(self, mask: np.ndarray) -> None:
        """Puts `mask` in force, in the variables that TF-MOT's tools read too."""
        kept = np.abs(self.numpy()[mask])
        self.mask_variable.assign(mask.astype(self.mask_variable.dtype.as_numpy_dtype))
        self._threshold.assign(kept.min() if kept.size else 0)

    def remove_mask(self) -> None:
        """Takes the mask out of force."""
        self.apply_mask(np.ones(self.shape, bool))
        self._threshold.assign(0)

    def reset_slots(self, positions: np.ndarray) -> None:
        """Sets the slots of the model's optimizers to their initial value at `positions`."""
        for each in self._optimizers:
            optimizer.reset_slots(each, self.variable, positions)

    def reset_averages(self, positions: np.ndarray) -> None:
        """Sets the moving averages that optimizers keep of the weight to zero at `positions`."""
        for each in self._optimizers:
            average = optimizer.average_of(each, self.variable)
            if average is not None:
                value = average.numpy()
                average.assign(np.where(positions, value.dtype.type(0), value))

    def __repr__(self) -> str:
        return f"<Weight {self.path} shape={self.shape} sparsity={self.sparsity:g}>"
