"""PrunableWeight over a tf_keras variable, and masks, which are stored outside of all layers."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tf_keras

from keras_dsd.adapters import tf_graphs
from keras_dsd.adapters.base import weight as base
from keras_dsd.adapters.base.device_arrays import ArrayOperations
from keras_dsd.adapters.base.optimizers import OptimizerFunctions
from keras_dsd.adapters.tf_arrays import ARRAYS
from keras_dsd.adapters.tf_keras import optimizer
from keras_dsd.adapters.tf_keras.optimizer import Optimizer
from keras_dsd.adapters.tf_keras.prunable_layers import Kernel, kernels_of
from keras_dsd.algorithm.selection import FROZEN, Selection


def path_of(variable: tf.Variable, prefix: str = "") -> str:
    """Returns the path of a variable: the models around it, then its name."""
    return prefix + variable.name.rpartition(":")[0]


def variables_of(layer: tf_keras.layers.Layer) -> list[tf.Variable]:
    """Returns the weights of a layer or model that are variables; a vocabulary is not one."""
    return [each for each in layer.weights if isinstance(each, tf.Variable)]


def candidates_of(layer: tf_keras.layers.Layer, prefix: str) -> list["Candidate"]:
    """Returns the weights in `layer` that may be selected, in a fixed order.

    Args:
        layer: A layer, including its nested layers.
        prefix: Prefix of paths: the names of the models that contain it.
    """
    trained = {id(variable) for variable in layer.trainable_weights}
    return [
        Candidate(kernel, prefix, None if id(kernel.variable) in trained else FROZEN)
        for kernel in kernels_of(layer)
    ]


class Candidate(base.Candidate):
    """A weight that may be selected; the argument of a `sparsity` callable.

    Args:
        kernel: The kernel.
        prefix: Prefix of its path, before the name of the kernel.
        unless_named: Reason why it stays dense unless its full path is given, or None.
    """

    layers: ClassVar[ModuleType] = tf_keras.layers

    def __init__(self, kernel: Kernel, prefix: str, unless_named: str | None) -> None:
        path = path_of(kernel.variable, prefix + kernel.prefix)
        super().__init__(kernel.variable, path, path, kernel.layer)
        self.unless_named = unless_named

    def numpy(self) -> np.ndarray:
        """Returns a copy of the values, in the dtype the optimizer updates."""
        return optimizer.to_numpy(self.variable)


class Masks:
    """The masks of one wrapper's kernels, in an object that Keras does not track.

    Variables stay for later masks, as traced steps read them.
    """

    def __init__(self) -> None:
        # By the kernel's id; the wrapper's layer refers to the kernel.
        self._variables: dict[int, tf.Variable] = {}
        self._active: set[int] = set()
        self._untrained: set[int] = set()

    def of(self, kernel: tf.Variable) -> tf.Variable | None:
        """Returns the variable with the active mask of a kernel, or None."""
        return self._variables[id(kernel)] if id(kernel) in self._active else None

    def to_numpy(self, kernel: tf.Variable) -> np.ndarray | None:
        """Returns the active mask of a kernel, boolean, or None."""
        mask = self.of(kernel)
        return None if mask is None else optimizer.to_numpy(mask)

    def put(self, kernel: tf.Variable, mask: tf.Tensor) -> None:
        """Sets the active mask."""
        strategy = getattr(kernel, "distribute_strategy", None) or tf.distribute.get_strategy()
        earlier = self._variables.get(id(kernel))
        self._variables[id(kernel)] = tf_graphs.put_mask(mask, strategy, earlier)
        self._active.add(id(kernel))

    def remove(self, kernel: tf.Variable) -> None:
        """Removes the active mask, and frees its memory."""
        if id(kernel) in self._active:
            self._active.remove(id(kernel))
            tf_graphs.empty_mask(self._variables[id(kernel)])

    def clear(self) -> None:
        """Removes all masks."""
        for key in self._active:
            tf_graphs.empty_mask(self._variables[key])
        self._active.clear()

    def leave_dense(self, kernel: tf.Variable) -> None:
        """Leaves a kernel dense, as no optimizer trains it."""
        self.remove(kernel)
        self._untrained.add(id(kernel))

    def is_left_dense(self, kernel: tf.Variable) -> bool:
        """Returns whether `leave_dense` was called in this run."""
        return id(kernel) in self._untrained

    def forget_untrained(self) -> None:
        """Selects the weights of `leave_dense` again."""
        self._untrained.clear()


class Weight(base.Weight):
    """A weight that DSD prunes, whose mask is in `masks`."""

    optimizer_functions: ClassVar[OptimizerFunctions] = optimizer
    variable: tf.Variable

    def __init__(
        self,
        candidate: Candidate,
        sparsity: float,
        selection: Selection,
        optimizers: Callable[[], Sequence[Optimizer]],
        masks: Masks,
    ) -> None:
        super().__init__(candidate, sparsity, selection, optimizers)
        self._masks = masks

    @property
    def mask_variable(self) -> tf.Variable | None:
        """Boolean variable with the active mask; None in dense phases."""
        return self._masks.of(self.variable)

    @property
    def arrays(self) -> ArrayOperations:
        """Operations on its tensors."""
        return ARRAYS

    def tensor(self) -> tf.Tensor:
        """Returns the values, on their device; under a strategy, those of the first replica."""
        return tf.convert_to_tensor(self.variable)

    @property
    def mask(self) -> np.ndarray | None:
        """Boolean mask of the kept weights; None in dense phases."""
        return self._masks.to_numpy(self.variable)

    @property
    def is_masked(self) -> bool:
        """True if a mask is active."""
        return self.mask_variable is not None

    def mask_tensor(self) -> tf.Tensor | None:
        """Returns the active mask as a boolean tensor, or None."""
        mask = self.mask_variable
        return None if mask is None else tf.convert_to_tensor(mask)

    def apply_mask(self, mask: tf.Tensor) -> None:
        """Sets the active mask."""
        self._masks.put(self.variable, mask)

    def remove_mask(self) -> None:
        """Removes the active mask, and frees its memory."""
        self._masks.remove(self.variable)

    def leave_dense(self) -> None:
        """Leaves the weight dense, as no optimizer trains it."""
        self._masks.leave_dense(self.variable)

    @property
    def is_left_dense(self) -> bool:
        """True if `leave_dense` was called in this run."""
        return self._masks.is_left_dense(self.variable)
