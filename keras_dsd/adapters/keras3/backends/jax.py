"""Masks on JAX: arguments of the step, which is stateless."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias, cast

import jax
import keras
import numpy as np
from jax import numpy as jnp

from keras_dsd.adapters.base.observation import Observation
from keras_dsd.adapters.keras3.backends import Backend, ObservedStep, TrainStep
from keras_dsd.adapters.keras3.backends.jax_arrays import ARRAYS
from keras_dsd.protocols import Step

# Trainable variables, then further lists of values.
State: TypeAlias = tuple[Sequence[jax.Array], ...]
# Part of the key of compiled functions: the learning rate factor of a custom training loop.
_FACTOR = jax.make_user_context(1.0) if hasattr(jax, "make_user_context") else None


class JaxBackend(Backend[jax.Array]):
    """Masks as arguments: XLA fuses them into the update."""

    arrays = ARRAYS
    _last_factor = 1.0  # of the last epoch of any custom training loop

    def check_readable(self, value: jax.Array, path: str) -> None:
        """Checks that no shard of an array is only on devices of other processes."""
        if not (value.is_fully_addressable or value.is_fully_replicated):
            raise ValueError(
                f"Expected a weight that this process can read. Received: {path}, sharded over "
                f"devices of {jax.process_count()} processes. Masks and sparsity need no copy; for "
                f"values, masks as arrays, the best weights of a phase and figures, load a "
                f"checkpoint in one process, or call "
                f"jax.experimental.multihost_utils.process_allgather in all processes."
            )

    def put_mask(self, mask: jax.Array, model: keras.Layer, earlier: jax.Array | None) -> jax.Array:
        """Returns `mask`, which has the variable's sharding."""
        del model, earlier
        return mask

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

    def train_step(self, plain: TrainStep, step: ObservedStep) -> TrainStep:
        """Returns a `train_step` whose data include the factor and the masks.

        `train_step` is `(state, data) -> (logs, state)`. A step that masks everything at its end
        masks the trainable variables that it returns.
        """
        observation, masked, ends_in_masks = step.observation, step.masked, step.ends_in_masks

        def train_step(
            state: State, arguments: tuple[jax.Array, Sequence[jax.Array], object]
        ) -> tuple[object, State]:
            factor, masks, data = arguments
            outside, observation.factor = observation.factor, factor
            use_masks = masked.use_masks(masks) if masked else contextlib.nullcontext()
            try:
                with step.observed(), use_masks:
                    logs, state = plain(state, data)
            finally:
                observation.factor = outside
            if masked and ends_in_masks:
                state = (_mask_all(state[0], step.model, masked.variables, masks), *state[1:])
            return logs, state

        return train_step

    def train_function(self, plain: Step, step: ObservedStep) -> Step:
        """Returns a `train_function` that adds the factor and the masks to the data."""

        def with_arguments(iterator: Iterator[object]) -> Iterator[object]:
            factor = np.float32(cast("float", step.observation.factor))
            masks = step.masked.masks() if step.masked else ()
            for data in iterator:
                yield factor, masks, data

        return lambda state, iterator: plain(state, with_arguments(iterator))

    @contextlib.contextmanager
    def loop_hooks(self, observation: Observation) -> Iterator[None]:
        """Makes JAX trace the user's functions again for another factor, a constant in them."""
        factor = cast("float", observation.factor)
        if _FACTOR is not None:
            with _FACTOR(factor):
                yield
            return
        if self._last_factor != factor:
            jax.clear_caches()  # a version without user contexts
        self._last_factor = factor
        yield


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
