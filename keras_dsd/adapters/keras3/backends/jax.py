"""Masks on JAX: arguments of the step, which has no state of its own."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import jax
import keras
import numpy as np
from jax import numpy as jnp

from keras_dsd.adapters.keras3.backends import Backend, TrainStep, UseMasks
from keras_dsd.protocols import Step

# Trainable variables, then further lists of values.
State: TypeAlias = tuple[Sequence[jax.Array], ...]


class JaxBackend(Backend[jax.Array]):
    """XLA makes the mask part of the update, which runs in the same program."""

    def put_mask(
        self,
        mask: np.ndarray,
        variable: keras.Variable,
        model: keras.Layer,
        earlier: jax.Array | None,
    ) -> jax.Array:
        """Returns `mask` on the variable's devices, with the variable's sharding.

        A model that nothing has bound to devices stays so: one bound argument binds all that a
        step returns, and JAX compiles it again for every mixture of the two.
        """
        del model, earlier
        value = variable.value
        if not getattr(value, "_committed", True):  # JAX 0.4 has no public name for it
            return jnp.asarray(mask)
        return jax.device_put(mask, value.sharding)

    def mask_to_numpy(self, mask: jax.Array) -> np.ndarray:
        """Returns the mask as a boolean array."""
        return np.asarray(mask)

    def mask_to_tensor(self, mask: jax.Array) -> jax.Array:
        """Returns the mask as a boolean tensor."""
        return mask

    def apply_masks(self, pairs: Sequence[tuple[keras.Variable, jax.Array]]) -> None:
        """Sets each variable to zero where its mask is False."""
        for variable, mask in pairs:
            variable.assign(_masked(variable.value, mask))

    def masked_train_step(
        self,
        train_step: TrainStep,
        model: keras.Model,
        variables: Sequence[keras.Variable],
        use_masks: UseMasks[jax.Array],
        mask_all: Callable[[], None] | None,
    ) -> TrainStep:
        """Returns `train_step` for data that carry the masks.

        `train_step` is `(state, data) -> (logs, state)`. A step that masks everything at its end
        masks the trainable variables that it returns.
        """

        def step(
            state: State, masks_and_data: tuple[Sequence[jax.Array], object]
        ) -> tuple[object, State]:
            masks, data = masks_and_data
            with use_masks(masks):
                logs, state = train_step(state, data)
            if mask_all is not None:
                state = (_mask_all(state[0], model, variables, masks), *state[1:])
            return logs, state

        return step

    def feed(self, step: Step, masks: Callable[[], Sequence[jax.Array]]) -> Step:
        """Returns `step`, to whose data the masks are added."""

        def with_masks(iterator: Iterator[object]) -> Iterator[object]:
            now = masks()
            for data in iterator:
                yield now, data

        return lambda state, iterator: step(state, with_masks(iterator))


BACKEND = JaxBackend()


def _masked(value: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask, value, jnp.zeros((), value.dtype))


def _mask_all(
    values: Sequence[jax.Array],
    model: keras.Model,
    variables: Sequence[keras.Variable],
    masks: Sequence[jax.Array],
) -> list[jax.Array]:
    mask_of = {id(v): mask for v, mask in zip(variables, masks, strict=True)}
    return [
        _masked(value, mask_of[id(variable)]) if id(variable) in mask_of else value
        for variable, value in zip(model.trainable_variables, values, strict=True)
    ]
