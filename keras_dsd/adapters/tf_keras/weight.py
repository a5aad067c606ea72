"""PrunableWeight over a tf_keras variable and the mask variable of TF-MOT's wrapper."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tf_keras

from keras_dsd.adapters.base import weight as base
from keras_dsd.adapters.base.device_arrays import ArrayOperations
from keras_dsd.adapters.base.optimizers import OptimizerFunctions
from keras_dsd.adapters.tf_arrays import ARRAYS
from keras_dsd.adapters.tf_keras import optimizer
from keras_dsd.adapters.tf_keras.optimizer import Optimizer
from keras_dsd.algorithm.selection import FROZEN, Selection


def path_of(variable: tf.Variable, prefix: str = "") -> str:
    """Returns the path of a variable: the models around it, then its own name."""
    return prefix + variable.name.rpartition(":")[0]


def frozen(layer: tf_keras.layers.Layer) -> str | None:
    """Returns the reason why the weights of `layer` stay dense unless named, or None."""
    return None if layer.trainable else FROZEN


def _holder(variable: tf.Variable, layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
    parts = [part for part in layer._flatten_layers() if part is not layer]
    holders = (part for part in parts if any(variable is each for each in _own(part)))
    return next(holders, layer)


def _own(layer: tf_keras.layers.Layer) -> list[tf.Variable]:
    return layer._trainable_weights + layer._non_trainable_weights


class Candidate(base.Candidate):
    """A weight that may be selected; the argument of a callable given as `sparsity`.

    Args:
        variable: The kernel.
        layer: The layer that holds it, or holds the one that does.
        prefix: The start of its path.
    """

    layers: ClassVar[ModuleType] = tf_keras.layers

    def __init__(self, variable: tf.Variable, layer: tf_keras.layers.Layer, prefix: str) -> None:
        path = path_of(variable, prefix)
        super().__init__(variable, path, path, _holder(variable, layer))

    def numpy(self) -> np.ndarray:
        """Returns a copy of the values, in the dtype the optimizer updates."""
        return optimizer.to_numpy(self.variable)


class Weight(base.Weight):
    """A weight that DSD prunes.

    Args:
        mask: The mask variable, of the kernel's shape; 1 where kept.
        threshold: The scalar variable that TF-MOT's tools read with it.
        untrained: Ids of the wrapper's variables that are left dense; `leave_dense` adds to it.
    """

    optimizer_functions: ClassVar[OptimizerFunctions] = optimizer
    variable: tf.Variable

    def __init__(
        self,
        candidate: Candidate,
        sparsity: float,
        selection: Selection,
        optimizers: Callable[[], Sequence[Optimizer]],
        mask: tf.Variable,
        threshold: tf.Variable,
        untrained: set[int],
    ) -> None:
        super().__init__(candidate, sparsity, selection, optimizers)
        self.mask_variable = mask
        self._threshold = threshold
        self._untrained = untrained

    @property
    def arrays(self) -> ArrayOperations:
        """Operations on its tensors."""
        return ARRAYS

    def tensor(self) -> tf.Tensor:
        """Returns the values, where they are; under a strategy, those of the first copy."""
        return tf.convert_to_tensor(self.variable)

    @property
    def mask(self) -> np.ndarray | None:
        """The active mask, boolean, True where kept; None in dense phases."""
        mask = self.mask_tensor()
        return None if mask is None else np.array(mask.numpy())

    @property
    def is_masked(self) -> bool:
        """Whether a mask is active."""
        return self.mask_tensor() is not None

    def mask_tensor(self) -> tf.Tensor | None:
        """Returns the active mask as a boolean tensor, or None."""
        mask = tf.cast(self.mask_variable, tf.bool)
        return None if tf.reduce_all(mask) else mask

    def apply_mask(self, mask: tf.Tensor) -> None:
        """Makes `mask` the active mask, in the variables that TF-MOT's tools read too."""
        values = tf.abs(self.tensor())
        smallest = tf.reduce_min(tf.where(mask, values, values.dtype.max))
        smallest = tf.where(tf.reduce_any(mask), smallest, tf.zeros_like(smallest))
        self.mask_variable.assign(tf.cast(mask, self.mask_variable.dtype))
        self._threshold.assign(tf.cast(smallest, self._threshold.dtype))

    def remove_mask(self) -> None:
        """Removes the active mask."""
        self.mask_variable.assign(tf.ones_like(self.mask_variable))
        self._threshold.assign(0)

    def leave_dense(self) -> None:
        """Leaves the weight dense, as no optimizer trains it."""
        self.remove_mask()
        self._untrained.add(id(self.variable))

    @property
    def is_left_dense(self) -> bool:
        """Whether `leave_dense` was called in this run."""
        return id(self.variable) in self._untrained
