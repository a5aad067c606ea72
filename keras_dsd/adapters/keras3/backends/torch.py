"""Masks on PyTorch: weights are changed in place."""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, cast

import keras
import numpy as np
import torch
import torch.distributed as dist
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from keras_dsd.adapters.base.factors import Factors, HostFactors, Values
from keras_dsd.adapters.base.observation import Observation, current, observing
from keras_dsd.adapters.base.step_state import StepState, averaged
from keras_dsd.adapters.base.weight import Weight
from keras_dsd.adapters.keras3.backends import (
    Backend,
    DerivedOf,
    MaskOf,
    ObservedStep,
    SlotsOf,
    TrainStep,
    torch_updates,
)
from keras_dsd.adapters.keras3.backends.torch_arrays import ARRAYS
from keras_dsd.protocols import Inputs, Step
from keras_dsd.utils.patches import Patch


class TorchBackend(Backend[torch.Tensor]):
    """Masks as tensors; PyTorch runs operations eagerly."""

    runs_in_python = True
    optimizers = (torch.optim.Optimizer,)
    arrays = ARRAYS

    def process(self) -> tuple[int, int]:
        """Returns the rank of this process, and the number of ranks."""
        if dist.is_available() and dist.is_initialized():
            return dist.get_rank(), dist.get_world_size()
        return 0, 1

    def tensor_of(self, variable: keras.Variable) -> torch.Tensor:
        """Returns the values of a variable, without gradient."""
        return variable.value.detach()

    def make_step_state(
        self, model: keras.Model, weights: Callable[[], Sequence[Any]]
    ) -> "TorchStepState":
        """Returns what the steps of a model keep of variables."""
        return TorchStepState(model, weights)

    def put_mask(
        self, mask: torch.Tensor, model: keras.Layer, earlier: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns `mask` as int8, which PyTorch casts faster than bool."""
        del model, earlier
        return mask.to(torch.int8)

    def mask_to_numpy(self, mask: torch.Tensor) -> np.ndarray:
        """Returns the mask as a boolean array."""
        return mask.cpu().numpy().astype(bool)

    def mask_to_tensor(self, mask: torch.Tensor) -> torch.Tensor:
        """Returns the mask as a boolean tensor."""
        return mask.view(torch.bool)

    def apply_masks(self, pairs: Sequence[tuple[keras.Variable, torch.Tensor]]) -> None:
        """Sets each variable to zero where its mask is 0."""
        torch_updates.apply_masks(pairs)

    def update_patches(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        mask_of: MaskOf[torch.Tensor],
        derived: DerivedOf,
        slots_of: SlotsOf,
        jit_compile: object,
    ) -> list[Patch]:
        """Returns the patches that mask variables within their update, if that is faster."""
        del jit_compile
        return torch_updates.patches(optimizer, variables, mask_of, derived, slots_of)

    def train_step(self, plain: TrainStep, step: ObservedStep) -> TrainStep:
        """Returns the masked `train_step`; `train_function` observes it outside `torch.compile`."""
        ends_in_masks = step.ends_in_masks
        if not ends_in_masks and step.extras.ema is None:
            return plain

        def train_step(data: object) -> object:
            logs = plain(data)
            step.end(ends_in_masks)
            return logs

        return train_step

    def train_function(self, plain: Step, step: ObservedStep) -> Step:
        """Returns a `train_function` that observes optimizers of Keras and of `torch.optim`."""
        hooks = contextlib.nullcontext if step.hooks is None else _TorchOptimHooks

        def train_function(iterator: object) -> object:
            with step.observed(), hooks():
                logs = plain(iterator)
            step.observation.factors.count()
            return logs

        return train_function

    def loop_hooks(self, observation: Observation) -> AbstractContextManager[object]:
        """Returns the hooks into `torch.optim`."""
        del observation
        return _TorchOptimHooks()

    def factors_of(self, model: keras.Layer) -> Factors:
        """Returns numbers, or a tensor where they change from step to step."""
        del model
        return _TorchFactors()

    def multiply(self, rate: object, factor: float | torch.Tensor) -> object:
        """Returns a learning rate times a factor; unchanged for the number 1.0."""
        if isinstance(factor, torch.Tensor):
            tensor: torch.Tensor = keras.ops.convert_to_tensor(rate)
            return tensor * factor.to(tensor.dtype)
        if factor == 1.0:
            return rate
        value = (
            rate.value if isinstance(rate, keras.Variable) else keras.ops.convert_to_tensor(rate)
        )
        return value * float(np.float32(factor))

    def forward(self, model: keras.Model, inputs: Inputs) -> None:
        """Runs a model in training mode."""
        with torch.no_grad():
            super().forward(model, inputs)


class TorchStepState(StepState[torch.Tensor]):
    """Tensors that steps change in place."""

    def _copy(self, variable: keras.Variable) -> torch.Tensor:
        return variable.value.detach().clone()

    def _zeros(self, variable: keras.Variable) -> torch.Tensor:
        return torch.zeros_like(variable.value.detach(), dtype=torch.float32)

    def _mask(self, weight: Weight, mask: torch.Tensor) -> torch.Tensor:
        return mask.clone()

    def _read(self, held: torch.Tensor) -> np.ndarray:
        return np.array(keras.ops.convert_to_numpy(held))

    def _clear(self, held: torch.Tensor) -> None:
        held.zero_()

    def _write(self, held: torch.Tensor, value: np.ndarray) -> None:
        held.copy_(keras.ops.convert_to_tensor(value))

    def _assign(self, variable: keras.Variable, held: torch.Tensor) -> None:
        variable.assign(held)

    @torch.no_grad()
    def _average(self, held: torch.Tensor, value: keras.Variable, momentum: float) -> None:
        held.copy_(averaged(held, value.value, momentum))

    @torch.no_grad()
    def _add(
        self, variable: keras.Variable, held: torch.Tensor, gradient: Any, is_movement: bool
    ) -> None:
        gradient = gradient.to(torch.float32)
        held.add_(-gradient * variable.value if is_movement else gradient)

    @torch.no_grad()
    def _decay(
        self, variable: keras.Variable, held: torch.Tensor, learning_rate: Any, decay: float
    ) -> None:
        value = variable.value
        value.copy_(torch.where(held, value, value - value * (learning_rate * decay)))


BACKEND = TorchBackend()


class _TorchFactors(HostFactors):
    """Numbers; in place of ones that change a tensor: `torch.compile` compiles for each number."""

    def set(self, values: Values) -> None:
        """Sets the factors of the next steps, in order; the last one stays."""
        super().set(values)
        self._given = None if self.are_constant else torch.tensor(self.value, dtype=torch.float64)

    def count(self) -> None:
        """Advances to the next step."""
        super().count()
        if isinstance(self._given, torch.Tensor):
            self._given.fill_(self.value)


class _TorchOptimHooks:
    """Observes optimizers of `torch.optim` within a block, and scales their learning rates."""

    def __init__(self) -> None:
        self._scaled: list[_ScaledGroup] = []

    def __enter__(self) -> None:
        self._handles = [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._unscale(None)  # left by a step that raised

    def _before(self, optimizer: torch.optim.Optimizer, *call: object) -> None:
        del call
        observation = observing(optimizer)
        if observation is None:
            return
        observation.begin(optimizer)
        for group in optimizer.param_groups:
            if "lr" in group:
                factor = float(cast("float", observation.factor_for(optimizer)))
                # A wrapped optimizer shares its groups with the wrapper.
                if factor != 1.0 and not any(each.group is group for each in self._scaled):
                    self._scaled.append(_ScaledGroup(optimizer, group, group["lr"]))
                    group["lr"] = group["lr"] * factor

    def _after(self, optimizer: torch.optim.Optimizer, *call: object) -> None:
        del call
        observation = current()
        if observation is None:
            return
        self._unscale(optimizer)
        parameters = (each for group in optimizer.param_groups for each in group["params"])
        observation.end(optimizer, [each for each in parameters if each.grad is not None])

    def _unscale(self, optimizer: torch.optim.Optimizer | None) -> None:
        for each in self._scaled:
            if optimizer is None or each.optimizer is optimizer:
                each.group["lr"] = each.lr
        self._scaled = [each for each in self._scaled if each.group["lr"] is not each.lr]


class _ScaledGroup(NamedTuple):
    """A parameter group whose learning rate is scaled while its optimizer updates."""

    optimizer: torch.optim.Optimizer
    group: dict[str, Any]
    lr: float | torch.Tensor


def reset_slots(
    optimizer: torch.optim.Optimizer, variable: keras.Variable, mask: torch.Tensor
) -> None:
    """Resets the slots that `torch.optim` keeps of `variable` to their initial value."""
    for name, slot in _slots_of(optimizer, variable.value).items():
        slot.masked_fill_(~mask, _initial(optimizer, name))


def reset_all(optimizer: torch.optim.Optimizer) -> None:
    """Resets every slot of `torch.optim` to its initial value; counts of steps stay."""
    for parameter in optimizer.state:
        for name, slot in _slots_of(optimizer, parameter).items():
            slot.fill_(_initial(optimizer, name))


def _slots_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    held = optimizer.state.get(parameter, {})
    return {
        name: slot for name, slot in held.items()
        if isinstance(slot, torch.Tensor) and slot.dim() and slot.shape == parameter.shape
    }  # fmt: skip


def _initial(optimizer: torch.optim.Optimizer, name: str) -> float:
    """Returns a slot's initial value: zero except for Adagrad's sums and Rprop's steps."""
    source = {"sum": "initial_accumulator_value", "step_size": "lr"}
    return float(optimizer.defaults.get(source.get(name, name), 0.0))
