"""Private names of Keras, TensorFlow and PyTorch that observing and masking updates depends on.

No other module has them. Each says what is done with a version that lacks it; the tests run with
the oldest and the newest versions.
"""

import sys
from collections.abc import Sequence
from typing import Any

# Keras 3: what `apply` reads the learning rate by. Without it no rate is scaled, as a warning says.
READ_RATE = "_get_current_learning_rate"
# tf_keras, legacy optimizers: likewise.
READ_DECAYED_RATE, READ_HYPER = "_decayed_lr", "_get_hyper"
# Keras 3: the update of all variables. Without it masks follow an update, instead of being part.
UPDATE_ALL = "_backend_update_step"
# tf_keras: the updates of one variable, of one by a program of XLA's, and of all. Without the first
# one the weights are masked as the step ends.
UPDATE_ONE, UPDATE_ONE_BY_XLA = "_update_step", "_update_step_xla"
UPDATE_GIVEN = "_internal_apply_gradients"


def given_rate(optimizer: Any) -> Any:
    """Returns the learning rate as it was given, a schedule for example; None where not known."""
    hyper = getattr(optimizer, "_hyper", None)  # of legacy optimizers
    given = vars(optimizer).get("_learning_rate")
    return given if hyper is None else hyper.get("learning_rate")


def variables_of(optimizer: Any) -> Sequence[Any]:
    """Returns what an optimizer was built to update; nothing where not known."""
    return getattr(optimizer, "_trainable_variables", ())


def key_of(optimizer: Any, variable: Any) -> Any:
    """Returns what an optimizer tells a variable by; its id where not known."""
    key = getattr(optimizer, "_var_key", id)
    return key(variable)


def index_of(optimizer: Any, variable: Any) -> int | None:
    """Returns where in its lists an optimizer keeps slots of a variable, or None.

    Where it has no index, the variable's place among those that it was built to update.
    """
    for name in ("_trainable_variables_indices", "_index_dict"):
        if hasattr(optimizer, name):
            found: int | None = getattr(optimizer, name).get(key_of(optimizer, variable))
            return found
    places = (i for i, each in enumerate(variables_of(optimizer)) if each is variable)
    return next(places, None)


def jit_compile_of(model: Any) -> object:
    """Returns what `compile` of tf_keras was given; "auto", which forbids nothing, if not known."""
    config = getattr(getattr(model, "_compile_config", None), "config", {})
    return config.get("jit_compile", "auto")


def is_debugged() -> bool:
    """Returns whether a debugger of TensorFlow's looks at every operation; False if not known.

    Both `enable_check_numerics` and `enable_dump_debug_info` do.
    """
    eager: Any = sys.modules.get("tensorflow.python.eager.context")
    return bool(getattr(eager and eager.context(), "op_callbacks", ()))


def strategy_of(thread: object) -> object | None:
    """Returns the strategy that a thread makes a replica's step for, or None, also if not known."""
    found: object | None = getattr(thread, "distribution", None)
    return found


def whole_of(replica: Any) -> Any:
    """Returns the variable that `replica` is of; itself if it is none, or if not known."""
    container = getattr(replica.handle, "_distributed_container", None)
    return replica if container is None else container()


def unique_id_of(variable: Any) -> object:
    """Returns what a variable of TensorFlow's has in common with what wraps it, or its own id."""
    return getattr(variable, "_unique_id", id(variable))
