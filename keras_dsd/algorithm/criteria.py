"""Criteria: scores that rank weights instead of their magnitudes; the lowest are pruned first.

Scores are NumPy arrays on the host, so every backend, replica and worker gets the same mask. They
are pooled over blocks and ranked in groups like magnitudes.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from keras_dsd.algorithm import masks
from keras_dsd.algorithm.patterns import NM, Block
from keras_dsd.algorithm.weight import ReadableWeight
from keras_dsd.utils.checks import converted, invalid, invalid_type, shown

_Weight = TypeVar("_Weight", bound=ReadableWeight)

# A name, or a function that returns the scores of a weight, an array of its shape.
Criterion: TypeAlias = str | Callable[[Any], np.ndarray]

# Returns the sum over the updates of an epoch, for a weight: float32, of its shape.
SumOf: TypeAlias = Callable[[ReadableWeight], np.ndarray]

NAMES = ("magnitude", "random", "movement", "taylor")
# What is summed over the updates of the epoch before a phase, for the criteria that need it.
SUMS = {"movement": "movement", "taylor": "gradient"}
_PART = 2**20  # random bits that are drawn at a time


class Scores(NamedTuple):
    """Scores of weights.

    Attributes:
        of: Returns the scores of a weight.
        is_repeatable: True if the scores are the same at any time, so that masks can be computed
            again. Otherwise zeros are pruned first, so that masks can be recovered from them.
        check: Raises ValueError if the masks differ between processes; None: they can't, or there
            is one process.
        is_custom: True if a function of the user returns the scores.
    """

    of: Callable[[ReadableWeight], np.ndarray]
    is_repeatable: bool
    check: Callable[[Sequence[np.ndarray]], None] | None = None
    is_custom: bool = False


def check(criterion: object) -> Criterion:
    """Returns a criterion: one of `NAMES`, or a callable.

    Raises:
        TypeError: It is neither a str nor callable.
        ValueError: The name is unknown.
    """
    hint = "Give one of the names, or a function of a weight that returns an array of its shape."
    expected = f"to be {', '.join(map(repr, NAMES))} or a callable"
    if isinstance(criterion, str):
        if criterion not in NAMES:
            raise invalid("criterion", criterion, expected, hint)
        return criterion
    if not callable(criterion):
        raise invalid_type("criterion", criterion, expected, hint)
    return criterion


def name_of(criterion: Criterion) -> str:
    """Returns the name of a criterion or callable."""
    if isinstance(criterion, str):
        return criterion
    return getattr(criterion, "__name__", type(criterion).__name__)


def scores_of(criterion: Criterion, seed: int, sum_of: SumOf | None = None) -> Scores | None:
    """Returns the scores of a criterion; None for magnitudes.

    `sum_of` returns the sum over the previous epoch that `SUMS` names, for a weight.
    """
    if criterion == "magnitude":
        return None
    if criterion in SUMS:
        return gradient_scores(str(criterion), sum_of)
    if criterion == "random":
        return Scores(lambda weight: random_scores(weight, seed), is_repeatable=True)
    given: Any = criterion
    name = name_of(criterion)

    def of(weight: ReadableWeight) -> np.ndarray:
        return _checked(given(weight), weight, name)

    return Scores(of, is_repeatable=False, is_custom=True)


def reads_weights(criterion: Criterion) -> bool:
    """Returns whether scores are computed on the host from complete weights, or gradients."""
    return criterion not in ("magnitude", "random")


def gradient_scores(criterion: str, sum_of: SumOf | None) -> Scores:
    """Returns scores by sums over the updates of an epoch.

    `"movement"`: the sum of -gradient · weight, so the weights that move towards zero go.
    `"taylor"`: |sum of gradients · weight|, to first order the change of the loss without the
    weight. `"gradient"`: |sum of gradients|, of weights that may regrow.

    Reference:
        Sanh et al., 2020, arXiv:2005.07683; Molchanov et al., 2019, arXiv:1906.10771; Evci et al.,
        2020, arXiv:1911.11134.
    """

    def of(weight: ReadableWeight) -> np.ndarray:
        if sum_of is None:
            raise ValueError(
                f"Expected sums over gradients. Received: {criterion=}, none. Pass sum_of."
            )
        found = sum_of(weight)
        if criterion == "taylor":
            found = found * masks.comparable(weight.numpy())
        return _checked(found if criterion == "movement" else np.abs(found), weight, criterion)

    return Scores(of, is_repeatable=False)


def random_scores(weight: ReadableWeight, seed: int) -> np.ndarray:
    """Returns uniform random scores in [0, 1), float32, of the shape of a weight.

    They depend only on the seed, the path and the size of the weight. A higher sparsity prunes the
    same weights, and more.
    """
    key = zlib.crc32(weight.short_path.encode())
    bits = np.random.PCG64(np.random.SeedSequence([seed, key]))
    scores = np.empty(weight.shape, np.float32)
    flat = scores.reshape(-1)
    for start in range(0, flat.size, _PART):
        part = flat[start : start + _PART]
        # The raw bits stay the same in every version of NumPy; a float32 has 24 of them.
        part[:] = (bits.random_raw(part.size) >> np.uint64(40)) * np.float32(2**-24)
    return scores


def masks_by_score(
    weights: Sequence[_Weight], sparsity: masks.Sparsity, scores: Scores
) -> Iterator[tuple[_Weight, np.ndarray]]:
    """Yields the masks that keep the highest scores, at `sparsity` or the target of each weight.

    Numbers of pruned weights, ties, blocks, groups and `scope` are as for magnitudes. Weights that
    an active mask prunes come first, and so do zeros, unless the scores are repeatable.

    Raises:
        TypeError: Scores are not numbers.
        ValueError: Scores are not of the weight's shape, or not finite.
    """
    masks.check_phase(weights, sparsity)
    for group in masks.ranked_together(weights):
        pooled, kept = list[np.ndarray](), list[np.ndarray | None]()
        for weight in group:
            found = scores.of(weight)
            if isinstance(weight.pattern, Block):
                found = weight.pattern.scores(found, weight.layout, signed=True)
            pooled.append(found)
            kept.append(_kept(weight, scores.is_repeatable))
        ranks = _ranks(pooled, kept)
        yield from zip(group, masks.masks_of_ranked(group, ranks, sparsity), strict=True)


def regrown_sparsity(
    weights: Sequence[ReadableWeight], sparsity: masks.Sparsity, fraction: float
) -> masks.Sparsity:
    """Returns the sparsity that is left of another one when a fraction of pruned weights regrows.

    Of the pruned weights, or blocks, that are ranked together, the fraction is rounded.

    Raises:
        ValueError: A weight has an N:M pattern, whose groups would hold other numbers.
    """
    left: dict[str, float] = {}
    for group in masks.ranked_together(weights):
        sizes = []
        for weight in group:
            if isinstance(weight.pattern, NM):
                raise ValueError(
                    f"Expected DensePhase without `regrow_fraction`: the pattern {weight.pattern} "
                    f"of {weight.path!r} fixes how many weights of a group are pruned. Received: "
                    f"regrow_fraction={fraction}. Leave it out."
                )
            shape, layout = weight.shape, weight.layout
            block = weight.pattern
            sizes.append(math.prod(shape if block is None else block.blocks(shape, layout)))
        shares = [masks.share_of(weight, sparsity) for weight in group]
        num_pruned = round(sum(n * share for n, share in zip(sizes, shares, strict=True)))
        num_left = num_pruned - round(num_pruned * fraction)
        left |= {weight.path: num_left / max(sum(sizes), 1) for weight in group}
    return lambda weight: left[weight.path]


def _kept(weight: ReadableWeight, is_repeatable: bool) -> np.ndarray | None:
    """Returns the mask of the weights or blocks that are not pruned first, or None."""
    mask = weight.mask
    if not is_repeatable:
        kept = masks.read(weight) != 0
        return None if kept.all() else kept
    if mask is None or not isinstance(weight.pattern, Block):
        return mask
    return weight.pattern.kept(mask, weight.layout)


def _ranks(scores: Sequence[np.ndarray], kept: Sequence[np.ndarray | None]) -> Sequence[np.ndarray]:
    """Returns numbers of at least 0 in the order of scores; kept ones come last."""
    is_ranked = all(each.min(initial=0.0) >= 0 for each in scores)
    if is_ranked and all(mask is None for mask in kept):
        return scores
    values, ranks = np.unique(
        np.concatenate([each.ravel() for each in scores]), return_inverse=True
    )
    ranks, found, start = ranks.reshape(-1).astype(np.float64), list[np.ndarray](), 0
    for each, mask in zip(scores, kept, strict=True):
        part = ranks[start : start + each.size].reshape(each.shape)
        found.append(part if mask is None else part + mask * float(values.size))
        start += each.size
    return found


def _checked(given: object, weight: ReadableWeight, name: str) -> np.ndarray:
    """Returns the scores of a callable as floats."""
    scores = converted("criterion", given, np.asarray, "a function that returns arrays")
    received = f"of {name}({weight.path}): "
    if scores.dtype.kind in "iu":
        scores = scores.astype(np.float64)
    if scores.dtype.kind != "f" and scores.dtype.name != "bfloat16":
        raise TypeError(
            f"Expected `criterion` to return an array of real numbers. Received: {received}"
            f"{shown(given)} of dtype {scores.dtype}. No weight is changed. Return a score for "
            f"each entry of the weight."
        )
    scores = masks.comparable(scores)
    if scores.shape != tuple(weight.shape):
        raise ValueError(
            f"Expected `criterion` to return an array of the weight's shape {weight.shape}. "
            f"Received: {received}shape={scores.shape}. No weight is changed. Return a score for "
            f"each entry of the weight."
        )
    num_bad = scores.size - int(np.count_nonzero(np.isfinite(scores)))
    if num_bad:
        raise ValueError(
            f"Expected `criterion` to return finite scores. Received: {received}{num_bad} of "
            f"{scores.size} are NaN or infinite. No weight is changed. Return a finite score "
            f"for each entry, such as 0."
        )
    return scores
