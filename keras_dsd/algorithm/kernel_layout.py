"""Layouts of kernels: their input and output axes, and a kernel as matrices of a linear map."""

import math
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """The axes of a kernel.

    There is a matrix for each position along `batch`, such as the positions of a convolution;
    `inputs` are summed over; `outputs` are the others.
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
        """Returns the kernel of `matrices`, the inverse of the method of that name."""
        transposed = matrices.reshape([shape[axis] for axis in self._order])
        return transposed.transpose(np.argsort(self._order))

    @property
    def _order(self) -> tuple[int, ...]:
        return self.batch + self.inputs + self.outputs


def layout_of(layer: object, rank: int) -> Layout:
    """Returns the layout of a kernel of `rank` axes, at least 2, by the name of its layer's class.

    The layer may be of either Keras. A variable of EinsumDense that its equation does not describe,
    such as one that LoRA adds, has the layout of a Dense kernel.
    """
    axes = tuple(range(rank))
    kinds = {base.__name__ for base in type(layer).__mro__}
    equation = getattr(layer, "equation", None)
    if "EinsumDense" in kinds and isinstance(equation, str):
        inputs, kernel, outputs = _operands(equation)
        if len(kernel) == rank:
            return _einsum(inputs, kernel, outputs, axes)
    if any(f"Conv{n}DTranspose" in kinds for n in (1, 2, 3)):
        return Layout(axes[:-2], axes[-1:], axes[-2:-1])
    return Layout(axes[:-2], axes[-2:-1], axes[-1:])


def _operands(equation: str) -> tuple[str, str, str]:
    """Returns the axes of inputs, kernel and outputs in an equation such as `"ab,bc->ac"`."""
    operands, _, outputs = equation.replace("...", "").replace(" ", "").partition("->")
    inputs, _, kernel = operands.partition(",")
    return inputs, kernel, outputs


def _einsum(inputs: str, kernel: str, outputs: str, axes: tuple[int, ...]) -> Layout:
    """Returns the layout of EinsumDense, which sums over the axes that the output lacks."""
    summed = tuple(axis for axis in axes if kernel[axis] not in outputs)
    batch = tuple(a for a in axes if kernel[a] in outputs and kernel[a] in inputs)
    return Layout(batch, summed, tuple(a for a in axes if a not in summed + batch))
