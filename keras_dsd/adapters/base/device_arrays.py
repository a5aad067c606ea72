"""Masks and measurements on devices, built on a few operations of a backend.

Magnitudes are compared as integers (see `algorithm.device_masks`). All operations are elementwise,
or sums over axes: so arrays keep their sharding, and only counts are copied to the host.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_dsd.algorithm.device_masks import INFINITY, NUM_TRIED, Chosen, Ranked
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM, Block

# A tensor with the operators of its backend.
Array: TypeAlias = Any
Pair: TypeAlias = tuple[Array, Array | None]


class ArrayOperations(abc.ABC):
    """Operations on the arrays of one backend; implements `algorithm.device_masks.DeviceArrays`."""

    @abc.abstractmethod
    def is_on_host(self, values: Array) -> bool:
        """Returns whether this process can read all values in its machine's memory."""

    @abc.abstractmethod
    def dtype_of(self, values: Array) -> str:
        """Returns the name of the dtype."""

    @abc.abstractmethod
    def to_device(self, mask: np.ndarray, values: Array) -> Array:
        """Returns `mask` as a boolean tensor on the device of `values`."""

    @abc.abstractmethod
    def run(
        self,
        function: Callable[..., Array],
        *arguments: Any,
        like: Array | None = None,
        **static: Any,
    ) -> Array:
        """Returns `function(*arguments, **static)`, compiled if that is faster.

        Args:
            function: A method of this object.
            *arguments: Tensors and NumPy arrays, in lists and tuples.
            like: The result gets the devices and sharding of this tensor; with None, any.
            **static: Static arguments of the compiled function.
        """

    @abc.abstractmethod
    def fetch(self, function: Callable[..., Array], *arguments: Any, **static: Any) -> np.ndarray:
        """Returns the result of `run` on the host."""

    @abc.abstractmethod
    def copy(self, values: Array) -> Array:
        """Returns a copy, which updates do not change."""

    def numbers(self, array: np.ndarray) -> Array:
        """Returns integers as arguments of `run`."""
        return array

    @abc.abstractmethod
    def magnitudes(self, values: Array) -> Array:
        """Returns the keys of floats (int32; int64 of float64); returns keys unchanged."""

    @abc.abstractmethod
    def negatives(self, values: Array) -> Array:
        """Returns where the sign of floats is that of negative numbers."""

    @abc.abstractmethod
    def lowest(self, keys: Array) -> Array:
        """Returns the smallest of some integers; of none the largest that their dtype has."""

    @abc.abstractmethod
    def floats(self, values: Array, double: bool) -> Array:
        """Returns values as float32 or, if they are float64, as float64."""

    @abc.abstractmethod
    def where(self, condition: Array, one: Array | float, other: Array) -> Array:
        """Returns `one` where `condition` is True, else `other`, in the dtype of `other`."""

    @abc.abstractmethod
    def totals(self, conditions: Sequence[Array]) -> Array:
        """Returns the number of True entries of each condition, as a vector of integers."""

    @abc.abstractmethod
    def totals_below(self, keys: Array, limits: Array, condition: Array) -> Array:
        """Returns how many keys are below each limit of a vector, where `condition` is True."""

    @abc.abstractmethod
    def totals_along(self, condition: Array, axis: int) -> Array:
        """Returns the number of True entries of a condition at each index of an axis."""

    @abc.abstractmethod
    def positions(self, like: Array, axis: int) -> Array:
        """Returns the indices along an axis of `like`, with size 1 along the other axes."""

    @abc.abstractmethod
    def reshape(self, array: Array, shape: Sequence[int]) -> Array:
        """Returns a reshaped array."""

    @abc.abstractmethod
    def transpose(self, array: Array, axes: Sequence[int]) -> Array:
        """Returns a transposed array."""

    @abc.abstractmethod
    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """Returns arrays concatenated along an axis."""

    @abc.abstractmethod
    def repeat(self, array: Array, times: int, axis: int) -> Array:
        """Returns an array whose entries are repeated along an axis."""

    def measure(self, pairs: Sequence[tuple[Array, Array | None]]) -> list[list[int]]:
        """Counts zeros, pruned, violating and non-finite values, in one transfer."""
        found = self.fetch(self._measured, list(pairs))
        return found.reshape(-1, 4).tolist()

    def all_kept(self, values: Array) -> Array:
        """Returns a mask that keeps all of `values`."""
        return self.run(self._all_kept, values, like=values)

    def num_different(self, one: Array, other: Array) -> int:
        """Returns the number of entries in which two masks differ."""
        return int(self.fetch(self._different, one, other)[0])

    def fill(self, values: Array, mask: Array, number: float) -> Array:
        """Returns `values`, with a number where `mask` is False."""
        return self.run(self._filled, values, mask, self.numbers(np.array(number)), like=values)

    def smallest_key(self, array: Ranked) -> int:
        """Returns the smallest key that the mask keeps, or that of infinity."""
        infinity = INFINITY[array.dtype]
        return int(self.fetch(self._smallest, array.values, array.mask, infinity=infinity))

    def largest_key(self, chosen: Chosen) -> int:
        """Returns the largest key of chosen values that are finite, or 0."""
        negated = self.fetch(self._largest_negated, *chosen[:2], is_kept=chosen.is_kept)
        return max(-int(negated), 0)

    def tally(
        self, chosen: Chosen, limits: Sequence[int], limits_of_negatives: Sequence[int]
    ) -> list[int]:
        """Counts chosen values other than zero whose keys are below limits.

        Returns:
            How many positive ones are below each of `limits`, how many negative ones below each of
            `limits_of_negatives`; how many are zero, and how many NaN or infinite.
        """
        integer = np.int64 if self.dtype_of(chosen.values) == "float64" else np.int32
        given = [self.numbers(np.array(each, integer)) for each in (limits, limits_of_negatives)]
        return self.fetch(self._tallied, *chosen[:2], *given, is_kept=chosen.is_kept).tolist()

    def num_below(
        self, arrays: Sequence[Ranked], limits: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """Returns, for each array, the number of keys below each of its limits."""
        pairs = [(each.values, each.mask) for each in arrays]
        tried = [
            self.numbers(np.array(each, _int(array)))
            for array, each in zip(arrays, limits, strict=True)
        ]
        return self.fetch(self._below, pairs, tried).reshape(-1, NUM_TRIED).tolist()

    def ties(self, array: Ranked, limit: int, index: tuple[int, ...], axis: int) -> np.ndarray:
        """Returns the number of keys equal to `limit` at each index of `axis`."""
        return self.fetch(self._ties, *self._cut(array, limit, index), axis=axis)

    def kept_from(self, array: Ranked, limit: int, index: tuple[int, ...]) -> Array:
        """Returns the mask of keys above `limit`, and of those equal to it from `index` on."""
        return self.run(self._kept_from, *self._cut(array, limit, index), like=array.values)

    def scores(self, array: Ranked, block: Block, layout: Layout) -> Ranked:
        """Returns the keys of the pooled magnitudes of blocks."""
        given = {"block": block, "layout": layout, "shape": array.shape}
        is_double = array.dtype == "float64"
        values = self.run(self._scores, array.values, double=is_double, **given)
        mask = None if array.mask is None else self.run(self._kept_blocks, array.mask, **given)
        dtype = array.dtype
        if block.pooling == "avg":
            dtype = "float64" if is_double else "float32"
        return Ranked(values, mask, block.blocks(array.shape, layout), dtype)

    def expand(self, kept: Array, block: Block, layout: Layout, values: Array) -> Array:
        """Returns the mask of `values` from the mask of their blocks."""
        shape = tuple(values.shape)
        given = {"block": block, "layout": layout, "shape": shape}
        return self.run(self._expanded, kept, like=values, **given)

    def groups(self, array: Ranked, pattern: NM, layout: Layout) -> Array:
        """Returns the mask of an N:M pattern."""
        given = {"pattern": pattern, "layout": layout, "shape": array.shape}
        return self.run(self._groups, (array.values, array.mask), like=array.values, **given)

    def _cut(self, array: Ranked, limit: int, index: tuple[int, ...]) -> tuple[Pair, Array, Array]:
        key, place = np.array(limit, _int(array)), np.array(index, np.int32)
        return (array.values, array.mask), self.numbers(key), self.numbers(place)

    def _keys(self, pair: Pair) -> Array:
        values, mask = pair
        keys = self.magnitudes(values)
        return keys if mask is None else self.where(mask & (keys == 0), 1, keys)

    def _measured(self, pairs: Sequence[Pair]) -> Array:
        rows = []
        for values, mask in pairs:
            keys = self.magnitudes(values)
            is_zero, is_bad = keys == 0, keys >= INFINITY[self.dtype_of(values)]
            pruned = is_zero & is_bad if mask is None else ~mask  # none, or zeros of the mask
            zeros = is_zero if mask is None else is_zero & pruned
            rows.append(self.totals([zeros, pruned, pruned & ~is_zero & ~is_bad, is_bad]))
        return self.concatenate(rows, 0)

    def _chosen(self, keys: Array, mask: Array | None, is_kept: bool) -> Array:
        if mask is None:
            return keys == keys
        return mask if is_kept else ~mask

    def _smallest(self, values: Array, mask: Array | None, infinity: int) -> Array:
        keys = self.magnitudes(values)
        is_out = ~self._chosen(keys, mask, True) | (keys > infinity)
        return self.lowest(self.where(is_out, infinity, keys))

    def _largest_negated(self, values: Array, mask: Array | None, is_kept: bool) -> Array:
        keys = self.magnitudes(values)
        is_out = keys >= INFINITY[self.dtype_of(values)]
        is_out = is_out | ~self._chosen(keys, mask, is_kept)
        return self.lowest(self.where(is_out, 0, -keys))

    def _tallied(
        self,
        values: Array,
        mask: Array | None,
        limits: Array,
        limits_of_negatives: Array,
        is_kept: bool,
    ) -> Array:
        keys, is_negative = self.magnitudes(values), self.negatives(values)
        chosen = self._chosen(keys, mask, is_kept)
        is_zero = keys == 0
        positive, negative = (chosen & ~is_zero & each for each in (~is_negative, is_negative))
        below = self.totals_below(keys, limits, positive)
        below_negative = self.totals_below(keys, limits_of_negatives, negative)
        is_bad = keys >= INFINITY[self.dtype_of(values)]
        rest = self.totals([chosen & is_zero, chosen & is_bad])
        return self.concatenate([below, below_negative, rest], 0)

    def _all_kept(self, values: Array) -> Array:
        keys = self.magnitudes(values)
        return keys == keys

    def _different(self, one: Array, other: Array) -> Array:
        return self.totals([one != other])

    def _filled(self, values: Array, mask: Array, number: Array) -> Array:
        return self.where(~mask, number, values)

    def _below(self, pairs: Sequence[Pair], tried: Sequence[Array]) -> Array:
        rows = []
        for pair, limits in zip(pairs, tried, strict=True):
            keys = self._keys(pair)
            rows.append(self.totals([keys < limits[place] for place in range(NUM_TRIED)]))
        return self.concatenate(rows, 0)

    def _ties(self, pair: Pair, limit: Array, index: Array, axis: int) -> Array:
        found = self._keys(pair) == limit
        for before in range(axis):
            found = found & (self.positions(found, before) == index[before])
        return self.totals_along(found, axis)

    def _kept_from(self, pair: Pair, limit: Array, index: Array) -> Array:
        keys = self._keys(pair)
        is_tie = keys == limit
        last = len(keys.shape) - 1
        from_here = self.positions(is_tie, last) >= index[last]
        for axis in reversed(range(last)):
            places = self.positions(is_tie, axis)
            from_here = (places > index[axis]) | ((places == index[axis]) & from_here)
        return (keys > limit) | (is_tie & from_here)

    def _matrices(self, array: Array, layout: Layout, shape: tuple[int, ...]) -> Array:
        return self.reshape(self.transpose(array, _axes(layout)), layout.sizes(shape))

    def _kernel(self, matrices: Array, layout: Layout, shape: tuple[int, ...]) -> Array:
        transposed = self.reshape(matrices, [shape[axis] for axis in _axes(layout)])
        return self.transpose(transposed, np.argsort(_axes(layout)).tolist())

    def _scores(
        self, values: Array, block: Block, layout: Layout, shape: tuple[int, ...], double: bool
    ) -> Array:
        _, rows, columns = block.blocks(shape, layout)
        height, width = block.height, block.width
        inside = self._matrices(values, layout, shape)[:, : rows * height, : columns * width]
        if block.pooling == "max":
            parts, pool = self.magnitudes(inside), self._larger
        else:
            parts, pool = self._without_subnormals(self.floats(inside, double)), _sum
        of_rows = parts[:, ::height]
        for row in range(1, height):
            of_rows = pool(of_rows, parts[:, row::height])
        of_blocks = of_rows[:, :, ::width]
        for column in range(1, width):
            of_blocks = pool(of_blocks, of_rows[:, :, column::width])
        keys = self.magnitudes(of_blocks)
        # Sums of finite magnitudes may be infinite; they rank as the largest.
        infinity = INFINITY["float64" if double else "float32"]
        return self.where(keys >= infinity, infinity - 1, keys) if pool is _sum else keys

    def _larger(self, one: Array, other: Array) -> Array:
        return self.where(one < other, other, one)

    def _without_subnormals(self, floats: Array) -> Array:
        """Returns the magnitudes of floats; zero for subnormal ones."""
        keys = self.magnitudes(floats)
        smallest_normal = 2**52 if "64" in self.dtype_of(floats) else 2**23
        return self.where(keys < smallest_normal, 0.0, abs(floats))

    def _kept_blocks(
        self, mask: Array, block: Block, layout: Layout, shape: tuple[int, ...]
    ) -> Array:
        _, rows, columns = block.blocks(shape, layout)
        inside = self._matrices(mask, layout, shape)
        covered = inside[:, : rows * block.height, : columns * block.width]
        return covered[:, :: block.height, :: block.width]

    def _expanded(self, kept: Array, block: Block, layout: Layout, shape: tuple[int, ...]) -> Array:
        of_rows = self.repeat(kept, block.height, 1)
        covered = self.repeat(of_rows, block.width, 2)
        return self._kernel(self._with_edges(covered, layout.sizes(shape)), layout, shape)

    def _with_edges(self, mask: Array, sizes: Sequence[int]) -> Array:
        """Returns a mask of matrices, padded with True at the ends of axes 1 and 2."""
        for axis in (1, 2):
            missing = sizes[axis] - mask.shape[axis]
            if missing:
                edge = mask[:, :1] if axis == 1 else mask[:, :, :1]
                mask = self.concatenate([mask, self.repeat(edge | ~edge, missing, axis)], axis)
        return mask

    def _groups(self, pair: Pair, pattern: NM, layout: Layout, shape: tuple[int, ...]) -> Array:
        batch, inputs, outputs = layout.sizes(shape)
        covered = inputs // pattern.m * pattern.m
        keys = self._matrices(self._keys(pair), layout, shape)[:, :covered]
        keys = self.reshape(keys, (batch, covered // pattern.m, pattern.m, outputs))
        places, num_above = self.positions(keys, 2), keys & 0
        for shift in range(1, pattern.m):
            other = self.concatenate([keys[:, :, shift:], keys[:, :, :shift]], 2)
            is_after = places < pattern.m - shift  # of equal values the last is kept
            is_above = (other > keys) | ((other == keys) & is_after)
            num_above = num_above + self.where(is_above, 1, keys & 0)
        kept = self.reshape(num_above < pattern.n, (batch, covered, outputs))
        return self._kernel(self._with_edges(kept, layout.sizes(shape)), layout, shape)


def _axes(layout: Layout) -> tuple[int, ...]:
    return layout.batch + layout.inputs + layout.outputs


def _sum(one: Array, other: Array) -> Array:
    return one + other


def _int(array: Ranked) -> type[np.signedinteger]:
    """Returns the dtype of an array's keys."""
    return np.int64 if array.dtype == "float64" else np.int32
