"""What DSD needs of tf_keras optimizers, old and new: learning rate, slots, averages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_dsd.utils.checks import shown
from keras_dsd.utils.patches import Patch

_Schedule = tf_keras.optimizers.schedules.LearningRateSchedule
_New = tf_keras.optimizers.Optimizer
_Legacy = tf_keras.optimizers.legacy.Optimizer


def optimizers_of(model: Any) -> list[Any]:
    """Returns the optimizers of a model: the compiled one and any held as an attribute.

    Loss scaling is taken off: what comes back is the optimizer inside.
    """
    held = [value for value in vars(model).values() if isinstance(value, _New | _Legacy)]
    inner = [getattr(each, "inner_optimizer", each) for each in [model.optimizer, *held]]
    return list({id(each): each for each in inner if each is not None}.values())


def check_kind(optimizer: Any) -> None:
    """Checks an optimizer that a loop of the user's own trains with.

    Raises:
        TypeError: It is none of tf_keras's.
    """
    if not isinstance(optimizer, _New | _Legacy):
        raise TypeError(
            f"Expected `optimizer` to be of tf_keras.optimizers. Received: "
            f"optimizer={shown(optimizer)} of type {type(optimizer).__module__}."
            f"{type(optimizer).__name__}. Give one of these."
        )


def is_scheduled(optimizer: Any) -> bool:
    """Returns whether the learning rate is computed from the step, and so can't be set."""
    rate = _hyper(optimizer)
    return isinstance(rate, _Schedule) or (callable(rate) and not hasattr(rate, "assign"))


def get_learning_rate(optimizer: Any) -> np.floating:
    """Returns the learning rate as it stands, in the dtype it is kept in."""
    return np.float32(tf_keras.backend.get_value(optimizer.learning_rate))


def set_learning_rate(optimizer: Any, value: np.floating) -> None:
    """Sets the learning rate."""
    optimizer.learning_rate = float(value)


def scaled(optimizer: Any, factor: float) -> list[Patch]:
    """Returns what multiplies a learning rate that is computed from the step."""
    if factor == 1.0 or not is_scheduled(optimizer):
        return []
    place, name = _home(optimizer)
    return [Patch(place, name, _Scaled(place[name], factor))]


def slots_of(optimizer: Any, variable: Any) -> dict[str, Any]:
    """Returns the slots of `variable` that have a value for each of its positions, by name."""
    return {
        name: slot for name, slot in _slots(optimizer, variable).items()
        if hasattr(slot, "assign") and slot.shape == variable.shape
    }  # fmt: skip


def reset_slots(optimizer: Any, variable: Any, positions: np.ndarray) -> None:
    """Sets the slots of `variable` to what they began with, where `positions` is True.

    That is zero, but for the accumulators of Adagrad and Ftrl. The moving average that `use_ema`
    keeps of a pruned weight is zero as well. Adafactor's factored statistics belong to whole
    rows and columns, and stay.
    """
    for name, slot in slots_of(optimizer, variable).items():
        value = slot.numpy()
        cleared = np.where(positions, value.dtype.type(_initial(optimizer, name)), value)
        slot.assign(cleared)


def reset_all(optimizer: Any, variables: Sequence[Any]) -> None:
    """Sets every slot to what it began with, but not moving averages of weights.

    The step that learning-rate schedules and bias corrections go by stays, and so do Ftrl's
    slots, from which it computes the weights.

    Args:
        optimizer: The optimizer.
        variables: The variables that it updates.
    """
    optimizers = tf_keras.optimizers
    if isinstance(optimizer, optimizers.Ftrl | optimizers.legacy.Ftrl):
        return
    for variable in variables:
        for name, slot in _slots(optimizer, variable).items():
            is_slot = hasattr(slot, "assign") and len(slot.shape) > 0
            if is_slot and name != "_model_variables_moving_average":
                slot.assign(tf.fill(slot.shape, tf.cast(_initial(optimizer, name), slot.dtype)))


def average_of(optimizer: Any, variable: Any) -> Any:
    """Returns the moving average that `use_ema` keeps of `variable`, or None."""
    return slots_of(optimizer, variable).get("_model_variables_moving_average")


def _initial(optimizer: Any, slot_name: str) -> float:
    if slot_name.strip("_").rstrip("s") != "accumulator":
        return 0.0
    held = vars(optimizer)
    names = ("initial_accumulator_value", "_initial_accumulator_value")
    return float(next((held[name] for name in names if name in held), 0.0))


def _slots(optimizer: Any, variable: Any) -> dict[str, Any]:
    if isinstance(optimizer, _Legacy):
        names = optimizer.get_slot_names()
        return {name: _legacy_slot(optimizer, variable, name) for name in names}
    if getattr(optimizer, "_index_dict", None):
        return _new_slots(optimizer, optimizer._index_dict.get(optimizer._var_key(variable)))
    return {}


def _new_slots(optimizer: Any, index: int | None) -> dict[str, Any]:
    """Returns what stands at `index` in the lists of slots that an optimizer keeps."""
    return {
        name: value[index]
        for name, value in vars(optimizer).items()
        if index is not None and isinstance(value, list) and len(value) > index
        and name != "_variables"
    }  # fmt: skip


def _legacy_slot(optimizer: Any, variable: Any, name: str) -> Any:
    try:
        return optimizer.get_slot(variable, name)
    except KeyError:  # not updated yet
        return None


def _home(optimizer: Any) -> tuple[dict[str, Any], str]:
    if isinstance(optimizer, _Legacy):
        return optimizer._hyper, "learning_rate"
    return vars(optimizer), "_learning_rate"


def _hyper(optimizer: Any) -> Any:
    place, name = _home(optimizer)
    return place.get(name)


class _Scaled(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A learning-rate schedule, multiplied. Lives only while a step is traced or run."""

    def __init__(self, original: Any, factor: float) -> None:
        self.original = original
        self.factor = factor

    def __call__(self, step: Any) -> Any:
        takes_step = isinstance(self.original, _Schedule)
        rate = self.original(step) if takes_step else self.original()
        return tf.convert_to_tensor(rate) * self.factor

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {"original": self.original, "factor": self.factor}
