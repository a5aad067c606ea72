"""Backends of Keras 3: one class for each, all with the same methods."""

import abc
import contextlib
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import keras
import numpy as np

from keras_dsd.adapters.base.device_arrays import Array, ArrayOperations
from keras_dsd.adapters.base.factors import Factors, HostFactors
from keras_dsd.adapters.base.observation import (
    AnyOptimizer,
    BeforeUpdate,
    Observation,
    UpdateHook,
)
from keras_dsd.adapters.base.step_state import StepState
from keras_dsd.protocols import Inputs, Step, StepExtras, Tensor
from keras_dsd.utils.patches import Patch

# Type in which a backend stores a mask.
Mask = TypeVar("Mask")
# What a backend computes from masks.
Derived = TypeVar("Derived")
# Takes a user and what computes something from masks; returns that, kept until a mask changes.
DerivedOf: TypeAlias = Callable[[object, Callable[[], Any]], Any]
# An optimizer's key of a variable.
Key: TypeAlias = int | str
# Returns the mask to apply within the update of a variable, or None.
MaskOf: TypeAlias = Callable[[Key], Mask | None]
# Returns the slots that an optimizer keeps of a variable, by name.
SlotsOf: TypeAlias = Callable[[keras.Variable], Mapping[str, keras.Variable]]
# A model's `train_step`, whose arguments and results differ between the backends.
TrainStep: TypeAlias = Callable[..., Any]

_MODULES = {
    "tensorflow": "keras_dsd.adapters.keras3.backends.tensorflow",
    "jax": "keras_dsd.adapters.keras3.backends.jax",
    "torch": "keras_dsd.adapters.keras3.backends.torch",
}


class MaskedVariables(UpdateHook, Protocol):
    """The masked variables of a step, with their masks."""

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """The variables."""

    def masks(self) -> list[Any]:
        """Returns the active mask of each."""

    def derived(self, user: object, make: Callable[[], Derived]) -> Derived:
        """Returns what `make` computes from the masks, for one user; kept until one changes."""

    def use_masks(self, masks: Sequence[object]) -> AbstractContextManager[None]:
        """Sets the active masks, one for each variable, within a block."""

    def patches_of(self, each: AnyOptimizer) -> list[Patch] | None:
        """Returns the patches of an optimizer that mask all it updates; None if there are none."""

    def mask_all(self) -> None:
        """Masks every variable, and its moving averages."""

    @property
    def updates_elsewhere(self) -> bool:
        """True if updates may bypass the masks, so that the step ends by masking all."""


@dataclasses.dataclass(frozen=True)
class ObservedStep:
    """One kind of training step of a model.

    Attributes:
        model: The model.
        observation: Records its updates, and holds the factors of its learning rates.
        hooks: The hooks into optimizer classes while a step runs in Python; None: the one optimizer
            that a step of Keras updates is hooked itself.
        masked: The masked variables; None in dense phases.
        state: What steps keep of variables.
        extras: What the step does with it.
    """

    model: keras.Model
    observation: Observation
    hooks: AbstractContextManager[None] | None
    masked: MaskedVariables | None
    state: StepState[Any]
    extras: StepExtras

    def observed(self) -> AbstractContextManager[None]:
        """Observes updates within the block, with the hooks set."""
        return self.active() if self.hooks is None else self._hooked(self.hooks)

    def active(self) -> AbstractContextManager[None]:
        """Observes updates within the block, without the hooks."""
        return self.observation.active(self.masked, self.before_update)

    @property
    def before_update(self) -> BeforeUpdate | None:
        """The function to call before each update, or None."""
        return self.state.hook(self.extras)

    @contextlib.contextmanager
    def _hooked(self, hooks: AbstractContextManager[None]) -> Iterator[None]:
        with hooks, self.active():
            yield

    def end(self, in_masks: bool) -> None:
        """Ends the step after the update, if variables are updated in place.

        Args:
            in_masks: `ends_in_masks`, as read before the step.
        """
        if self.masked is not None and in_masks:
            self.masked.mask_all()
        self.state.end_step(self.extras)

    @property
    def ends_in_masks(self) -> bool:
        """True if all weights are masked at the end of the step.

        Read it before the step: within, hooks of DSD stand in for methods of the optimizers.
        """
        return self.masked is not None and self.masked.updates_elsewhere


class Backend(abc.ABC, Generic[Mask]):
    """Masks and training steps of one backend; defaults are for steps that update in place."""

    # True if XLA compiles updates of large weights when Keras does not compile the step.
    compiles_updates = False
    # True if every step runs in Python, and not only while it is traced.
    runs_in_python = False
    # Optimizers, in addition to those of Keras, that may train a model.
    optimizers: tuple[type, ...] = ()
    # Operations on the tensors of variables.
    arrays: ArrayOperations

    def tensor_of(self, variable: keras.Variable) -> Tensor:
        """Returns the values of a variable, on their device."""
        value: Tensor = variable.value
        return value

    def check_readable(self, value: Array, path: str) -> None:
        """Checks that this process can read all of a weight or its mask.

        Raises:
            ValueError: Parts of it are on devices of other processes.
        """
        del value, path

    def has_all(self, variable: keras.Variable) -> bool:
        """Returns whether this process has all values of a variable."""
        del variable
        return True

    def is_same(self, model: keras.Model, digest: bytes) -> bool:
        """Returns whether all processes that train a model have the same digest of 8 bytes.

        True where that is unknown.
        """
        del model, digest
        return True

    def parts_of(self, variable: keras.Variable) -> dict[str, np.ndarray] | None:
        """Returns copies of this process's parts of a variable, by index; None if it has all."""
        del variable
        return None

    def set_parts(self, variable: keras.Variable, parts: Mapping[str, np.ndarray]) -> None:
        """Sets the values of a variable, of which each process gives its parts."""
        raise NotImplementedError

    def process(self) -> tuple[int, int]:
        """Returns the index of this process, and the number of those that train together."""
        return 0, 1

    def is_chief(self, model: keras.Layer) -> bool:
        """Returns whether this process writes, of those that train a model."""
        del model
        return self.process()[0] == 0

    def check_same(self, variables: Sequence[keras.Variable], arguments: str) -> None:
        """Checks that processes that have parts of variables were given the same arguments.

        Raises:
            ValueError: They were not.
        """
        del variables, arguments

    @abc.abstractmethod
    def make_step_state(
        self, model: keras.Model, weights: Callable[[], Sequence[Any]]
    ) -> StepState[Any]:
        """Returns what the steps of a model keep of variables."""

    @abc.abstractmethod
    def put_mask(self, mask: Array, model: keras.Layer, earlier: Mask | None) -> Mask:
        """Returns `mask` in the form that the backend stores.

        Args:
            mask: Boolean tensor on the variable's devices, True where kept.
            model: The model that trains.
            earlier: The active mask, or the result of `drop_mask` for the last one.
        """

    def drop_mask(self, mask: Mask) -> Mask | None:
        """Frees a mask's memory, and returns the part that `put_mask` can reuse: None."""
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
        derived: DerivedOf,
        slots_of: SlotsOf,
        jit_compile: object,
    ) -> list[Patch]:
        """Returns the patches that mask variables within their update, or none.

        Args:
            optimizer: The optimizer.
            variables: All masked variables.
            mask_of: Returns the active mask to apply within the update of a variable, or None.
            derived: Returns what a function computes from masks; kept until one changes.
            slots_of: Returns the optimizer's slots of a variable, by name.
            jit_compile: The user's argument of `compile`; False forbids XLA.
        """
        del optimizer, variables, mask_of, derived, slots_of, jit_compile
        return []

    def train_step(self, plain: TrainStep, step: ObservedStep) -> TrainStep:
        """Returns the observed and masked `train_step` of a model.

        Args:
            plain: The `train_step` of the model.
            step: The kind of step.
        """
        ends_in_masks = step.ends_in_masks

        def train_step(data: object) -> object:
            with step.observed():
                logs = plain(data)
                step.end(ends_in_masks)
            return logs

        return train_step

    def step_patches(self, step: ObservedStep) -> list[Patch]:
        """Returns the patches, besides that of `train_step`, under which Keras makes a step."""
        del step
        return []

    def train_function(self, plain: Step, step: ObservedStep) -> Step:
        """Returns the `train_function` of a model, made from the result of `train_step`."""
        del step
        return plain

    def factors_of(self, model: keras.Layer) -> Factors:
        """Returns the factors of a model's learning rates, 1.0 at first."""
        del model
        return HostFactors()

    def loop_hooks(self, observation: Observation) -> AbstractContextManager[object]:
        """Returns further hooks, in addition to those into Keras, for a custom training loop."""
        del observation
        return contextlib.nullcontext()

    def multiply(self, rate: Any, factor: Any) -> object:
        """Returns a learning rate times a factor, in the dtype of the learning rate."""
        rate = keras.ops.convert_to_tensor(rate)
        return rate * keras.ops.cast(factor, rate.dtype)

    def is_in_step(self) -> bool:
        """Returns whether the current operations are part of the observed step's own trace."""
        return True

    def num_workers(self, model: keras.Layer) -> int:
        """Returns the number of workers that mirror the variables of a model."""
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
