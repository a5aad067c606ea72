"""State of tf_keras optimizers, old and new: learning rate, slots and moving averages."""

from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import numpy as np
import tensorflow as tf
import tf_keras

from keras_dsd.adapters.base import private_names
from keras_dsd.adapters.base.optimizers import (
    AVERAGES,
    initial_value,
    optimizers_in,
    slots_at,
)
from keras_dsd.adapters.tf_arrays import ARRAYS
from keras_dsd.protocols import UpdateCount

_Schedule = tf_keras.optimizers.schedules.LearningRateSchedule
_New = tf_keras.optimizers.Optimizer
_Legacy = tf_keras.optimizers.legacy.Optimizer
KINDS = (_New, _Legacy)
LOSS_SCALES = (tf_keras.mixed_precision.LossScaleOptimizer,)
Optimizer: TypeAlias = tf_keras.optimizers.Optimizer | tf_keras.optimizers.legacy.Optimizer


def optimizers_of(model: tf_keras.layers.Layer) -> list[Optimizer]:
    """Returns the optimizers that a model or its layers hold."""
    return optimizers_in(model._flatten_layers(), KINDS, LOSS_SCALES)


def num_updates(optimizer: Optimizer) -> int:
    """Returns the number of updates made."""
    return int(to_numpy(optimizer.iterations))  # of a strategy, no number


def update_count(optimizer: Optimizer) -> UpdateCount:
    """Returns what an optimizer has counted."""
    return UpdateCount(num_updates(optimizer), 1)


def updates(optimizer: Optimizer, variable: tf.Variable) -> bool:
    """Returns whether `optimizer` was built to update `variable`; a legacy one, has slots of it."""
    if isinstance(optimizer, _Legacy):
        return not optimizer.get_slot_names() or any(
            slot is not None for slot in _slots(optimizer, variable).values()
        )
    return private_names.index_of(optimizer, variable) is not None


def is_scheduled(optimizer: Optimizer) -> bool:
    """Returns whether the learning rate is a schedule, which can't be set."""
    rate = private_names.given_rate(optimizer)
    return isinstance(rate, _Schedule) or (callable(rate) and not isinstance(rate, tf.Variable))


def scheduled_rate(optimizer: Optimizer, step: int) -> float | None:
    """Returns the value of the optimizer's learning rate schedule at a step, if it has one."""
    rate = private_names.given_rate(optimizer)
    return float(rate(step)) if isinstance(rate, _Schedule) else None


def learning_rates_of(optimizer: Optimizer) -> list[float]:
    """Returns the current learning rate, without the decay of a legacy optimizer."""
    rate = private_names.given_rate(optimizer)
    if isinstance(rate, _Schedule):
        rate = rate(optimizer.iterations)
    elif is_scheduled(optimizer):
        rate = cast("Callable[[], tf.Tensor | float]", rate)()
    return [] if rate is None else [float(tf_keras.backend.get_value(rate))]


def to_numpy(variable: tf.Variable) -> np.ndarray:
    """Returns a copy of a variable's values."""
    return np.array(variable.numpy())


def slots_of(optimizer: Optimizer, variable: tf.Variable) -> dict[str, tf.Variable]:
    """Returns the slots of `variable` that have its shape, by name."""
    return {
        name: slot for name, slot in _slots(optimizer, variable).items()
        if isinstance(slot, tf.Variable) and slot.shape == variable.shape
    }  # fmt: skip


def fill(variable: tf.Variable, mask: tf.Tensor, number: float) -> None:
    """Sets a variable to `number` where `mask` is False."""
    variable.assign(ARRAYS.fill(tf.convert_to_tensor(variable), mask, number))


def reset_slots(optimizer: Optimizer, variable: tf.Variable, mask: tf.Tensor) -> None:
    """Resets the slots of `variable` to their initial value where `mask` is False.

    The moving average that `use_ema` keeps of a pruned weight is zero as well, and so are
    gradients accumulated for it. Adafactor's factored statistics belong to complete rows and
    columns, and stay.
    """
    for name, slot in slots_of(optimizer, variable).items():
        fill(slot, mask, initial_value(optimizer, name))


def reset_all(optimizer: Optimizer, variables: Sequence[tf.Variable]) -> None:
    """Resets every slot to its initial value, except moving averages of weights.

    The step that learning-rate schedules and bias corrections depend on stays, and so do Ftrl's
    slots, from which it computes the weights.
    """
    optimizers = tf_keras.optimizers
    if isinstance(optimizer, optimizers.Ftrl | optimizers.legacy.Ftrl):
        return
    for variable in variables:
        for name, slot in _slots(optimizer, variable).items():
            is_slot = isinstance(slot, tf.Variable) and len(slot.shape) > 0
            if is_slot and name != AVERAGES:
                slot.assign(
                    tf.fill(slot.shape, tf.cast(initial_value(optimizer, name), slot.dtype))
                )


def average_of(optimizer: Optimizer, variable: tf.Variable) -> tf.Variable | None:
    """Returns the moving average that `use_ema` keeps of `variable`, or None."""
    return slots_of(optimizer, variable).get(AVERAGES)


def _slots(optimizer: Optimizer, variable: tf.Variable) -> dict[str, tf.Variable]:
    if isinstance(optimizer, _Legacy):
        names = optimizer.get_slot_names()
        return {name: _legacy_slot(optimizer, variable, name) for name in names}
    return slots_at(optimizer, private_names.index_of(optimizer, variable))


def _legacy_slot(optimizer: Optimizer, variable: tf.Variable, name: str) -> tf.Variable | None:
    try:
        return optimizer.get_slot(variable, name)
    except KeyError:  # not updated so far
        return None
