"""Optimizer state of either Keras: which attributes are slots, and their initial values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from keras_dsd.adapters.base.observation import AnyOptimizer
from keras_dsd.protocols import Layer, Optimizer, Tensor, UpdateCount, Variable

OptimizerT = TypeVar("OptimizerT")
# Lists of variables of an optimizer that are not slots.
NOT_SLOTS = ("_variables", "_trainable_variables")
AVERAGES = "_model_variables_moving_average"


class OptimizerFunctions(Protocol):
    """Protocol of the module `optimizer` of either adapter."""

    @property
    def LOSS_SCALES(self) -> tuple[type, ...]:  # noqa: N802 - a constant of the module
        """The classes of optimizers that scale the loss, and leave updates to another."""

    def optimizers_of(self, model: Layer) -> Sequence[AnyOptimizer]:
        """Returns the optimizers that a model holds."""

    def num_updates(self, optimizer: AnyOptimizer) -> int:
        """Returns the number of updates that `optimizer` has made."""

    def update_count(self, optimizer: AnyOptimizer) -> UpdateCount | None:
        """Returns what `optimizer` has counted; None where it does not count."""

    def updates(self, optimizer: AnyOptimizer, variable: Variable) -> bool:
        """Returns whether `optimizer` was built to update `variable`."""

    def scheduled_rate(self, optimizer: AnyOptimizer, step: int) -> float | None:
        """Returns the value of the optimizer's learning rate schedule at a step, if it has one."""

    def is_scheduled(self, optimizer: AnyOptimizer) -> bool:
        """Returns whether the learning rate is a schedule, which can't be set."""

    def learning_rates_of(self, optimizer: AnyOptimizer) -> list[float]:
        """Returns the current learning rates."""

    def average_of(self, optimizer: AnyOptimizer, variable: Variable) -> Variable | None:
        """Returns the moving average that `use_ema` keeps of `variable`, or None."""

    def reset_slots(self, optimizer: AnyOptimizer, variable: Variable, mask: Tensor) -> None:
        """Resets the slots of `variable` to their initial value where `mask` is False."""

    def fill(self, variable: Variable, mask: Tensor, number: float) -> None:
        """Sets a variable to `number` where `mask` is False."""

    def to_numpy(self, variable: Variable) -> np.ndarray:
        """Returns a copy of a variable's values."""


# Longer lists hold data.
_MOST_ITEMS = 1000
# Maximum depth of the search in containers.
_DEPTH = 4
_FRAMEWORKS = {"keras", "tf_keras", "tensorflow", "jax", "jaxlib", "torch", "numpy", "builtins"}


def without_loss_scale(optimizer: AnyOptimizer, loss_scales: tuple[type, ...]) -> Any:
    """Returns the optimizer inside one of the classes `loss_scales`, or `optimizer` itself.

    By class: a custom optimizer that has an `inner_optimizer` updates weights itself.
    """
    scale: Any = optimizer
    return scale.inner_optimizer if isinstance(optimizer, loss_scales) else optimizer


def optimizers_in(
    parts: Iterable[Layer],
    kinds: type[OptimizerT] | tuple[type[OptimizerT], ...],
    loss_scales: tuple[type, ...],
) -> list[OptimizerT]:
    """Returns the optimizers that a model holds, before any updates weights.

    They are attributes of the model or of a layer: directly, in lists, tuples, sets and dicts, or
    in custom objects, such as a lookahead optimizer. For a loss scale optimizer, the optimizer
    inside is returned.

    Args:
        parts: The model and its layers.
        kinds: The optimizer classes.
        loss_scales: The classes among them that scale the loss.
    """
    layers = list(parts)
    seen = set(map(id, layers))
    waiting = [
        (value, _DEPTH)
        for part in layers
        for value in (getattr(part, "optimizer", None), *vars(part).values())
    ]
    found: dict[int, OptimizerT] = {}
    for value, depth in waiting:
        if isinstance(value, kinds):
            inner = without_loss_scale(value, loss_scales)
            found.setdefault(id(inner), inner)
        elif id(value) not in seen and depth:
            held = _held_by(value)
            if held:
                seen.add(id(value))
                waiting += [(each, depth - 1) for each in held]
    return list(found.values())


def _held_by(value: object) -> list[object]:
    """Returns the values in a container, or of the attributes of a custom object."""
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if len(value) > _MOST_ITEMS:
            return []
        return list(value.values() if isinstance(value, Mapping) else value)
    if type(value).__module__.partition(".")[0] in _FRAMEWORKS:
        return []
    return list(getattr(value, "__dict__", {}).values())


def slots_at(optimizer: Optimizer, index: int | None) -> dict[str, object]:
    """Returns the slots at `index` of the lists of an optimizer, by the name of the list."""
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
