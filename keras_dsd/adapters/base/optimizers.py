"""Optimizer state of either Keras: which attributes are slots, and their initial values."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from keras_dsd.protocols import Layer, Optimizer, Variable

# An optimizer as reading it requires: Keras's own, or one of torch.optim.
AnyOptimizer: TypeAlias = object
OptimizerT = TypeVar("OptimizerT")
# Lists that an optimizer keeps of variables that are no slots.
NOT_SLOTS = ("_variables", "_trainable_variables")
AVERAGES = "_model_variables_moving_average"


class OptimizerFunctions(Protocol):
    """The module `optimizer` of either adapter, as the shared classes use it."""

    def optimizers_of(self, model: Layer) -> list[Optimizer]:
        """Returns the optimizers of a model: the compiled one and any held as an attribute."""

    def is_scheduled(self, optimizer: AnyOptimizer) -> bool:
        """Returns whether the learning rate is computed from the step, and so can't be set."""

    def learning_rates_of(self, optimizer: AnyOptimizer) -> list[float]:
        """Returns the current learning rates."""

    def average_of(self, optimizer: AnyOptimizer, variable: Variable) -> Variable | None:
        """Returns the moving average that `use_ema` keeps of `variable`, or None."""

    def reset_slots(self, optimizer: AnyOptimizer, variable: Variable, entries: np.ndarray) -> None:
        """Resets the slots of `variable` to their initial value where `entries` is True."""

    def to_numpy(self, variable: Variable) -> np.ndarray:
        """Returns a copy of a variable's values."""


def optimizers_in(
    model: Layer, kinds: type[OptimizerT] | tuple[type[OptimizerT], ...]
) -> list[OptimizerT]:
    """Returns the optimizers of a model: the compiled one and any held as an attribute.

    Loss scaling is removed: the optimizer inside is returned.
    """
    held: list[OptimizerT] = [value for value in vars(model).values() if isinstance(value, kinds)]
    every = [getattr(model, "optimizer", None), *held]
    inner = [getattr(each, "inner_optimizer", each) for each in every]
    return list({id(each): each for each in inner if each is not None}.values())


def slots_at(optimizer: Optimizer, index: int | None) -> dict[str, object]:
    """Returns the entries at `index` of the lists that an optimizer keeps slots in, by name."""
    return {
        name: value[index]
        for name, value in vars(optimizer).items()
        if index is not None and isinstance(value, list | tuple) and len(value) > index
        and name not in NOT_SLOTS
    }  # fmt: skip


def initial_value(optimizer: Optimizer, slot_name: str) -> float:
    """Returns a slot's initial value: zero, except for the accumulators of Adagrad and Ftrl."""
    if slot_name.strip("_").rstrip("s") != "accumulator":
        return 0.0
    held = vars(optimizer)
    names = ("initial_accumulator_value", "_initial_accumulator_value")
    return float(next((held[name] for name in names if name in held), 0.0))


def reset_entries(
    optimizer: Optimizer,
    slots: Mapping[str, Variable],
    entries: np.ndarray,
    to_numpy: Callable[[Variable], np.ndarray],
) -> None:
    """Resets slots to their initial value where `entries` is True.

    The moving average that `use_ema` keeps of a pruned weight is zero as well, and so are
    gradients accumulated for it.
    """
    for name, slot in slots.items():
        set_entries(slot, entries, initial_value(optimizer, name), to_numpy)


def set_entries(
    variable: Variable,
    entries: np.ndarray,
    number: float,
    to_numpy: Callable[[Variable], np.ndarray],
) -> None:
    """Sets a variable to `number` where `entries` is True."""
    value = to_numpy(variable)
    variable.assign(np.where(entries, value.dtype.type(number), value))


def multiply(rate: np.floating, factor: float) -> np.float32:
    """Returns `rate * factor` as the backends compute it; NumPy 1 would make it a float64."""
    return np.float32(rate) * np.float32(factor)


def divide(rate: np.floating, factor: float) -> np.float32:
    """Returns the float32 that, multiplied by `factor`, gives `rate` again where there is one."""
    near = np.float32(rate / factor)
    candidates = [near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))]
    return next((c for c in candidates if multiply(c, factor) == rate), near)
