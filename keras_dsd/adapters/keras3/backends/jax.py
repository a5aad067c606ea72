"""Masks on JAX: arguments of the step, which has no state of its own."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from keras_dsd.utils.patches import Patch

# What may train a model besides optimizers of Keras's.
OPTIMIZERS = ()


def put_mask(mask: np.ndarray, variable: Any, model: Any, earlier: Any) -> Any:
    """Returns `mask` on the variable's devices, laid out as the variable is.

    A model that nothing has bound to devices stays so: one bound argument binds all that a step
    returns, and JAX compiles it anew for every mixture of the two that it is then called with.
    """
    del model, earlier
    value = variable.value
    if not getattr(value, "_committed", True):  # JAX 0.4 has no public name for it
        return jnp.asarray(mask)
    return jax.device_put(mask, value.sharding)


def drop_mask(mask: Any) -> None:
    """Returns None: there is nothing to use again. JAX frees what nothing refers to."""
    del mask


def mask_to_numpy(mask: Any) -> np.ndarray:
    """Returns the mask as a boolean array."""
    return np.asarray(mask)


def mask_to_tensor(mask: Any) -> Any:
    """Returns the mask as a boolean tensor."""
    return mask


def is_tracing() -> bool:
    """Returns False: a step that is traced has its values outside of the variables."""
    return False


def apply_masks(pairs: Sequence[tuple[Any, Any]]) -> None:
    """Sets each variable to zero where its mask is False."""
    for variable, mask in pairs:
        variable.assign(_masked(variable.value, mask))


def update_patches(optimizer: Any, held: Any) -> list[Patch]:
    """Returns nothing: XLA makes the mask part of the update, which runs in the same program."""
    del optimizer, held
    return []


def around(train_step: Callable[..., Any], held: Any, whole: bool) -> Callable[..., Any]:
    """Returns `train_step` for data that carry the masks.

    Args:
        train_step: `(state, data) -> (logs, state)`; the first list of `state` is the trainable
            variables.
        held: The weights that are held.
        whole: Whether to mask what the step returns, too.
    """

    def step(state: Any, masks_and_data: Any) -> Any:
        masks, data = masks_and_data
        with held.traced_with(masks):
            logs, state = train_step(state, data)
        if whole:
            state = (_mask_all(state[0], held.model, held.variables, masks), *state[1:])
        return logs, state

    return step


def feed(step: Callable[..., Any], masks: Callable[[], Sequence[Any]]) -> Callable[..., Any]:
    """Returns `step`, to whose data the masks are added."""

    def with_masks(iterator: Iterator[Any]) -> Iterator[Any]:
        now = masks()
        for data in iterator:
            yield now, data

    return lambda state, iterator: step(state, with_masks(iterator))


def num_workers(model: Any) -> int:
    """Returns 1: `fit` takes several processes for one."""
    del model
    return 1


def forward(model: Any, inputs: Any) -> None:
    """Runs a model as in training."""
    model(inputs, training=True)


def _masked(value: Any, mask: Any) -> Any:
    return jnp.where(mask, value, jnp.zeros((), value.dtype))


def _mask_all(values: Any, model: Any, variables: Sequence[Any], masks: Sequence[Any]) -> list[Any]:
    mask_of = {id(v): mask for v, mask in zip(variables, masks, strict=True)}
    return [
        _masked(value, mask_of[id(variable)]) if id(variable) in mask_of else value
        for variable, value in zip(model.trainable_variables, values, strict=True)
    ]
