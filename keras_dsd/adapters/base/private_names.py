"""Private names of Keras, TensorFlow and PyTorch that observing and masking updates depends on.

No other module uses private names. Each has a fallback for versions without it; the tests run with
the oldest and the newest versions.
"""

import sys
from collections.abc import Sequence
from typing import Any

# Keras 3: `apply` reads the learning rate by it. Without it no rate is scaled, with a warning.
READ_RATE = "_get_current_learning_rate"
# tf_keras, legacy optimizers: the same.
READ_DECAYED_RATE, READ_HYPER = "_decayed_lr", "_get_hyper"
# Keras 3: the update of all variables. Without it masks follow the update.
UPDATE_ALL = "_backend_update_step"
# Keras 3 on JAX: the shardings of what a step returns. Without it JAX decides them.
STATE_SHARDINGS = "_get_state_sharding_spec"
# tf_keras: the updates of one variable, of one variable by XLA, and of all. Without the first one,
# weights are masked at the end of the step.
UPDATE_ONE, UPDATE_ONE_BY_XLA = "_update_step", "_update_step_xla"
UPDATE_GIVEN = "_internal_apply_gradients"
# The variable that counts updates. Without it, each update of a variable reads it again.
COUNT = "_iterations"


def given_rate(optimizer: Any) -> Any:
    """Returns the learning rate as it was set, such as a schedule; None if unknown."""
    hyper = getattr(optimizer, "_hyper", None)  # of legacy optimizers
    given = vars(optimizer).get("_learning_rate")
    return given if hyper is None else hyper.get("learning_rate")


def counter_of(optimizer: Any) -> tuple[Any, int]:
    """Returns the variable that counts how often an optimizer was given gradients, and a number.

    It accumulates the gradients of so many for an update. Where the variable is not known, what
    counts the updates, and 1.
    """
    counter = getattr(optimizer, "_iterations", None)
    per_step = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    return (optimizer.iterations, 1) if counter is None else (counter, per_step)


def variables_of(optimizer: Any) -> Sequence[Any]:
    """Returns the variables that an optimizer was built for; empty if unknown."""
    return getattr(optimizer, "_trainable_variables", ())


def key_of(optimizer: Any, variable: Any) -> Any:
    """Returns an optimizer's key of a variable; its id if unknown."""
    key = getattr(optimizer, "_var_key", id)
    return key(variable)


def index_of(optimizer: Any, variable: Any) -> int | None:
    """Returns the index of a variable's slots in the lists of an optimizer, or None.

    Without such an index, it is that of the variable among those the optimizer was built for.
    """
    for name in ("_trainable_variables_indices", "_index_dict"):
        if hasattr(optimizer, name):
            found: int | None = getattr(optimizer, name).get(key_of(optimizer, variable))
            return found
    places = (i for i, each in enumerate(variables_of(optimizer)) if each is variable)
    return next(places, None)


def jit_compile_of(model: Any) -> object:
    """Returns `jit_compile` as passed to `compile` of tf_keras; `"auto"` if unknown."""
    config = getattr(getattr(model, "_compile_config", None), "config", {})
    return config.get("jit_compile", "auto")


def batches_per_execution_of(model: Any) -> int:
    """Returns how many batches `compile` has tf_keras train on in one call; 1 where not known."""
    variable = getattr(model, "_steps_per_execution", None)
    return 1 if variable is None else int(variable.numpy())


def is_debugged() -> bool:
    """Returns whether a TensorFlow debugger inspects every operation; False if unknown.

    Both `enable_check_numerics` and `enable_dump_debug_info` do.
    """
    eager: Any = sys.modules.get("tensorflow.python.eager.context")
    return bool(getattr(eager and eager.context(), "op_callbacks", ()))


def gradient_functions() -> dict[str, Any]:
    """Returns TensorFlow's functions of gradients, by their names; empty if unknown."""
    ops: Any = sys.modules.get("tensorflow.python.framework.ops")
    found: dict[str, Any] = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    return found


def strategy_of(thread: object) -> object | None:
    """Returns the strategy for which a thread runs a replica's step; None if none or unknown."""
    found: object | None = getattr(thread, "distribution", None)
    return found


def whole_of(replica: Any) -> Any:
    """Returns the distributed variable of `replica`; `replica` itself if none or unknown."""
    container = getattr(replica.handle, "_distributed_container", None)
    return replica if container is None else container()


def unique_id_of(variable: Any) -> object:
    """Returns a key that a TensorFlow variable shares with its wrappers, or its id."""
    return getattr(variable, "_unique_id", id(variable))
