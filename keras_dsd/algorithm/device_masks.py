"""Masks computed where weights are: on accelerators, or sharded over several processes.

The host finds the threshold between pruned and kept magnitudes by bisection, and devices count. So
nothing is sorted, no weight is copied or gathered, and a mask is sharded as its weight is. Masks
equal those of `masks`, bit for bit. NumPy computes the masks of weights in host memory, as it is
faster there.

The key of a value is its magnitude as an integer of the same order: its bits without the sign. No
floats are compared, since some devices flush subnormal numbers to zero.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from keras_dsd.algorithm import criteria, masks
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM, Block
from keras_dsd.algorithm.weight import ReadableWeight, Tensor

# The key of infinity by dtype name: keys of finite numbers are below it, keys of NaN above.
INFINITY = {
    "float16": 0x7C00,
    "bfloat16": 0x7F80,
    "float32": 0x7F800000,
    "float64": 0x7FF0000000000000,
}
# Number of limits that are tried in one pass over an array.
NUM_TRIED = 3


class Ranked(NamedTuple):
    """An array on a device whose magnitudes are ranked.

    Attributes:
        values: Floats, or keys.
        mask: Boolean mask or None. Zeros that it keeps rank as the smallest number above zero.
        shape: Shape of both.
        dtype: Name of the dtype of the floats, from which the keys are computed.
    """

    values: Tensor
    mask: Tensor | None
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class Chosen(NamedTuple):
    """Values on a device, and which of them count.

    Attributes:
        values: Floats, or keys.
        mask: Boolean, or None: all count.
        is_kept: Whether those count that the mask keeps, or those that it prunes.
    """

    values: Tensor
    mask: Tensor | None = None
    is_kept: bool = True


class DeviceArrays(Protocol):
    """Operations on device arrays, which adapters implement for each backend.

    Every process of a run makes the same calls in the same order.
    """

    def is_on_host(self, values: Tensor) -> bool:
        """Returns whether this process can read all values in its machine's memory."""

    def dtype_of(self, values: Tensor) -> str:
        """Returns the name of the dtype."""

    def to_device(self, mask: np.ndarray, values: Tensor) -> Tensor:
        """Returns `mask` as a boolean tensor on the device of `values`."""

    def measure(self, pairs: Sequence[tuple[Tensor, Tensor | None]]) -> list[list[int]]:
        """Counts values under their masks, in one transfer.

        Returns:
            Four numbers for each pair: zeros (under a mask, pruned zeros), pruned values, pruned
            values that are numbers other than zero, and values that are NaN or infinite.
        """

    def all_kept(self, values: Tensor) -> Tensor:
        """Returns a mask that keeps all of `values`."""

    def num_different(self, one: Tensor, other: Tensor) -> int:
        """Returns the number of entries in which two masks differ."""

    def copy(self, values: Tensor) -> Tensor:
        """Returns a copy, which updates do not change."""

    def smallest_key(self, array: Ranked) -> int:
        """Returns the smallest key that the mask keeps, or that of infinity."""

    def largest_key(self, chosen: Chosen) -> int:
        """Returns the largest key of chosen values that are finite, or 0."""

    def tally(
        self, chosen: Chosen, limits: Sequence[int], limits_of_negatives: Sequence[int]
    ) -> list[int]:
        """Counts chosen values other than zero whose keys are below limits.

        Returns:
            How many positive ones are below each of `limits`, how many negative ones below each of
            `limits_of_negatives`; how many are zero, and how many NaN or infinite.
        """

    def num_below(
        self, arrays: Sequence[Ranked], limits: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """Returns, for each array, the number of keys below each of its `NUM_TRIED` limits."""

    def ties(self, array: Ranked, limit: int, index: tuple[int, ...], axis: int) -> np.ndarray:
        """Returns the number of keys equal to `limit` at each index of `axis`.

        Args:
            array: The array.
            limit: The key.
            index: Fixes the axes before `axis`; further entries are ignored.
            axis: The axis.
        """

    def kept_from(self, array: Ranked, limit: int, index: tuple[int, ...]) -> Tensor:
        """Returns the mask of keys above `limit`, and of those equal to it from `index` on."""

    def scores(self, array: Ranked, block: Block, layout: Layout) -> Ranked:
        """Returns the keys of the pooled magnitudes of blocks; see `Block.scores`."""

    def expand(self, kept: Tensor, block: Block, layout: Layout, values: Tensor) -> Tensor:
        """Returns the mask of `values` from the mask of their blocks."""

    def groups(self, array: Ranked, pattern: NM, layout: Layout) -> Tensor:
        """Returns the mask of an N:M pattern."""


class DeviceWeight(ReadableWeight, Protocol):
    """A weight whose values and mask can stay on their devices."""

    @property
    def arrays(self) -> DeviceArrays:
        """Operations on its tensors."""

    @property
    def is_masked(self) -> bool:
        """True if a mask is active."""

    def tensor(self) -> Tensor:
        """Returns the values on their device."""

    def mask_tensor(self) -> Tensor | None:
        """Returns the active mask as a boolean tensor on the device of the values, or None."""


_Weight = TypeVar("_Weight", bound=DeviceWeight)


class Measured(NamedTuple):
    """Measurements of weights.

    Attributes:
        num_zeros: Number of zeros; under a mask, of pruned zeros, as a kept value may underflow.
        num_pruned: Number of values that masks prune.
        num_violations: Number of pruned values that are numbers other than zero.
        num_not_finite: Number of values that are NaN or infinite.
    """

    num_zeros: int
    num_pruned: int
    num_violations: int
    num_not_finite: int


def measure(
    weights: Sequence[DeviceWeight], given: Sequence[Tensor | None] | None = None
) -> list[Measured]:
    """Measures weights under their active masks or `given` ones, in one transfer to the host."""
    if not weights:
        return []
    active = [weight.mask_tensor() for weight in weights] if given is None else given
    pairs = zip([weight.tensor() for weight in weights], active, strict=True)
    return [Measured(*each) for each in weights[0].arrays.measure(list(pairs))]


def thresholds(weights: Sequence[DeviceWeight]) -> Iterator[float | None]:
    """Yields, for each weight, the smallest magnitude that is kept.

    Under a mask, of what the mask keeps; otherwise of what a sparse phase would keep if it started
    now. With a `Block`, the smallest pooled magnitude of a block. None with an `NM`, whose groups
    have none in common, and where nothing can be ranked, as with NaN in the weight.
    """
    # A weight that was unfrozen within a sparse phase has no mask until the next one.
    is_masked = any(weight.is_masked for weight in weights)
    together = [weight for weight in weights if weight.scope == "global" and not is_masked]
    made = _masks_by_id(together)
    for weight in weights:
        if isinstance(weight.pattern, NM):
            yield None
        elif is_masked:
            yield smallest_kept(weight, weight.mask_tensor())
        else:
            found = made if weight.scope == "global" else _masks_by_id([weight])
            yield None if id(weight) not in found else smallest_kept(weight, found[id(weight)])


def _masks_by_id(weights: Sequence[_Weight]) -> dict[int, Tensor]:
    try:
        return {id(weight): mask for weight, mask in masks_for(weights, None)}
    except ValueError:  # not finite, or so few would be left that a tensor had none
        return {}


def smallest_kept(weight: DeviceWeight, mask: Tensor | None) -> float | None:
    """Returns the smallest finite magnitude that a mask keeps, of a `Block` pooled, or None.

    Without a mask, of all magnitudes.
    """
    arrays, values = weight.arrays, weight.tensor()
    ranked = Ranked(values, mask, weight.shape, arrays.dtype_of(values))
    scale = 1
    if isinstance(weight.pattern, Block):
        ranked = arrays.scores(ranked, weight.pattern, weight.layout)
        if weight.pattern.pooling == "avg":
            scale = weight.pattern.height * weight.pattern.width
    key = arrays.smallest_key(ranked)
    if key >= INFINITY[ranked.dtype]:
        return None
    return _number(key, ranked.dtype) / scale


def check_finite(weights: Sequence[DeviceWeight], measured: Sequence[Measured]) -> None:
    """Raises ValueError if measured weights hold NaN or infinity."""
    for weight, each in zip(weights, measured, strict=True):
        masks.refuse_not_finite(each.num_not_finite, math.prod(weight.shape), weight.path)


def masks_for(
    weights: Sequence[_Weight], sparsity: masks.Sparsity, scores: criteria.Scores | None = None
) -> Iterator[tuple[_Weight, Tensor]]:
    """Yields the mask of each weight, on its device, at `sparsity` or its own target.

    A weight that holds NaN or infinity is refused before anything is yielded. With `scores`, these
    rank the weights, on the host, and magnitudes do not.
    """
    masks.check_phase(weights, sparsity)
    check_finite(weights, measure(weights, [None] * len(weights)))
    if scores is not None:
        made = list(criteria.masks_by_score(weights, sparsity, scores))
        if scores.check is not None:
            scores.check([mask for _, mask in made])
        for weight, mask in made:
            yield weight, weight.arrays.to_device(mask, weight.tensor())
        return
    with_numpy, on_device = list[_Weight](), list[list[_Weight]]()
    for group in masks.ranked_together(weights):
        if _is_for_numpy(group):
            with_numpy += group
        else:
            on_device.append(group)
    for weight, mask in masks.masks_for(with_numpy, sparsity):
        yield weight, weight.arrays.to_device(mask, weight.tensor())
    yield from _masks_on_device(on_device, sparsity)


def are_pruned_by(
    weights: Sequence[DeviceWeight], sparsity: masks.Sparsity, scores: criteria.Scores | None
) -> bool:
    """Returns whether weights are zero wherever the masks made of them now prune them."""
    made = list(masks_for(weights, sparsity, scores))
    measured = measure([weight for weight, _ in made], [mask for _, mask in made])
    return not any(found.num_violations for found in measured)


def check_pruned_alike(
    weights: Sequence[DeviceWeight], sparsity: masks.Sparsity
) -> tuple[bool, int]:
    """Checks the weights of a run that resumes within a sparse phase.

    They are either pruned by the masks of this phase, or dense, and pruned now. Weights that were
    pruned at another sparsity would lose more values, or regrow some too early.

    Returns:
        Whether the weights are pruned, so that masks can be read off their zeros; and the number
        of zeros of unknown origin, pruned or kept: a checkpoint may not hold the mask.

    Raises:
        ValueError: Weights were pruned at another sparsity.
    """
    made, num_violations, num_unknown = list(masks_for(weights, sparsity)), 0, 0
    order = [weight for weight, _ in made]
    measured = measure([*order, *order], [None] * len(made) + [mask for _, mask in made])
    pairs = zip(order, measured[: len(made)], measured[len(made) :], strict=True)
    for weight, alone, under in pairs:
        if alone.num_zeros and under.num_violations:
            raise ValueError(
                f"Expected dense weights, or those of the sparse phase in which the run resumes. "
                f"Received: {weight.path} with {alone.num_zeros} of {math.prod(weight.shape)} "
                f"values zero, of which this phase prunes {under.num_pruned}: it was pruned at "
                f"another sparsity. Nothing is changed. Use the sparsity of the saved run, or "
                f"resume at the first epoch of the phase."
            )
        num_violations += under.num_violations
        num_unknown += 0 if weight.is_masked else max(alone.num_zeros - under.num_pruned, 0)
    return not num_violations, num_unknown


def _is_for_numpy(together: Sequence[DeviceWeight]) -> bool:
    """Returns whether NumPy computes the masks of weights that are ranked together."""
    tensors = [(weight.arrays, weight.tensor()) for weight in together]
    return all(
        arrays.is_on_host(values) or arrays.dtype_of(values) not in INFINITY
        for arrays, values in tensors
    )


@dataclasses.dataclass(frozen=True)
class _Ranking:
    """Arrays that are ranked together by (magnitude, array, flat index).

    Attributes:
        arrays: The arrays.
        count: Number of values to prune: the first of the ranking.
        most: Upper bound of the number of values to prune, for each array.
    """

    arrays: Sequence[Ranked]
    count: int
    most: Sequence[int]

    @property
    def dtype(self) -> str:
        """A dtype that represents all numbers of the arrays."""
        dtypes = {each.dtype for each in self.arrays}
        return dtypes.pop() if len(dtypes) == 1 else "float64"

    def limits(self, key: int) -> list[int]:
        """Returns `key`, of the ranking's dtype, in the dtype of each array."""
        return [_converted(key, self.dtype, each.dtype) for each in self.arrays]


class _Limit(NamedTuple):
    """Threshold of a ranking.

    Attributes:
        key: Key of the last weight that is pruned.
        num_below: Number of smaller keys, for each array.
        num_up_to: Number of smaller or equal keys, for each array.
    """

    key: int
    num_below: list[int]
    num_up_to: list[int]


def _masks_on_device(
    groups: Sequence[Sequence[_Weight]], sparsity: masks.Sparsity
) -> Iterator[tuple[_Weight, Tensor]]:
    if not groups:
        return
    arrays = groups[0][0].arrays
    ranked, rankings = list[Sequence[_Weight]](), list[_Ranking]()
    for together in groups:
        pattern = together[0].pattern
        if isinstance(pattern, NM):
            [weight] = together
            yield weight, arrays.groups(_ranked(weight), pattern, weight.layout)
        else:
            ranked.append(together)
            rankings.append(_ranking(together, sparsity))
    for together, kept in zip(ranked, _cut(arrays, rankings), strict=True):
        for weight, mask in zip(together, kept, strict=True):
            if isinstance(weight.pattern, Block):
                mask = arrays.expand(mask, weight.pattern, weight.layout, weight.tensor())
            yield weight, mask


def _ranked(weight: DeviceWeight) -> Ranked:
    """Returns the ranked array of a weight: its values, or the scores of its blocks."""
    values = weight.tensor()
    dtype = weight.arrays.dtype_of(values)
    array = Ranked(values, weight.mask_tensor(), weight.shape, dtype)
    if isinstance(weight.pattern, Block):
        return weight.arrays.scores(array, weight.pattern, weight.layout)
    return array


def _ranking(together: Sequence[DeviceWeight], sparsity: masks.Sparsity) -> _Ranking:
    arrays = [_ranked(weight) for weight in together]
    shares = [masks.share_of(weight, sparsity) for weight in together]
    sizes = [each.size for each in arrays]
    if together[0].scope != "global":
        return _Ranking(arrays, masks.num_pruned(sizes[0], shares[0]), sizes)
    count, floors = masks.count_and_floors(sizes, shares)
    masks.refuse_too_many(count, sizes, floors)
    return _Ranking(arrays, count, [n - floor for n, floor in zip(sizes, floors, strict=True)])


def _cut(arrays: DeviceArrays, rankings: Sequence[_Ranking]) -> Iterator[list[Tensor]]:
    """Yields the masks of each ranking's arrays."""
    for ranking, limit in zip(rankings, _search(arrays, rankings), strict=True):
        missing, kept = ranking.count, list[Tensor]()
        missing -= sum(map(min, limit.num_below, ranking.most))
        limits = zip(ranking.limits(limit.key), ranking.limits(limit.key + 1), strict=True)
        for place, (array, (at, above)) in enumerate(zip(ranking.arrays, limits, strict=True)):
            most, below = ranking.most[place], limit.num_below[place]
            if below > most:  # so its threshold is lower
                alone = _Ranking([array], most, [array.size])
                kept += next(_cut(arrays, [alone]))
                continue
            num_ties = limit.num_up_to[place] - below
            num = min(missing, num_ties, most - below)
            missing -= num
            if 0 < num == num_ties:
                kept.append(arrays.kept_from(array, above, (0,) * len(array.shape)))
            else:
                kept.append(arrays.kept_from(array, at, _index(arrays, array, at, num)))
        yield kept


def _search(arrays: DeviceArrays, rankings: Sequence[_Ranking]) -> list[_Limit]:
    """Returns the limits of rankings, all found in the same passes."""
    ends = [INFINITY[ranking.dtype] for ranking in rankings]
    low = [_Limit(0, [0] * len(ranking.arrays), []) for ranking in rankings]
    high = [
        _Limit(end, [each.size for each in ranking.arrays], [])
        for ranking, end in zip(rankings, ends, strict=True)
    ]
    is_empty = [ranking.count == 0 for ranking in rankings]
    flat = [each for ranking in rankings for each in ranking.arrays]
    while any(b.key - a.key > 1 and not e for a, b, e in zip(low, high, is_empty, strict=True)):
        tried = [
            [a.key + (b.key - a.key) * part // (NUM_TRIED + 1) for part in range(1, NUM_TRIED + 1)]
            for a, b in zip(low, high, strict=True)
        ]
        limits = [
            list(each)
            for ranking, keys in zip(rankings, tried, strict=True)
            for each in zip(*map(ranking.limits, keys), strict=True)
        ]
        counts = iter(arrays.num_below(flat, limits))
        for place, ranking in enumerate(rankings):
            of_arrays = [next(counts) for _ in ranking.arrays]
            for key, nums in zip(tried[place], zip(*of_arrays, strict=True), strict=True):
                found = _Limit(key, list(nums), [])
                if sum(map(min, nums, ranking.most)) >= ranking.count:
                    high[place] = found
                    break
                low[place] = found
    return [
        _Limit(0, a.num_below, a.num_below) if e else _Limit(a.key, a.num_below, b.num_below)
        for a, b, e in zip(low, high, is_empty, strict=True)
    ]


def _index(arrays: DeviceArrays, array: Ranked, limit: int, num: int) -> tuple[int, ...]:
    """Returns the index of the key equal to `limit` after `num` others, in C order."""
    index = (0,) * len(array.shape)
    for axis in range(len(array.shape)):
        if not num:
            break
        sums = np.cumsum(arrays.ties(array, limit, index, axis), dtype=np.int64)
        place = int(np.searchsorted(sums, num, side="right"))
        num -= int(sums[place - 1]) if place else 0
        index = (*index[:axis], place, *index[axis + 1 :])
    return index


def keys_of(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Returns the smallest keys of a dtype whose numbers are at least those given.

    Keys have the order of their numbers, so the search is by bisection.
    """
    low = np.full(numbers.shape, -1, np.int64)
    high = np.full(numbers.shape, INFINITY[dtype], np.int64)
    while (is_open := high - low > 1).any():
        middle = np.where(is_open, low + (high - low) // 2, high)
        is_below = numbers_of(middle, dtype) < numbers
        low = np.where(is_open & is_below, middle, low)
        high = np.where(is_open & ~is_below, middle, high)
    return high


def numbers_of(keys: np.ndarray, dtype: str) -> np.ndarray:
    """Returns the numbers that have keys of a dtype, float64."""
    if dtype == "bfloat16":  # the upper half of a float32
        keys, dtype = keys << 16, "float32"
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    return keys.astype(bits).view(dtype).astype(np.float64)


def _converted(key: int, of: str, to: str) -> int:
    """Returns the smallest key of dtype `to` whose number is at least that of `key` of `of`."""
    return key if of == to else int(keys_of(np.array(_number(key, of)), to))


def _number(key: int, dtype: str) -> float:
    """Returns the number of a key."""
    return float(numbers_of(np.array(key, np.int64), dtype))
