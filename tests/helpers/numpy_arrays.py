"""A device in NumPy: what adapters do on devices can be tested without a framework."""

import numpy as np

from keras_dsd.adapters.base.device_arrays import ArrayOperations

INTEGERS = {2: np.int16, 4: np.int32, 8: np.int64}


class NumPyArrays(ArrayOperations):
    """NumPy arrays, on the host or as if they were elsewhere."""

    def __init__(self, on_host=True):
        self.on_host = on_host

    def is_on_host(self, values):
        return self.on_host

    def dtype_of(self, values):
        return values.dtype.name

    def to_device(self, mask, values):
        return mask

    def run(self, function, *arguments, like=None, **static):
        with np.errstate(over="ignore"):
            return function(*arguments, **static)

    def fetch(self, function, *arguments, **static):
        return np.asarray(self.run(function, *arguments, **static))

    def copy(self, values):
        return values.copy()

    def magnitudes(self, values):
        if values.dtype.kind == "i":
            return values
        bits = np.ascontiguousarray(values).view(INTEGERS[values.dtype.itemsize])
        bits = bits & np.iinfo(bits.dtype).max
        return bits.astype(np.int32) if bits.itemsize == 2 else bits

    def negatives(self, values):
        return np.signbit(values)

    def lowest(self, keys):
        return np.min(keys, initial=np.iinfo(keys.dtype).max)

    def floats(self, values, double):
        return values.astype(np.float64 if double else np.float32)

    def where(self, condition, one, other):
        return np.where(condition, np.asarray(one).astype(other.dtype), other)

    def totals(self, conditions):
        return np.array([np.count_nonzero(each) for each in conditions])

    def totals_below(self, keys, limits, condition):
        return self.totals([condition & (keys < limit) for limit in limits])

    def totals_along(self, condition, axis):
        return condition.sum(tuple(a for a in range(condition.ndim) if a != axis))

    def positions(self, like, axis):
        shape = [-1 if a == axis else 1 for a in range(like.ndim)]
        return np.arange(like.shape[axis]).reshape(shape)

    def reshape(self, array, shape):
        return array.reshape(shape)

    def transpose(self, array, axes):
        return array.transpose(axes)

    def concatenate(self, arrays, axis):
        return np.concatenate(arrays, axis)

    def repeat(self, array, times, axis):
        return np.repeat(array, times, axis)
