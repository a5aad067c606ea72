"""Protocols between the engine and the adapters; both meet here, and neither imports the other."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, SupportsInt, TypeAlias

import numpy as np

from keras_dsd.algorithm.device_masks import DeviceWeight
from keras_dsd.algorithm.selection import Selection
from keras_dsd.algorithm.weight import Tensor as Tensor

# A training step, compiled or not; its arguments and results are Keras's own.
Step: TypeAlias = Callable[..., object]
# Inputs of one batch: a tensor, an array, or nested lists, tuples and dicts of these.
Inputs: TypeAlias = object


class Variable(Tensor, Protocol):
    """A variable of a model or an optimizer."""

    def assign(self, value: np.ndarray | Tensor) -> object:
        """Sets the values."""

    def numpy(self) -> np.ndarray:
        """Returns the values."""


class Optimizer(Protocol):
    """An optimizer of either Keras."""

    @property
    def iterations(self) -> SupportsInt:
        """Variable with the number of updates made."""


class Layer(Protocol):
    """A layer or a model of either Keras."""

    @property
    def name(self) -> str:
        """The layer's name."""

    @property
    def trainable(self) -> bool:
        """Whether the layer trains."""


class BatchNormalization(Layer, Protocol):
    """A BatchNormalization layer of either Keras."""

    momentum: float

    @property
    def moving_mean(self) -> Variable:
        """Moving average of the batches' means."""

    @property
    def moving_variance(self) -> Variable:
        """Moving average of the batches' variances."""


class Model(Layer, Protocol):
    """A model of either Keras."""

    train_function: Step | None

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer that the model is compiled with."""

    @property
    def trainable_variables(self) -> Sequence[Variable]:
        """The variables that gradients update."""

    def make_train_function(self, force: bool = False) -> Step:
        """Sets `train_function` to a new step."""


class PrunableWeight(DeviceWeight, Protocol):
    """One weight tensor that DSD prunes.

    Masks that its methods take are boolean tensors where the values are, True where kept.
    """

    def copy(self) -> Tensor:
        """Returns a copy of the values, where they are."""

    def assign(self, value: np.ndarray | Tensor) -> None:
        """Sets the values; `value` has the shape `shape`."""

    def zero(self, mask: Tensor) -> None:
        """Sets the values to zero where `mask` is False."""

    def apply_mask(self, mask: Tensor) -> None:
        """Makes `mask` the active mask: masked steps keep the weight at `weight * mask`."""

    def remove_mask(self) -> None:
        """Removes the active mask."""

    def leave_dense(self) -> None:
        """Leaves the weight dense until the next run, as no optimizer trains it."""

    def reset_slots(self, mask: Tensor) -> None:
        """Resets optimizer slots to their initial value where `mask` is False."""

    def reset_averages(self, mask: Tensor) -> None:
        """Sets the moving averages of optimizers to zero where `mask` is False."""


@dataclasses.dataclass(frozen=True)
class SkippedWeight:
    """One weight that DSD leaves dense.

    Attributes:
        path: Its path in the model.
        shape: Its shape; `(0,)` for a layer that prepares inputs and trains nothing.
        reason: Why it stays dense.
    """

    path: str
    shape: tuple[int, ...]
    reason: str

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class TrainingAdapter(Protocol):
    """The training of one model, in the terms of its Keras."""

    @property
    def weights(self) -> Sequence[PrunableWeight]:
        """The weights that DSD prunes, in the model's order; empty before they are built."""

    @property
    def frozen(self) -> list[str]:
        """Paths of the weights that would be pruned if they were not frozen."""

    def check(self) -> None:
        """Raises ValueError where DSD can't train the model, before anything changes."""

    def get_weights(self) -> list[np.ndarray]:
        """Returns a copy of the model's weights, in an order that stays."""

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        """Sets the model's weights."""

    def reset_optimizers(self) -> None:
        """Resets all slots of the optimizers to their initial value, except moving averages."""

    @property
    def batch_norms(self) -> Sequence[BatchNormalization]:
        """The BatchNormalization layers that train."""

    def forward(self, inputs: Inputs) -> None:
        """Runs the model on the inputs of a batch, in training mode."""

    def open(self) -> None:
        """Starts a run: observes what updates weights in the training steps from now on."""

    def close(self) -> None:
        """Ends a run; may be called again."""

    def forget_updates(self) -> None:
        """Forgets what was observed: the model was compiled anew."""

    @property
    def is_observed(self) -> bool:
        """Whether any update of this run was observed."""

    @property
    def was_skipped(self) -> bool:
        """Whether all updates of this run were skipped yet, as a scaled loss has overflown."""

    @property
    def has_own_train_step(self) -> bool:
        """Whether the training step is the user's own, who may leave weights untrained."""

    def untrained(self) -> Sequence[PrunableWeight]:
        """Returns the weights that no optimizer trains, as far as that is known."""

    @property
    def unscaled_optimizers(self) -> list[str]:
        """Names of the optimizers that updated weights and did not read a learning rate."""

    def set_factor(self, factor: float) -> None:
        """Multiplies the learning rates by `factor` within later steps, and nowhere else."""

    def observing(self, factor: float) -> AbstractContextManager[None]:
        """Observes a custom training loop within a block, and multiplies its learning rates."""

    def learning_rates(self) -> list[float]:
        """Returns the learning rates, as their owner set them, of what reads one."""

    def prints(self) -> bool:
        """Returns whether this Keras prints its progress instead of logging it."""

    def masking(self) -> Callable[[], None]:
        """Returns a function that masks the currently masked weights and their averages."""

    def is_tracing(self) -> bool:
        """Returns whether the current call is traced, to be run again and again."""

    def is_scheduled(self) -> bool:
        """Returns whether a learning rate is computed from the step."""

    def masks_of(self, variables: Sequence[Variable] | None) -> list[Tensor | None]:
        """Returns the active mask of each variable as the backend's boolean tensor, or None.

        Args:
            variables: Of the model or of its optimizers; None for all that the model trains.
        """

    def make_step(self, masked: bool) -> dict[str, Step | None]:
        """Makes a training step that is compiled when it first runs.

        Args:
            masked: Whether each update of a masked weight ends in `weight * mask`.

        Returns:
            The attributes to set on the model, `train_function` among them.
        """


class TrainingState(Protocol):
    """Reads and writes everything that the training of models depends on."""

    def begin(self, seed: int) -> None:
        """Seeds Python, NumPy and the backend, and resets the names that Keras makes up."""

    def seed(self, value: int) -> None:
        """Seeds Python, NumPy and the backend."""

    def is_built(self, model: Model) -> bool:
        """Returns whether all weights are built."""

    def is_known(self, model: Model) -> bool:
        """Returns whether `read` covers the full state: only with exactly one optimizer."""

    def num_updates(self, model: Model) -> int:
        """Returns the number of updates that the optimizers have made."""

    def read(self, model: Model) -> list[np.ndarray]:
        """Returns a copy of the state, between two calls of `fit`."""

    def write(self, model: Model, values: Sequence[np.ndarray]) -> None:
        """Sets the state of a model of the same architecture.

        Raises:
            ValueError: Its architecture differs.
        """

    def weights_of(self, model: Model) -> list[np.ndarray]:
        """Returns a copy of the weights, also during `fit`."""

    def set_weights(self, model: Model, values: Sequence[np.ndarray]) -> None:
        """Sets the weights, also during `fit`."""

    def renewed(self, model: Model) -> Model:
        """Returns a model with the same config and compile options, and fresh weights.

        What layers have of data by `adapt`, such as a vocabulary, is kept.
        """


class KerasAdapter(Protocol):
    """One Keras; the packages `adapters.keras3` and `adapters.tf_keras` satisfy it as modules.

    `apply`, `strip`, `weights`, `skipped` and `training_adapter` raise TypeError where `model` is
    no layer of this Keras; all but `apply` ValueError where it did not go through `apply`.
    """

    __name__: str

    @property
    def training_state(self) -> TrainingState:
        """Reads and writes the state of models."""

    def apply(self, model: Layer, selection: Selection) -> Layer:
        """Returns the model with weights selected for pruning.

        Raises:
            TypeError: `model` holds layers of another Keras.
            ValueError: `model` went through `apply` already, or nothing is selected.
        """

    def strip(self, model: Layer) -> Layer:
        """Returns the model without DSD."""

    def weights(self, model: Layer) -> Sequence[PrunableWeight]:
        """Returns the weights of `model` that DSD prunes."""

    def skipped(self, model: Layer) -> list[SkippedWeight]:
        """Returns the weights of `model` that are never pruned, with reasons."""

    def layers_of_kernels(self, model: Layer) -> list[tuple[str, frozenset[str]]]:
        """Returns the kernels of `model` that are built, before `apply` or after it.

        Of each the path without the model's own name, and the names of its layer's classes.
        """

    def is_applied(self, model: Layer) -> bool:
        """Returns whether `model`, or a part of it, went through `apply`."""

    def mask_bytes(self, model: Layer) -> int:
        """Returns the memory that the masks of a sparse phase take, in bytes."""

    def load_model(self, path: str, safe_mode: bool, compiled: bool) -> Model:
        """Returns the model in a file.

        Args:
            path: The file.
            safe_mode: Whether Keras refuses what it recognizes as code.
            compiled: Whether to compile it as the file describes.
        """

    def is_compiled(self, model: Model) -> bool:
        """Returns whether `model` has a loss, and so can be evaluated."""

    def training_adapter(
        self, model: Layer, optimizers: Sequence[object] | None = None
    ) -> TrainingAdapter:
        """Returns the training adapter of `model`.

        Args:
            model: A model or layer.
            optimizers: These update it in a custom training loop. Defaults to `None`: the model's.

        Raises:
            TypeError: One of `optimizers` is of no known kind.
        """


class OpenRun:
    """Stands on a model in place of its `make_train_function` while a run is open."""

    def abandon(self) -> None:
        """Closes a run that an exception stopped before it could close itself."""


def open_run_of(model: Layer) -> OpenRun | None:
    """Returns the run that is open on `model`, in `fit` or stopped by an exception, or None."""
    found: Mapping[str, object] = vars(model)
    run = found.get("make_train_function")
    return run if isinstance(run, OpenRun) else None
