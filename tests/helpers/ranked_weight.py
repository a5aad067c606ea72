"""A weight for the algorithm alone, on a device or on one that NumPy stands for."""

import math

import numpy as np

from tests.helpers.numpy_arrays import NumPyArrays

KINDS = ["normal", "ties", "subnormal", "zeros", "equal", "large"]


class RankedWeight:
    """A weight with values, and perhaps a mask.

    Args:
        values: NumPy array.
        layout: Its layout.
        mask: The active mask.
        arrays: Operations of a backend; NumPy's by default.
        put: Returns a NumPy array as a tensor of the backend.
    """

    def __init__(
        self, values, layout, mask=None, *, pattern=None, scope="layer", sparsity=0.5,
        arrays=None, put=None, path="a/kernel",
    ):  # fmt: skip
        self.path = self.short_path = path
        self.shape, self.layout, self.mask = values.shape, layout, mask
        self.pattern, self.scope, self.sparsity = pattern, scope, sparsity
        self.arrays = arrays or NumPyArrays()
        self._values, put = values, put or np.array
        self._tensor, self._mask = put(values), None if mask is None else put(mask)

    @property
    def is_masked(self):
        return self.mask is not None

    def numpy(self):
        return self._values.copy()

    def tensor(self):
        return self._tensor

    def mask_tensor(self):
        return self._mask


def values_of(kind, shape, dtype, seed):
    """Returns values that are hard to rank."""
    random = np.random.default_rng(seed)
    size = math.prod(shape)
    normal = random.normal(size=size)
    smallest = np.ones((), f"u{dtype.itemsize}").view(dtype).astype(float)
    top = float(np.array(32000 if dtype.itemsize == 2 else 1e38).astype(dtype))
    made = {
        "normal": lambda: normal,
        "ties": lambda: random.choice([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0], size),
        "subnormal": lambda: smallest * random.integers(-3, 4, size),
        "zeros": lambda: normal * (random.random(size) < 0.3),
        "equal": lambda: np.where(normal > 0, 0.25, -0.25),
        "large": lambda: np.where(random.random(size) < 0.5, top, normal),
    }
    return made[kind]().reshape(shape).astype(dtype)


def masked(values, mask, seed):
    """Returns what training may make of masked values: some that are kept underflow."""
    is_gone = np.random.default_rng(seed).random(values.shape) < 0.3
    return np.where(mask & ~is_gone, values, values.dtype.type(0))
