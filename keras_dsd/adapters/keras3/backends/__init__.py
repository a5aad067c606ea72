"""Backends of Keras 3: one class for each, all with the same methods."""

import abc
import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeAlias, TypeVar

import keras
import numpy as np

from keras_dsd.protocols import Inputs, Step, Tensor
from keras_dsd.utils.patches import Patch

# The type in which a backend stores a mask.
Mask = TypeVar("Mask")
# An optimizer's key of a variable.
Key: TypeAlias = int | str
# Returns the mask to apply within the update of a variable, or None.
MaskOf: TypeAlias = Callable[[Key], Mask | None]
# Returns the slots that an optimizer keeps of a variable, by name.
SlotsOf: TypeAlias = Callable[[keras.Variable], Mapping[str, keras.Variable]]
# Makes masks, one for each masked variable, the active ones within a block.
UseMasks: TypeAlias = Callable[[Sequence[Mask]], AbstractContextManager[None]]
# A model's `train_step`, whose arguments and results differ between the backends.
TrainStep: TypeAlias = Callable[..., Any]

_MODULES = {
    "tensorflow": "keras_dsd.adapters.keras3.backends.tensorflow",
    "jax": "keras_dsd.adapters.keras3.backends.jax",
    "torch": "keras_dsd.adapters.keras3.backends.torch",
}


class Backend(abc.ABC, Generic[Mask]):
    """Masks and training steps of one backend; defaults are for steps that update in place."""

    # Optimizers, besides Keras's, that may train a model.
    optimizers: tuple[type, ...] = ()

    @abc.abstractmethod
    def put_mask(
        self,
        mask: np.ndarray,
        variable: keras.Variable,
        model: keras.Layer,
        earlier: Mask | None,
    ) -> Mask:
        """Returns `mask` on the variable's devices.

        Args:
            mask: Boolean array, True where kept.
            variable: The variable to mask.
            model: The model that trains.
            earlier: The active mask, or the result of `drop_mask` for the last one.
        """

    def drop_mask(self, mask: Mask) -> Mask | None:
        """Frees a mask's memory, and returns what `put_mask` can reuse: nothing."""
        del mask
        return None

    @abc.abstractmethod
    def mask_to_numpy(self, mask: Mask) -> np.ndarray:
        """Returns the mask as a boolean array."""

    @abc.abstractmethod
    def mask_to_tensor(self, mask: Mask) -> Tensor:
        """Returns the mask as a boolean tensor."""

    def is_tracing(self) -> bool:
        """Returns whether a function is traced that can read and set variables."""
        return False

    @abc.abstractmethod
    def apply_masks(self, pairs: Sequence[tuple[keras.Variable, Mask]]) -> None:
        """Sets each variable to zero where its mask is False."""

    def update_patches(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        mask_of: MaskOf[Mask],
        slots_of: SlotsOf,
    ) -> list[Patch]:
        """Returns the patches that mask variables within their update, or none.

        Args:
            optimizer: The optimizer.
            variables: All masked variables.
            mask_of: Returns the active mask to apply within the update of a variable, or None.
            slots_of: Returns the optimizer's slots of a variable, by name.
        """
        del optimizer, variables, mask_of, slots_of
        return []

    def masked_train_step(
        self,
        train_step: TrainStep,
        model: keras.Model,
        variables: Sequence[keras.Variable],
        use_masks: UseMasks[Mask],
        mask_all: Callable[[], None] | None,
    ) -> TrainStep:
        """Returns `train_step` with masks; `feed` gives a step made of it the active masks.

        Args:
            train_step: The model's own.
            model: The model.
            variables: Its masked variables.
            use_masks: Makes masks, one for each variable, the active ones within a block.
            mask_all: Masks all variables at the end of the step. None: the updates mask them.
        """
        del model, variables, use_masks
        if mask_all is None:
            return train_step

        def step(data: object) -> object:
            logs = train_step(data)
            mask_all()
            return logs

        return step

    def feed(self, step: Step, masks: Callable[[], Sequence[Mask]]) -> Step:
        """Returns `step`, a model's `train_function`, which reads the active masks by itself."""
        del masks
        return step

    def num_workers(self, model: keras.Layer) -> int:
        """Returns the number of workers that mirror the variables of a model, as Keras sees it."""
        del model
        return 1

    def forward(self, model: keras.Model, inputs: Inputs) -> None:
        """Runs a model in training mode."""
        model(inputs, training=True)


def current() -> Backend[object]:
    """Returns the backend in use.

    Raises:
        ValueError: The backend can't train.
    """
    name = keras.backend.backend()
    if name not in _MODULES:
        raise ValueError(
            f"Expected a backend that trains: tensorflow, jax or torch. "
            f"Received: backend={name!r}. Set KERAS_BACKEND before Keras is imported."
        )
    backend: Backend[object] = importlib.import_module(_MODULES[name]).BACKEND
    return backend


def sync(model: keras.Layer) -> None:
    """Updates the variables from a `fit` in progress: JAX keeps the values outside of them."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
