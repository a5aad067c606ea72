"""State of Keras 3 optimizers: slots and moving averages."""

from typing import TYPE_CHECKING, TypeAlias, Union

import keras
import numpy as np

from keras_dsd.adapters.base import private_names
from keras_dsd.adapters.base.device_arrays import Array
from keras_dsd.adapters.base.optimizers import (
    AVERAGES,
    NOT_SLOTS,
    initial_value,
    optimizers_in,
    slots_at,
)
from keras_dsd.adapters.keras3 import backends, kernels
from keras_dsd.protocols import UpdateCount

if TYPE_CHECKING:
    import torch

Optimizer: TypeAlias = Union[keras.optimizers.Optimizer, "torch.optim.Optimizer"]
LOSS_SCALES = (keras.optimizers.LossScaleOptimizer,)


def optimizers_of(model: keras.Layer) -> list[Optimizer]:
    """Returns the optimizers that a model or its layers hold, including `torch.optim`."""
    kinds = (keras.optimizers.Optimizer, *backends.current().optimizers)
    return optimizers_in(kernels.parts_of(model), kinds, LOSS_SCALES)


def num_updates(optimizer: Optimizer) -> int:
    """Returns the number of updates made; of `torch.optim`, 1 for any number."""
    count = update_count(optimizer)
    return int(bool(optimizer.state)) if count is None else count.steps


def update_count(optimizer: Optimizer) -> UpdateCount | None:
    """Returns what an optimizer has counted; None for `torch.optim`, which does not count."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return None
    counter, per_step = private_names.counter_of(optimizer)
    return UpdateCount(int(keras.ops.convert_to_numpy(counter)), per_step)


def is_scheduled(optimizer: Optimizer) -> bool:
    """Returns whether the learning rate is a schedule, which can't be set."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return False
    rate = private_names.given_rate(optimizer)
    return rate is not None and not isinstance(rate, keras.Variable)


def scheduled_rate(optimizer: Optimizer, step: int) -> float | None:
    """Returns the value of the optimizer's learning rate schedule at a step, if it has one."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return None
    rate = private_names.given_rate(optimizer)
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return None
    return float(keras.ops.convert_to_numpy(rate(step)))


def learning_rates_of(optimizer: Optimizer) -> list[float]:
    """Returns the current learning rates; of `torch.optim`, one per parameter group."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
    return [float(keras.ops.convert_to_numpy(optimizer.learning_rate))]


def to_numpy(variable: keras.Variable) -> np.ndarray:
    """Returns a copy of a variable's values.

    Raises:
        ValueError: Parts of it are on devices of other processes.
    """
    backends.current().check_readable(variable.value, variable.path)
    return np.array(keras.ops.convert_to_numpy(variable.value))


def slots_of(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> dict[str, keras.Variable]:
    """Returns the slots of `variable` that have its shape, by name."""
    index = private_names.index_of(optimizer, variable)
    return {
        name: slot for name, slot in slots_at(optimizer, index).items()
        if isinstance(slot, keras.Variable) and tuple(slot.shape) == tuple(variable.shape)
    }  # fmt: skip


def fill(variable: keras.Variable, mask: Array, number: float) -> None:
    """Sets a variable to `number` where `mask` is False."""
    backend = backends.current()
    variable.assign(backend.arrays.fill(backend.tensor_of(variable), mask, number))


def reset_slots(optimizer: Optimizer, variable: keras.Variable, mask: Array) -> None:
    """Resets the slots of `variable` to their initial value where `mask` is False.

    The moving average that `use_ema` keeps of a pruned weight is zero as well, and so are
    gradients accumulated for it. Adafactor's factored statistics belong to complete rows and
    columns, and stay.
    """
    if isinstance(optimizer, keras.optimizers.Optimizer):
        for name, slot in slots_of(optimizer, variable).items():
            fill(slot, mask, initial_value(optimizer, name))
    else:
        from keras_dsd.adapters.keras3.backends import torch

        torch.reset_slots(optimizer, variable, mask)


def reset_all(optimizer: Optimizer) -> None:
    """Resets every slot to its initial value, except moving averages of weights.

    Counters stay: the step that learning-rate schedules and bias corrections depend on, and the
    product that Nadam keeps with it. So do Ftrl's slots, from which it computes the weights.
    """
    if isinstance(optimizer, keras.optimizers.Ftrl):
        return
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        from keras_dsd.adapters.keras3.backends import torch

        torch.reset_all(optimizer)
        return
    averages = {id(each) for each in getattr(optimizer, AVERAGES, ())}
    for name, held in vars(optimizer).items():
        if name in NOT_SLOTS or not isinstance(held, list | tuple):
            continue
        for slot in held:
            is_slot = isinstance(slot, keras.Variable) and len(slot.shape) > 0
            if is_slot and id(slot) not in averages:
                slot.assign(keras.ops.full_like(slot.value, initial_value(optimizer, name)))


def average_of(optimizer: Optimizer, variable: keras.Variable) -> keras.Variable | None:
    """Returns the moving average that `use_ema` keeps of `variable`, or None."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return None
    index = private_names.index_of(optimizer, variable)
    if not optimizer.use_ema or index is None:
        return None
    average: keras.Variable = getattr(optimizer, AVERAGES)[index]
    return average


def updates(optimizer: Optimizer, variable: keras.Variable) -> bool:
    """Returns whether `optimizer` was created or built to update `variable`."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        groups = optimizer.param_groups
        return any(each is variable.value for group in groups for each in group["params"])
    return private_names.index_of(optimizer, variable) is not None
