"""Protocols between the engine and the adapters; both meet here, and neither imports the other."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, SupportsInt, TypeAlias

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
        """True if the layer trains."""


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

    Mask arguments are boolean tensors on the device of the values, True for kept entries.
    """

    def copy(self) -> Tensor:
        """Returns a copy of the values, on their device."""

    def assign(self, value: np.ndarray | Tensor) -> None:
        """Sets the values; `value` has the shape `shape`."""

    def zero(self, mask: Tensor) -> None:
        """Sets the values to zero where `mask` is False."""

    def apply_mask(self, mask: Tensor) -> None:
        """Sets the active mask: masked steps compute `weight * mask` after each update."""

    def remove_mask(self) -> None:
        """Removes the active mask."""

    def leave_dense(self) -> None:
        """Leaves the weight dense until the next run, as no optimizer trains it."""

    def reset_slots(self, mask: Tensor) -> None:
        """Resets optimizer slots to their initial value where `mask` is False."""

    def reset_averages(self, mask: Tensor) -> None:
        """Sets the moving averages of optimizers to zero where `mask` is False."""


class UpdateCount(NamedTuple):
    """Count of the updates of an optimizer.

    Attributes:
        number: Number of calls with gradients.
        per_step: Number of accumulated calls per step; 1 without accumulation.
    """

    number: int
    per_step: int

    @property
    def steps(self) -> int:
        """Number of steps made."""
        return self.number // self.per_step


@dataclasses.dataclass(frozen=True)
class WeightCopies:
    """Copies of a model's weights in the memory of this process.

    Attributes:
        arrays: By name, in the model's order. `arr_0` is a complete weight; `arr_1[0:64,8:16]` is
            the part of one that other processes have other parts of.
        process: Index of the process whose parts these are, and the number of processes. None where
            all weights are complete.
    """

    arrays: Mapping[str, np.ndarray]
    process: tuple[int, int] | None = None

    @classmethod
    def of(
        cls, weights: Sequence[Mapping[str, np.ndarray]], process: tuple[int, int]
    ) -> "WeightCopies":
        """Returns copies of weights in order, each given by index: `""` is that of all values."""
        arrays = {
            f"arr_{number}{index}": part
            for number, parts in enumerate(weights)
            for index, part in parts.items()
        }
        return cls(arrays, process if any("" not in parts for parts in weights) else None)

    @classmethod
    def complete(cls, weights: Sequence[np.ndarray]) -> "WeightCopies":
        """Returns copies that are complete weights."""
        return cls.of([{"": each} for each in weights], (0, 1))

    def weights(self) -> list[Mapping[str, np.ndarray]]:
        """Returns what `of` was given."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, part in self.arrays.items():
            weight, bracket, index = name.partition("[")
            found.setdefault(weight, {})[bracket + index] = part
        return list(found.values())


@dataclasses.dataclass(frozen=True)
class SkippedWeight:
    """One weight that DSD leaves dense.

    Attributes:
        path: Its path in the model.
        shape: Its shape; `(0,)` for a preprocessing layer that trains nothing.
        reason: Reason why it stays dense.
    """

    path: str
    shape: tuple[int, ...]
    reason: str

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class StepExtras:
    """Extras of training steps: operations in addition to updates and masks.

    Attributes:
        ema: Momentum of moving averages of the trainable variables, updated after each step; None:
            there are none.
        sums: What is summed over the updates, for each weight: `"gradient"`, or `"movement"`, the
            gradient times minus the weight; None: nothing.
        regrow_decay: Decoupled weight decay of regrown weights.
    """

    ema: float | None = None
    sums: str | None = None
    regrow_decay: float = 0.0


class StepState(Protocol):
    """State of training steps, outside of the model."""

    def start_averages(self) -> None:
        """Starts moving averages of all trainable variables, at their current values."""

    def apply_averages(self) -> None:
        """Sets the variables to their moving averages, and frees these."""

    def start_sums(self) -> None:
        """Starts sums of the weights' gradients at zero."""

    def sums(self) -> list[np.ndarray]:
        """Returns the sums of all weights, in their order."""

    def set_regrown(self, masks: Sequence[tuple[PrunableWeight, Tensor]]) -> None:
        """Sets the masks that pruned weights before they regrew; none frees their memory."""

    def kept(self, extras: StepExtras) -> WeightCopies:
        """Returns copies of moving averages and masks of regrown weights that `extras` need."""

    def set_kept(self, extras: StepExtras, copies: WeightCopies) -> None:
        """Sets what `kept` returned, after both have been started."""


class TrainingAdapter(Protocol):
    """The training of one model, implemented for each Keras."""

    @property
    def weights(self) -> Sequence[PrunableWeight]:
        """The weights that DSD prunes, in the model's order; empty before they are built."""

    @property
    def frozen(self) -> list[str]:
        """Paths of the selected weights that are frozen."""

    def check(self) -> None:
        """Raises ValueError if DSD can't train the model, before anything is changed."""

    @property
    def is_chief(self) -> bool:
        """True if this process writes files: the first of those that train the model."""

    def check_same(self, arguments: str) -> None:
        """Checks that all processes that have parts of a weight were given the same arguments.

        Raises:
            ValueError: They were not: some would wait for others without end.
        """

    def is_same(self, digest: bytes) -> bool:
        """Returns whether all processes that train the model have the same digest of 8 bytes.

        True where that is unknown. Every process calls it.
        """

    @property
    def divided(self) -> Sequence[str]:
        """Paths of the weights of which this process has a part alone."""

    def get_weights(self) -> WeightCopies:
        """Returns copies of the model's weights."""

    def set_weights(self, copies: WeightCopies) -> None:
        """Sets the model's weights."""

    def reset_optimizers(self) -> None:
        """Resets all slots of the optimizers to their initial value, except moving averages."""

    @property
    def batch_norms(self) -> Sequence[BatchNormalization]:
        """The BatchNormalization layers that train."""

    def forward(self, inputs: Inputs) -> None:
        """Runs the model on the inputs of a batch, in training mode."""

    def open(self) -> None:
        """Starts a run: observes optimizer updates in training steps."""

    def close(self) -> None:
        """Ends a run; may be called again."""

    def forget_updates(self) -> None:
        """Discards observations, as the model was compiled again."""

    @property
    def is_observed(self) -> bool:
        """True if any update of this run was observed."""

    @property
    def was_skipped(self) -> bool:
        """True if all updates of this run so far were skipped, as the scaled loss overflowed."""

    @property
    def has_own_train_step(self) -> bool:
        """True if the model has a custom training step, which may not train all weights."""

    def untrained(self) -> Sequence[PrunableWeight]:
        """Returns the weights that are known to be trained by no optimizer."""

    @property
    def unscaled_optimizers(self) -> list[str]:
        """Names of the optimizers that updated weights without reading a learning rate."""

    def set_factors(self, factors: np.ndarray) -> None:
        """Sets the factors of the learning rates within later steps, in order; the last stays."""

    def observing(self, factors: np.ndarray) -> AbstractContextManager[None]:
        """Observes a custom training loop in a `with` block, and scales its learning rates."""

    def count_step(self) -> None:
        """Advances to the next factor, in a custom training loop."""

    @property
    def factor(self) -> object:
        """The factor of the learning rates in the current step."""

    def scaled(self, factor: object) -> AbstractContextManager[None]:
        """Multiplies learning rates by an argument of a traced function within a block."""

    def update_count(self) -> UpdateCount | None:
        """Returns the count of the optimizer that has made the most steps; None: none counts.

        It is copied from the device.
        """

    @property
    def batches_per_execution(self) -> int:
        """Maximum number of batches in one call of the compiled step."""

    def learning_rates(self) -> list[float]:
        """Returns the learning rates, without the factor, of the optimizers that read one."""

    def prints(self) -> bool:
        """Returns whether this Keras prints its progress instead of logging it."""

    def masking(self) -> Callable[[], None]:
        """Returns a function that masks the currently masked weights and their averages."""

    def is_tracing(self) -> bool:
        """Returns whether the current call is being traced."""

    def scheduled_rate(self, step: int) -> float | None:
        """Returns the learning rate of the first schedule of an optimizer at a step, if any."""

    def is_scheduled(self) -> bool:
        """Returns whether a learning rate is a schedule of the step."""

    def masks_of(self, variables: Sequence[Variable] | None) -> list[Tensor | None]:
        """Returns the active mask of each variable as a boolean tensor of the backend, or None.

        Args:
            variables: Variables of the model or its optimizers; None for the trainable ones.
        """

    @property
    def step_state(self) -> StepState:
        """State of the steps, outside of the model."""

    def check_extras(self, extras: StepExtras) -> None:
        """Raises ValueError if the optimizers can't train by steps with `extras`."""

    def make_step(self, masked: bool, extras: StepExtras) -> dict[str, Step | None]:
        """Makes a training step that is compiled when it first runs.

        Args:
            masked: True for a step that multiplies masked weights by their masks after each update.
            extras: What the step does besides.

        Returns:
            The attributes to set on the model, `train_function` among them.
        """


class TrainingState(Protocol):
    """Reads and writes the complete training state of models."""

    def begin(self, seed: int) -> None:
        """Seeds Python, NumPy and the backend, and resets the names that Keras generates."""

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

        State that layers have by `adapt`, such as a vocabulary, is kept.
        """


class KerasAdapter(Protocol):
    """One Keras; the packages `adapters.keras3` and `adapters.tf_keras` satisfy it as modules.

    `apply`, `strip`, `weights`, `skipped` and `training_adapter` raise TypeError if `model` is not
    a layer of this Keras; all but `apply` raise ValueError if it was not passed through `apply`.
    """

    __name__: str

    @property
    def training_state(self) -> TrainingState:
        """Reads and writes the state of models."""

    def apply(self, model: Layer, selection: Selection) -> Layer:
        """Returns the model with weights selected for pruning.

        Raises:
            TypeError: `model` holds layers of another Keras.
            ValueError: `model` was passed through `apply` before, or nothing is selected.
        """

    def strip(self, model: Layer) -> Layer:
        """Returns the model without DSD."""

    def weights(self, model: Layer) -> Sequence[PrunableWeight]:
        """Returns the weights of `model` that DSD prunes."""

    def skipped(self, model: Layer) -> list[SkippedWeight]:
        """Returns the weights of `model` that are never pruned, with reasons."""

    def layers_of_kernels(self, model: Layer) -> list[tuple[str, frozenset[str]]]:
        """Returns the kernels of `model` that are built, before `apply` or after it.

        Each is its path without the model name, and the names of its layer's classes.
        """

    def is_applied(self, model: Layer) -> bool:
        """Returns whether `model`, or a part of it, was passed through `apply`."""

    def mask_bytes(self, model: Layer) -> int:
        """Returns the memory for the masks of a sparse phase, in bytes."""

    def load_model(self, path: str, safe_mode: bool, compiled: bool) -> Model:
        """Loads a model from a file.

        Args:
            path: The file.
            safe_mode: Whether Keras refuses to deserialize code.
            compiled: Whether to compile the model as the file describes.
        """

    def register(self, objects: Mapping[str, object]) -> frozenset[str]:
        """Registers custom objects for loading, and returns the names that files give them."""

    def is_compiled(self, model: Model) -> bool:
        """Returns whether `model` has a loss, so that it can be evaluated."""

    def training_adapter(
        self, model: Layer, optimizers: Sequence[object] | None = None
    ) -> TrainingAdapter:
        """Returns the training adapter of `model`.

        Args:
            model: A model or layer.
            optimizers: The optimizers of a custom training loop. Defaults to `None`: the model's.

        Raises:
            TypeError: One of `optimizers` is of an unknown type.
        """


class OpenRun:
    """Replacement of a model's `make_train_function` while a run is open."""

    def abandon(self) -> None:
        """Ends a run that an exception interrupted."""


def open_run_of(model: Layer) -> OpenRun | None:
    """Returns the open run of `model`, in `fit` or interrupted by an exception, or None."""
    found: Mapping[str, object] = vars(model)
    run = found.get("make_train_function")
    return run if isinstance(run, OpenRun) else None
