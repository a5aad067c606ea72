"""Pruning patterns: blocks of weights, and N:M groups of inputs."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.utils import checks

# Groups are processed in parts of this many values, to allocate no array of the tensor's size.
_PART = 2**21
# Up to this size, comparing all pairs of a group is faster than numpy.partition per group.
_BY_PAIRS = 8


@dataclasses.dataclass(frozen=True)
class Block:
    """Blocks of a kernel's matrix, each kept or pruned completely, by its pooled magnitude.

    A kernel is a matrix of inputs by outputs; a convolution has such a matrix, of input by output
    channels, at each position. Rows and columns at the edge that fill no block stay dense; the
    report shows their number of values.

    Args:
        height: Number of consecutive inputs in a block. At least 1.
        width: Number of consecutive outputs in a block. At least 1.
        pooling: Pooling of a block's magnitudes, by which blocks are ranked: `"avg"` or `"max"`.
            Defaults to `"avg"`.

    Raises:
        TypeError: `height` or `width` is not an integer.
        ValueError: `height` or `width` is below 1, or `pooling` is unknown.
    """

    height: int
    width: int
    pooling: str = "avg"

    def __post_init__(self) -> None:
        checks.choice("pooling", self.pooling, ("avg", "max"))
        checks.normalise(
            self,
            height=checks.whole_number("height", self.height, least=1, unit="inputs"),
            width=checks.whole_number("width", self.width, least=1, unit="outputs"),
        )

    def num_covered(self, shape: tuple[int, ...], layout: Layout) -> int:
        """Returns the number of values of a kernel in full blocks."""
        batch, rows, columns = self.blocks(shape, layout)
        return batch * rows * columns * self.height * self.width

    def scores(self, kernel: np.ndarray, layout: Layout, signed: bool = False) -> np.ndarray:
        """Returns the pooled magnitude of each block, of shape (matrices, rows, columns).

        With `signed`, values are pooled as they are, instead of their magnitudes.

        The order of summation is part of the definition, so that every backend prunes the same
        blocks: the rows of a block are added one after another, then the columns of the sum. Sums
        are in float32; of float64 kernels in float64. Subnormal terms count as zero, since not
        every device adds them, and infinite sums as the largest number.
        """
        matrices = layout.matrices(kernel)
        batch, rows, columns = self.blocks(kernel.shape, layout)
        pooled = np.empty((batch, rows, columns), np.float32 if kernel.itemsize < 8 else np.float64)
        limits = np.finfo(pooled.dtype)
        pool = np.add if self.pooling == "avg" else np.maximum
        step = max(_PART // max(matrices.shape[2] * self.height, 1), 1)
        for matrix, scores in zip(matrices, pooled, strict=True):
            for start in range(0, rows, step):
                inside = slice(start * self.height, min(start + step, rows) * self.height)
                part = matrix[inside, : columns * self.width].astype(pooled.dtype)
                if not signed:
                    np.abs(part, out=part)
                if self.pooling == "avg":
                    part[(np.abs(part) if signed else part) < limits.smallest_normal] = 0
                with np.errstate(over="ignore"):
                    of_rows = _pooled(pool, part.reshape(-1, self.height, columns * self.width), 1)
                    of_blocks = _pooled(pool, of_rows.reshape(-1, columns, self.width), 2)
                scores[start : start + step] = of_blocks
        return np.clip(pooled, limits.min, limits.max, out=pooled)

    def kept(self, mask: np.ndarray, layout: Layout) -> np.ndarray:
        """Returns the mask of blocks, of shape (matrices, rows, columns), from a kernel mask."""
        _, rows, columns = self.blocks(mask.shape, layout)
        covered = layout.matrices(mask)[:, : rows * self.height, : columns * self.width]
        return covered[:, :: self.height, :: self.width]

    def magnitudes(self, kernel: np.ndarray, layout: Layout) -> np.ndarray:
        """Returns the scores in the unit of the weights: averages if `pooling` is `"avg"`."""
        scores = self.scores(kernel, layout)
        return scores / (self.height * self.width) if self.pooling == "avg" else scores

    def expand(self, kept: np.ndarray, shape: tuple[int, ...], layout: Layout) -> np.ndarray:
        """Returns the mask of a kernel from that of its blocks."""
        mask = np.ones(layout.sizes(shape), bool)
        _, rows, columns = self.blocks(shape, layout)
        covered = mask[:, : rows * self.height, : columns * self.width]
        for row in range(self.height):
            for column in range(self.width):
                covered[:, row :: self.height, column :: self.width] = kept
        return layout.kernel(mask, shape)

    def blocks(self, shape: tuple[int, ...], layout: Layout) -> tuple[int, int, int]:
        """Returns the numbers of matrices of a kernel, and of block rows and columns in each."""
        batch, inputs, outputs = layout.sizes(shape)
        return batch, inputs // self.height, outputs // self.width

    def __str__(self) -> str:
        return f"blocks of {self.height} x {self.width} ({self.pooling})"


def _pooled(pool: np.ufunc, parts: np.ndarray, axis: int) -> np.ndarray:
    """Returns the parts along an axis, pooled one after another."""
    first, *others = np.moveaxis(parts, axis, 0)
    found = first.copy()
    for each in others:
        pool(found, each, out=found)
    return found


@dataclasses.dataclass(frozen=True)
class NM:
    """N:M sparsity: keeps the `n` largest of every `m` consecutive inputs. 2:4 is `NM(2, 4)`.

    It fixes the sparsity at 1 - n/m. The inputs of a convolution are its input channels, at each
    position separately. Inputs at the edge that fill no group stay dense; the report shows their
    number of values. TF-MOT's `sparsity_m_by_n` counts the zeros instead.

    Args:
        n: Number of kept inputs in a group. At least 1.
        m: Number of inputs in a group. More than `n`.

    Raises:
        TypeError: `n` or `m` is not an integer.
        ValueError: `n` is below 1, or `m` is not above `n`.

    Reference:
        Mishra et al., Accelerating Sparse Deep Neural Networks, 2021, arXiv:2104.08378.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        n = checks.whole_number("n", self.n, least=1, unit="weights")
        m = checks.whole_number("m", self.m, least=n + 1, unit="weights")
        checks.normalise(self, n=n, m=m)

    @property
    def sparsity(self) -> float:
        """Fraction of each group that is pruned."""
        return 1 - self.n / self.m

    def num_covered(self, shape: tuple[int, ...], layout: Layout) -> int:
        """Returns the number of values of a kernel in full groups."""
        batch, inputs, outputs = layout.sizes(shape)
        return batch * (inputs // self.m * self.m) * outputs

    def mask(self, kernel: np.ndarray, layout: Layout) -> np.ndarray:
        """Returns the mask of a kernel; of equal magnitudes, the first input is pruned first."""
        matrices = layout.matrices(kernel)
        mask = np.ones(matrices.shape, bool)
        step = max(_PART // max(matrices.shape[2], 1) // self.m, 1) * self.m
        covered = matrices.shape[1] // self.m * self.m
        for matrix, kept in zip(matrices, mask, strict=True):
            for start in range(0, covered, step):
                rows = slice(start, min(start + step, covered))
                groups = np.abs(matrix[rows]).reshape(-1, self.m, matrix.shape[1])
                kept[rows] = self._kept(groups).reshape(-1, matrix.shape[1])
        return layout.kernel(mask, kernel.shape)

    def _kept(self, magnitudes: np.ndarray) -> np.ndarray:
        """Returns the mask of an array of shape (groups, inputs of a group, outputs)."""
        if self.m <= _BY_PAIRS:
            above = np.zeros(magnitudes.shape, np.uint8)
            for i, j in itertools.combinations(range(self.m), 2):
                is_lower = magnitudes[:, i] <= magnitudes[:, j]
                above[:, i] += is_lower
                above[:, j] += ~is_lower
            return above < self.n
        last_pruned = self.m - self.n - 1
        threshold = np.partition(magnitudes, last_pruned, axis=1)[:, last_pruned, None]
        kept = magnitudes > threshold
        missing = self.n - np.count_nonzero(kept, axis=1, keepdims=True)
        if missing.any():
            ties = magnitudes == threshold
            from_the_end = np.cumsum(ties[:, ::-1], axis=1)[:, ::-1]
            kept |= ties & (from_the_end <= missing)
        return kept

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


Pattern = Block | NM | None


def num_covered(shape: tuple[int, ...], pattern: Pattern, layout: Layout) -> int:
    """Returns the number of values that a pattern may prune: all but those at an edge."""
    return math.prod(shape) if pattern is None else pattern.num_covered(shape, layout)


def to_config(pattern: Pattern) -> dict[str, Any] | None:
    """Returns a pattern as plain values."""
    if pattern is None:
        return None
    return {"class_name": type(pattern).__name__, **dataclasses.asdict(pattern)}


def from_config(config: dict[str, Any] | None) -> Pattern:
    """Returns the pattern that `to_config` described."""
    if config is None:
        return None
    arguments = {name: value for name, value in config.items() if name != "class_name"}
    return {"Block": Block, "NM": NM}[config["class_name"]](**arguments)
