"""Which axes of a kernel are inputs and which outputs: a kernel as matrices of a linear map."""

import math
from typing import Any, NamedTuple

import numpy as np


class Layout(NamedTuple):
    """The axes of a kernel.

    Attributes:
        batch: Axes along which there is a matrix each, such as the places of a convolution.
        inputs: Axes that are summed over.
        outputs: The others.
    """

    batch: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Returns how many matrices a kernel of `shape` is, their inputs and their outputs."""
        batch, inputs, outputs = (math.prod(shape[axis] for axis in axes) for axes in self)
        return batch, inputs, outputs

    def matrices(self, kernel: np.ndarray) -> np.ndarray:
        """Returns a kernel as an array (matrices, inputs, outputs), a view where possible."""
        return kernel.transpose(self._order).reshape(self.sizes(kernel.shape))

    def kernel(self, matrices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns what `matrices` was made of, of the kernel's shape."""
        transposed = matrices.reshape([shape[axis] for axis in self._order])
        return transposed.transpose(np.argsort(self._order))

    @property
    def _order(self) -> tuple[int, ...]:
        return self.batch + self.inputs + self.outputs


def layout_of(layer: Any, rank: int) -> Layout:
    """Returns the layout of a kernel, by what Keras calls its layer.

    Args:
        layer: The layer that made it, of either Keras.
        rank: The kernel's number of axes, at least 2.
    """
    axes = tuple(range(rank))
    if (equation := getattr(layer, "equation", None)) and isinstance(equation, str):
        return _einsum(equation, axes)
    kinds = {base.__name__ for base in type(layer).__mro__}
    if any(f"Conv{n}DTranspose" in kinds for n in (1, 2, 3)):
        return Layout(axes[:-2], axes[-1:], axes[-2:-1])
    return Layout(axes[:-2], axes[-2:-1], axes[-1:])


def _einsum(equation: str, axes: tuple[int, ...]) -> Layout:
    """Returns the layout of EinsumDense: summed over is what the output does not have."""
    operands, _, result = equation.replace("...", "").replace(" ", "").partition("->")
    inputs, _, kernel = operands.partition(",")
    summed = tuple(axis for axis in axes if kernel[axis] not in result)
    batch = tuple(a for a in axes if kernel[a] in result and kernel[a] in inputs)
    return Layout(batch, summed, tuple(a for a in axes if a not in summed + batch))
