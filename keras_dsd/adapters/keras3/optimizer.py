"""What DSD needs of Keras 3 optimizers: slots and averages."""

from typing import Any

import keras
import numpy as np

from keras_dsd.adapters.keras3 import backends


def optimizers_of(model: Any) -> list[Any]:
    """Returns the optimizers of a model: the compiled one and any held as an attribute.

    Loss scaling is taken off: what comes back is the optimizer inside.
    """
    held = [each for each in vars(model).values() if isinstance(each, keras.optimizers.Optimizer)]
    inner = [getattr(e, "inner_optimizer", e) for e in [getattr(model, "optimizer", None), *held]]
    return list({id(each): each for each in inner if each is not None}.values())


def is_scheduled(optimizer: Any) -> bool:
    """Returns whether the learning rate is computed from the step, and so can't be set."""
    rate = vars(optimizer).get("_learning_rate")
    return rate is not None and not isinstance(rate, keras.Variable)


def rates_of(optimizer: Any) -> list[float]:
    """Returns the learning rates as they stand; an optimizer of `torch.optim` has one a group."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return [float(group["lr"]) for group in optimizer.param_groups]
    return [float(keras.ops.convert_to_numpy(optimizer.learning_rate))]


def slots_of(optimizer: Any, variable: Any) -> dict[str, Any]:
    """Returns the slots of `variable` that have a value for each of its positions, by name."""
    index = optimizer._trainable_variables_indices.get(optimizer._var_key(variable))
    at_index = {
        name: value[index]
        for name, value in vars(optimizer).items()
        if index is not None and isinstance(value, list | tuple) and len(value) > index
        and name not in ("_variables", "_trainable_variables")
    }  # fmt: skip
    return {
        name: slot for name, slot in at_index.items()
        if isinstance(slot, keras.Variable) and tuple(slot.shape) == tuple(variable.shape)
    }  # fmt: skip


def reset_slots(optimizer: Any, variable: Any, positions: np.ndarray) -> None:
    """Sets the slots of `variable` to what they began with, where `positions` is True.

    That is zero, but for the accumulators of Adagrad and Ftrl. The moving average that `use_ema`
    keeps of a pruned weight is zero as well, and so are gradients accumulated for it. Adafactor's
    factored statistics belong to whole rows and columns, and stay.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        backends.current().reset_slots(optimizer, variable, positions)
        return
    for name, slot in slots_of(optimizer, variable).items():
        value = np.array(keras.ops.convert_to_numpy(slot.value))
        slot.assign(np.where(positions, value.dtype.type(_initial(optimizer, name)), value))


def reset_all(optimizer: Any) -> None:
    """Sets every slot to what it began with, but not moving averages of weights.

    Counters stay: the step that learning-rate schedules and bias corrections go by, and what
    Nadam multiplies up beside it. So do Ftrl's slots, from which it computes the weights.
    """
    if isinstance(optimizer, keras.optimizers.Ftrl):
        return
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        backends.current().reset_all(optimizer)
        return
    averages = {id(each) for each in getattr(optimizer, "_model_variables_moving_average", ())}
    for name, held in vars(optimizer).items():
        if name in ("_variables", "_trainable_variables") or not isinstance(held, list | tuple):
            continue
        for slot in held:
            is_slot = isinstance(slot, keras.Variable) and len(slot.shape) > 0
            if is_slot and id(slot) not in averages:
                slot.assign(keras.ops.full_like(slot.value, _initial(optimizer, name)))


def average_of(optimizer: Any, variable: Any) -> Any:
    """Returns the moving average that `use_ema` keeps of `variable`, or None."""
    if not updates(optimizer, variable) or not optimizer.use_ema:
        return None
    index = optimizer._trainable_variables_indices[optimizer._var_key(variable)]
    return optimizer._model_variables_moving_average[index]


def updates(optimizer: Any, variable: Any) -> bool:
    """Returns whether `optimizer`, of Keras's, was built to update `variable`."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return False
    return optimizer._var_key(variable) in optimizer._trainable_variables_indices


def _initial(optimizer: Any, slot_name: str) -> float:
    if slot_name == "_accumulators":
        return float(getattr(optimizer, "initial_accumulator_value", 0.0))
    return 0.0
