"""PrunableWeight over a Keras 3 variable and the mask that is kept beside its model."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_dsd.adapters.keras3 import backends, optimizer
from keras_dsd.adapters.keras3.kernels import Found
from keras_dsd.adapters.keras3.mask_store import MaskStore


def short_path(path: str, model: Any) -> str:
    """Returns a path without the name of the whole model.

    Keras begins the paths of a Sequential model with it, but not once the model was loaded from a
    file; and where nobody gave the model a name, each that is built gets another one.
    """
    return path.removeprefix(f"{model.name}/")


class Candidate:
    """A weight that may be selected; what a callable given as `sparsity` gets to see.

    Args:
        found: The variable, and what its layer says of it.
        model: The model that trains, which may keep the values elsewhere meanwhile.
    """

    def __init__(self, found: Found, model: Any) -> None:
        self.found = found
        self.variable = found.variable
        self.path = found.path
        self.short_path = short_path(found.path, model)
        self.shape = tuple(found.variable.shape)
        self.layout = found.layout
        self._model = model

    def numpy(self) -> np.ndarray:
        """Returns a copy of the values, in the dtype the optimizer updates."""
        backends.sync(self._model)
        return np.array(keras.ops.convert_to_numpy(self.variable.value))


class Weight(Candidate):
    """A weight that DSD prunes.

    Args:
        found: The variable, and what its layer says of it.
        model: The model that trains.
        sparsity: The share of it that `apply` was asked to prune.
        store: Where its mask is kept.
        optimizers: Those whose slots are to be cleared.
    """

    def __init__(
        self,
        found: Found,
        model: Any,
        sparsity: float,
        store: MaskStore,
        optimizers: Sequence[Any],
    ) -> None:
        super().__init__(found, model)
        self.sparsity = sparsity
        self.pattern = store.selection.pattern
        self.scope = store.selection.scope
        self._store = store
        self._optimizers = optimizers

    @property
    def mask_on_device(self) -> Any:
        """The mask in force, as the backend keeps it, or None."""
        return self._store.mask_of(self.variable)

    @property
    def mask(self) -> np.ndarray | None:
        """The mask in force, boolean, True where kept; None in dense phases."""
        mask = self.mask_on_device
        return None if mask is None else backends.current().mask_to_numpy(mask)

    def assign(self, value: np.ndarray) -> None:
        """Sets the values."""
        backends.sync(self._model)
        self.variable.assign(value)

    def apply_mask(self, mask: np.ndarray) -> None:
        """Puts `mask` in force."""
        backends.sync(self._model)
        earlier = self._store.earlier(self.variable)
        on_device = backends.current().put_mask(mask, self.variable, self._model, earlier)
        self._store.set_mask(self.variable, on_device)

    def remove_mask(self) -> None:
        """Takes the mask out of force, and off the device."""
        self._store.remove_mask(self.variable)

    def reset_slots(self, positions: np.ndarray) -> None:
        """Sets the slots of the model's optimizers to their initial value at `positions`."""
        backends.sync(self._model)
        for each in self._optimizers:
            optimizer.reset_slots(each, self.variable, positions)

    def reset_averages(self, positions: np.ndarray) -> None:
        """Sets the moving averages that optimizers keep of the weight to zero at `positions`."""
        backends.sync(self._model)
        for each in self._optimizers:
            average = optimizer.average_of(each, self.variable)
            if average is not None:
                value = np.array(keras.ops.convert_to_numpy(average.value))
                average.assign(np.where(positions, value.dtype.type(0), value))

    def __repr__(self) -> str:
        return f"<Weight {self.path} shape={self.shape} sparsity={self.sparsity:g}>"
