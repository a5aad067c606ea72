"""Operations on JAX arrays: on one device, or sharded, also over processes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from keras_dsd.adapters.base.device_arrays import ArrayOperations

_INTEGERS = {2: jnp.int16, 4: jnp.int32, 8: jnp.int64}


class JaxArrays(ArrayOperations):
    """JAX runs each function as one program, compiled once per list of shapes."""

    def is_on_host(self, values: jax.Array) -> bool:
        """Returns whether all values are in host memory of this process."""
        return has_all(values) and all(each.platform == "cpu" for each in values.devices())

    def dtype_of(self, values: jax.Array) -> str:
        """Returns the name of the dtype."""
        return values.dtype.name

    def to_device(self, mask: np.ndarray, values: jax.Array) -> jax.Array:
        """Returns `mask` on the devices of `values`, with their sharding.

        If `values` are not committed to devices, neither is the mask: one committed argument
        commits all results of a step, and JAX compiles it again for every mixture of the two.
        """
        sharding = _sharding_of(values)
        if sharding is None:
            return jnp.asarray(mask)
        if not values.is_fully_addressable:  # each process has made it, and puts its parts
            return jax.make_array_from_callback(mask.shape, sharding, lambda index: mask[index])
        return jax.device_put(mask, sharding)

    def run(
        self,
        function: Callable[..., jax.Array],
        *arguments: Any,
        like: jax.Array | None = None,
        **static: Any,
    ) -> jax.Array:
        """Returns the result of a program, with the sharding of `like`."""
        sharding = None if like is None else _sharding_of(like)
        return _compiled(function, sharding, tuple(static.items()))(*arguments)

    def fetch(
        self, function: Callable[..., jax.Array], *arguments: Any, **static: Any
    ) -> np.ndarray:
        """Returns the result on the host; every process gets all of it."""
        leaves = (each for each in jax.tree.leaves(arguments) if isinstance(each, jax.Array))
        shardings = [each for each in map(_sharding_of, leaves) if isinstance(each, NamedSharding)]
        everywhere = NamedSharding(shardings[0].mesh, PartitionSpec()) if shardings else None
        program = _compiled(function, everywhere, tuple(static.items()))
        return np.asarray(jax.device_get(program(*arguments)))

    def copy(self, values: jax.Array) -> jax.Array:
        """Returns a copy, as the next step overwrites the array itself."""
        return jnp.copy(values)

    def magnitudes(self, values: jax.Array) -> jax.Array:
        """Returns the keys of floats; returns keys unchanged."""
        if jnp.issubdtype(values.dtype, jnp.integer):
            return values
        raw = _INTEGERS[values.dtype.itemsize]
        bits = lax.bitcast_convert_type(values, raw) & jnp.array(jnp.iinfo(raw).max, raw)
        return bits.astype(jnp.int32) if raw is jnp.int16 else bits

    def negatives(self, values: jax.Array) -> jax.Array:
        """Returns where the sign of floats is that of negative numbers."""
        return jnp.signbit(values)

    def lowest(self, keys: jax.Array) -> jax.Array:
        """Returns the smallest of some integers."""
        return jnp.min(keys, initial=jnp.iinfo(keys.dtype).max)

    def floats(self, values: jax.Array, double: bool) -> jax.Array:
        """Returns values as float32 or, if they are float64, as float64."""
        return values.astype(jnp.float64 if double else jnp.float32)

    def where(self, condition: jax.Array, one: Any, other: jax.Array) -> jax.Array:
        """Returns `one` where `condition` is True, and `other` elsewhere."""
        return jnp.where(condition, jnp.asarray(one, other.dtype), other)

    def totals(self, conditions: Sequence[jax.Array]) -> jax.Array:
        """Returns the number of True entries of each condition, in one pass for speed on a CPU."""
        numbers = tuple(each.astype(jnp.uint32) for each in conditions)
        zeros = (np.uint32(0),) * len(numbers)
        found = lax.reduce(numbers, zeros, _add, tuple(range(numbers[0].ndim)))
        return jnp.stack(found)

    def totals_below(self, keys: jax.Array, limits: jax.Array, condition: jax.Array) -> jax.Array:
        """Returns how many keys are below each limit, in one pass that sends one vector."""
        is_below = condition & (keys < limits.reshape(-1, *[1] * keys.ndim))
        return jnp.sum(is_below, tuple(range(1, is_below.ndim)), dtype=jnp.uint32)

    def totals_along(self, condition: jax.Array, axis: int) -> jax.Array:
        """Returns the number of True entries of a condition at each index of an axis."""
        others = tuple(each for each in range(condition.ndim) if each != axis)
        return jnp.sum(condition, others, dtype=jnp.uint32)

    def positions(self, like: jax.Array, axis: int) -> jax.Array:
        """Returns the indices along an axis."""
        shape = [size if each == axis else 1 for each, size in enumerate(like.shape)]
        return lax.broadcasted_iota(jnp.int32, shape, axis)

    def reshape(self, array: jax.Array, shape: Sequence[int]) -> jax.Array:
        """Returns a reshaped array."""
        return array.reshape(shape)

    def transpose(self, array: jax.Array, axes: Sequence[int]) -> jax.Array:
        """Returns a transposed array."""
        return array.transpose(axes)

    def concatenate(self, arrays: Sequence[jax.Array], axis: int) -> jax.Array:
        """Returns arrays concatenated along an axis."""
        return jnp.concatenate(arrays, axis)

    def repeat(self, array: jax.Array, times: int, axis: int) -> jax.Array:
        """Returns an array whose entries are repeated along an axis."""
        return jnp.repeat(array, times, axis)


ARRAYS = JaxArrays()


def has_all(values: jax.Array) -> bool:
    """Returns whether this process has all values on its devices."""
    if values.is_fully_addressable or values.is_fully_replicated:
        return True
    shape = values.shape
    here = values.sharding.addressable_devices_indices_map(shape).values()
    return {*map(str, here)} == {*map(str, values.sharding.devices_indices_map(shape).values())}


def _sharding_of(values: jax.Array) -> Sharding | None:
    """Returns the sharding of an array that is committed to devices, or None."""
    # JAX 0.4 has no public name for it.
    return values.sharding if getattr(values, "_committed", True) else None


@functools.cache
def _compiled(
    function: Callable[..., jax.Array],
    sharding: Sharding | None,
    static: tuple[tuple[str, object], ...],
) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(function, **dict(static)), out_shardings=sharding)


def _add(one: Sequence[jax.Array], other: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
