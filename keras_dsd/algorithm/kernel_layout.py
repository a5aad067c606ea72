"""Layouts of kernels: their input and output axes, and a kernel as matrices of a linear map."""

import math
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Axes of a kernel.

    A kernel has a matrix for each index along `batch`, such as the positions of a convolution. The
    linear map sums over `inputs`; `outputs` are the other axes.
    """

    batch: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Returns the numbers of matrices, of inputs and of outputs of a kernel of `shape`."""
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


def default_layout(rank: int) -> Layout:
    """Returns the layout of Dense and of convolutions: inputs and outputs are the last two axes."""
    axes = tuple(range(rank))
    return Layout(axes[:-2], axes[-2:-1], axes[-1:])


def transposed_layout(rank: int) -> Layout:
    """Returns the layout of transposed convolutions: outputs and inputs are the last two axes."""
    axes = tuple(range(rank))
    return Layout(axes[:-2], axes[-1:], axes[-2:-1])


def einsum_layout(equation: object, rank: int) -> Layout:
    """Returns the layout of EinsumDense, which sums over the axes that the output lacks.

    Args:
        equation: Axes of inputs, kernel and outputs, such as `"ab,bc->ac"`. An equation that does
            not describe a kernel of `rank` axes gives the default layout.
        rank: Number of axes of the kernel.
    """
    operands, _, outputs = str(equation).replace("...", "").replace(" ", "").partition("->")
    inputs, _, kernel = operands.partition(",")
    if len(kernel) != rank:
        return default_layout(rank)
    axes = tuple(range(rank))
    summed = tuple(axis for axis in axes if kernel[axis] not in outputs)
    batch = tuple(a for a in axes if kernel[a] in outputs and kernel[a] in inputs)
    return Layout(batch, summed, tuple(a for a in axes if a not in summed + batch))
