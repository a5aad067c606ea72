"""PrunableWeight over a Keras 3 variable, and the mask that is stored outside of its model."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import ClassVar

import keras
import numpy as np

from keras_dsd.adapters.base import weight as base
from keras_dsd.adapters.base.device_arrays import ArrayOperations
from keras_dsd.adapters.base.observation import AnyOptimizer
from keras_dsd.adapters.base.optimizers import OptimizerFunctions
from keras_dsd.adapters.keras3 import backends, optimizer
from keras_dsd.adapters.keras3.kernels import Found
from keras_dsd.adapters.keras3.mask_store import MaskStore
from keras_dsd.protocols import Tensor


def short_path(path: str, model: keras.Layer) -> str:
    """Returns a path without the name of the model that trains.

    Keras starts the paths of a Sequential model with it, but not after loading it from a file; and
    models without a given name get a new name each time.
    """
    return path.removeprefix(f"{model.name}/")


class Candidate(base.Candidate):
    """A weight that may be selected; the argument of a `sparsity` callable.

    Args:
        found: The variable and its description.
        model: The model that trains, which may keep the values elsewhere during `fit`.
    """

    layers: ClassVar[ModuleType] = keras.layers

    def __init__(self, found: Found, model: keras.Layer) -> None:
        super().__init__(found.variable, found.path, short_path(found.path, model), found.layer)
        self.found = found
        self.model = model

    def numpy(self) -> np.ndarray:
        """Returns a copy of the values, in the dtype the optimizer updates."""
        backends.sync(self.model)
        return optimizer.to_numpy(self.variable)


class Weight(base.Weight):
    """A weight that DSD prunes, whose mask is in `store`."""

    optimizer_functions: ClassVar[OptimizerFunctions] = optimizer
    variable: keras.Variable

    def __init__(
        self,
        candidate: Candidate,
        sparsity: float,
        store: MaskStore,
        optimizers: Callable[[], Sequence[AnyOptimizer]],
    ) -> None:
        super().__init__(candidate, sparsity, store.selection, optimizers)
        self.store = store
        self._model = candidate.model

    @property
    def arrays(self) -> ArrayOperations:
        """Operations on its tensors."""
        return backends.current().arrays

    def tensor(self) -> Tensor:
        """Returns the values, on their device."""
        self.sync()
        return backends.current().tensor_of(self.variable)

    @property
    def mask_on_device(self) -> object | None:
        """The active mask in the form that the backend stores, or None."""
        return self.store.mask_of(self.variable)

    @property
    def mask(self) -> np.ndarray | None:
        """Boolean mask of the kept weights; None in dense phases."""
        mask = self.mask_on_device
        if mask is None:
            return None
        backends.current().check_readable(mask, self.path)
        return backends.current().mask_to_numpy(mask)

    @property
    def is_masked(self) -> bool:
        """True if a mask is active."""
        return self.mask_on_device is not None

    def mask_tensor(self) -> Tensor | None:
        """Returns the active mask as a boolean tensor of the backend, or None."""
        mask = self.mask_on_device
        return None if mask is None else backends.current().mask_to_tensor(mask)

    def apply_mask(self, mask: Tensor) -> None:
        """Sets the active mask."""
        self.sync()
        earlier = self.store.earlier(self.variable)
        stored = backends.current().put_mask(mask, self._model, earlier)
        self.store.set_mask(self.variable, stored)

    def remove_mask(self) -> None:
        """Removes the active mask, and frees its memory."""
        self.store.remove_mask(self.variable)

    def leave_dense(self) -> None:
        """Leaves the weight dense, as no optimizer trains it."""
        self.store.leave_dense(self.variable)

    def sync(self) -> None:
        """Updates the variables from a `fit` in progress."""
        backends.sync(self._model)
