"""Operations on TensorFlow tensors, for both Kerases."""

import functools
from collections.abc import Callable, Sequence, Set
from typing import Any

import numpy as np
import tensorflow as tf

from keras_dsd.adapters.base.device_arrays import ArrayOperations
from keras_dsd.adapters.tf_graphs import may_use_xla

_INTEGERS = {2: tf.int16, 4: tf.int32, 8: tf.int64}


class TensorFlowArrays(ArrayOperations):
    """TensorFlow runs operations eagerly; on a GPU, XLA compiles them.

    TensorFlow's own kernels for int32 run on the host, even for tensors on a GPU.
    """

    def is_on_host(self, values: tf.Tensor) -> bool:
        """Returns whether NumPy reads the values: they are on a CPU."""
        return "GPU" not in values.device

    def dtype_of(self, values: tf.Tensor) -> str:
        """Returns the name of the dtype."""
        return values.dtype.name

    def to_device(self, mask: np.ndarray, values: tf.Tensor) -> tf.Tensor:
        """Returns `mask` as a tensor on the device of `values`."""
        with tf.device(values.device):
            return tf.identity(tf.convert_to_tensor(mask))

    def run(
        self,
        function: Callable[..., tf.Tensor],
        *arguments: Any,
        like: tf.Tensor | None = None,
        **static: Any,
    ) -> tf.Tensor:
        """Returns the result, on the device of the tensors."""
        del like  # a tensor is on one device, and a variable copies it to all of its devices
        tensors = tf.nest.flatten(arguments)
        devices = {each.device for each in tensors if isinstance(each, tf.Tensor)}
        if not self._compiles(devices):
            return function(*arguments, **static)
        with tf.device(devices.pop()):
            return _compiled(function, tuple(static.items()))(*arguments)

    def _compiles(self, devices: Set[str]) -> bool:
        """Returns whether XLA compiles operations on these devices."""
        return len(devices) == 1 and "GPU" in min(devices) and may_use_xla(None)

    def fetch(
        self, function: Callable[..., tf.Tensor], *arguments: Any, **static: Any
    ) -> np.ndarray:
        """Returns the result on the host."""
        return np.array(self.run(function, *arguments, **static).numpy())

    def copy(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the tensor, which updates of its variable do not change."""
        return values

    def magnitudes(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the keys of floats; returns keys unchanged."""
        if values.dtype.is_integer:
            return values
        raw = _INTEGERS[values.dtype.size]
        bits = tf.bitcast(values, raw)
        bits = tf.cast(bits, tf.int32) if raw == tf.int16 else bits
        return bits & tf.constant(raw.max, bits.dtype)

    def negatives(self, values: tf.Tensor) -> tf.Tensor:
        """Returns where the sign of floats is that of negative numbers."""
        return tf.bitcast(values, _INTEGERS[values.dtype.size]) < 0

    def lowest(self, keys: tf.Tensor) -> tf.Tensor:
        """Returns the smallest of some integers."""
        return tf.reduce_min(keys)

    def floats(self, values: tf.Tensor, double: bool) -> tf.Tensor:
        """Returns values as float32 or, if they are float64, as float64."""
        return tf.cast(values, tf.float64 if double else tf.float32)

    def where(self, condition: tf.Tensor, one: Any, other: tf.Tensor) -> tf.Tensor:
        """Returns `one` where `condition` is True, and `other` elsewhere."""
        return tf.where(condition, tf.cast(one, other.dtype), other)

    def totals(self, conditions: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the number of True entries of each condition."""
        return tf.stack([tf.math.count_nonzero(each) for each in conditions])

    def totals_below(self, keys: tf.Tensor, limits: tf.Tensor, condition: tf.Tensor) -> tf.Tensor:
        """Returns how many keys are below each limit."""
        is_below = condition & (keys < tf.reshape(limits, [-1] + [1] * len(keys.shape)))
        return tf.math.count_nonzero(is_below, list(range(1, len(is_below.shape))))

    def totals_along(self, condition: tf.Tensor, axis: int) -> tf.Tensor:
        """Returns the number of True entries of a condition at each index of an axis."""
        others = [each for each in range(len(condition.shape)) if each != axis]
        return tf.math.count_nonzero(condition, others)

    def positions(self, like: tf.Tensor, axis: int) -> tf.Tensor:
        """Returns the indices along an axis."""
        shape = [-1 if each == axis else 1 for each in range(len(like.shape))]
        return tf.reshape(tf.range(like.shape[axis]), shape)

    def reshape(self, array: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
        """Returns a reshaped array."""
        return tf.reshape(array, shape)

    def transpose(self, array: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
        """Returns a transposed array."""
        return tf.transpose(array, axes)

    def concatenate(self, arrays: Sequence[tf.Tensor], axis: int) -> tf.Tensor:
        """Returns arrays concatenated along an axis."""
        return tf.concat(arrays, axis)

    def repeat(self, array: tf.Tensor, times: int, axis: int) -> tf.Tensor:
        """Returns an array whose entries are repeated along an axis."""
        return tf.repeat(array, times, axis)


ARRAYS = TensorFlowArrays()


@functools.cache
def _compiled(
    function: Callable[..., tf.Tensor], static: tuple[tuple[str, object], ...]
) -> Callable[..., tf.Tensor]:
    return tf.function(functools.partial(function, **dict(static)), jit_compile=True)
