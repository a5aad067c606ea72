"""Masks by scores: exact numbers, ties, patterns, and what random scores depend on."""

import math

import ml_dtypes
import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.algorithm import criteria, masks
from keras_dsd.algorithm.device_masks import masks_for
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM, Block
from tests.helpers.numpy_arrays import NumPyArrays
from tests.helpers.ranked_weight import RankedWeight

LAYOUT = Layout((), (0,), (1,))


def weights(shapes=((8, 6), (6, 10)), arrays=None, **options):
    random = np.random.default_rng(0)
    return [
        RankedWeight(
            random.normal(size=shape), LAYOUT, arrays=arrays, path=f"{i}/kernel", **options
        )
        for i, shape in enumerate(shapes)
    ]


def scores_of(function):
    return criteria.scores_of(function, 0)


def given(found, scores, sparsity=None):
    """The masks of weights by arrays of scores, in their order."""
    by_path = {weight.path: each for weight, each in zip(found, scores, strict=True)}
    made = masks_for(found, sparsity, scores_of(lambda w: by_path[w.path]))
    by_weight = {weight.path: mask for weight, mask in made}
    return [by_weight[weight.path] for weight in found]


def lowest(scores, count):
    """The mask that prunes the lowest scores; of equal ones those that come first."""
    mask = np.ones(scores.size, bool)
    mask[np.argsort(scores.ravel(), kind="stable")[:count]] = False
    return mask.reshape(scores.shape)


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64", "int64"])
def test_the_lowest_scores_are_pruned(dtype, on_host):
    random = np.random.default_rng(1)
    found = weights(arrays=NumPyArrays(on_host=on_host))
    scores = [(10 * random.normal(size=each.shape)).astype(dtype) for each in found]
    for each, score in zip(given(found, scores, 0.3), scores, strict=True):
        assert np.array_equal(each, lowest(score, round(0.3 * score.size)))


def test_zeros_are_pruned_first_so_that_a_mask_can_be_read_off():
    values = np.random.default_rng(6).normal(size=(8, 6))
    values[:4, :3] = 0
    weight = RankedWeight(values, LAYOUT)
    for sparsity in (0.125, 0.5):
        [mask] = given([weight], [-np.abs(values)], sparsity)
        zeros_pruned = np.count_nonzero(~mask & (values == 0))
        assert zeros_pruned == min(12, round(48 * sparsity))
        [(_, again)] = masks.masks_for([RankedWeight(values * mask, LAYOUT)], sparsity)
        assert np.array_equal(again, mask) or sparsity == 0.125
    [(_, mask)] = masks_for([weight], 0.5, criteria.scores_of("random", 0))
    assert np.array_equal(mask, lowest(criteria.random_scores(weight, 0), 24))


def test_equal_scores_are_pruned_by_index():
    [mask] = given(weights([(4, 5)]), [np.full((4, 5), -1.0)], 0.35)
    assert np.array_equal(mask.ravel(), np.arange(20) >= 7)


def test_scores_of_all_tensors_are_ranked_together():
    found = weights(scope="global")
    random = np.random.default_rng(2)
    scores = [random.normal(size=each.shape) for each in found]
    expected = lowest(np.concatenate([each.ravel() for each in scores]), 54)
    assert np.array_equal(np.concatenate([m.ravel() for m in given(found, scores, 0.5)]), expected)
    lower = [scores[0] - 100, scores[1]]  # all of it would go; a tenth of what it keeps stays
    first, _ = given(found, lower, 0.5)
    assert np.array_equal(first, lowest(lower[0], 48 - 3))


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_signed_scores_of_blocks_are_pooled(pooling):
    scores = np.random.default_rng(3).normal(size=(8, 6))
    [mask] = given(weights([(8, 6)], pattern=Block(2, 3, pooling)), [scores], 0.5)
    blocks = scores.reshape(4, 2, 2, 3)
    pooled = blocks.mean((1, 3)) if pooling == "avg" else blocks.max((1, 3))
    assert np.array_equal(mask, lowest(pooled, 4).repeat(2, 0).repeat(3, 1))


def test_the_highest_scores_of_each_group_are_kept():
    scores = np.random.default_rng(4).normal(size=(8, 6))
    [mask] = given(weights([(8, 6)], pattern=NM(1, 4)), [scores])
    for group, kept in zip(scores.reshape(2, 4, 6), mask.reshape(2, 4, 6), strict=True):
        assert np.array_equal(kept, group == group.max(0))


@pytest.mark.parametrize("pattern", [None, Block(2, 1)])
def test_what_is_pruned_is_pruned_first(pattern):
    values = np.random.default_rng(5).normal(size=(8, 6))
    active = np.repeat(np.arange(8) % 4 < 2, 6).reshape(8, 6)
    weight = RankedWeight(values, LAYOUT, active, pattern=pattern)
    [more] = given([weight], [-np.arange(48.0).reshape(8, 6)], 0.75)
    [less] = given([weight], [-np.arange(48.0).reshape(8, 6)], 0.25)
    assert not (more & ~active).any() and np.count_nonzero(~more) == 36
    assert not (active & ~less).any() and np.count_nonzero(~less) == 12
    assert less[:4].all()  # those that regrow have the highest scores


def test_magnitudes_as_scores_prune_as_magnitudes_do():
    for pattern in (None, Block(2, 3), NM(2, 4)):
        found = weights([(8, 6)], pattern=pattern)
        [(_, expected)] = masks.masks_for(found, None)
        [mask] = given(found, [np.abs(found[0].numpy())])
        assert np.array_equal(mask, expected)


def test_random_scores_depend_on_seed_path_and_size_alone():
    one, two = weights([(40, 50), (40, 50)])
    scores = criteria.random_scores(one, 3)
    assert scores.dtype == np.float32 and scores.shape == (40, 50)
    # The first raw 64-bit words of PCG64, seeded by (3, crc32 of the path).
    bits = np.random.PCG64(np.random.SeedSequence([3, 0x350AFE69])).random_raw(2000)
    assert np.array_equal(scores.ravel(), (bits >> np.uint64(40)).astype(np.float32) / 2**24)
    again = weights([(40, 50)], scope="global")[0]
    assert np.array_equal(criteria.random_scores(again, 3), scores)
    for other in (criteria.random_scores(two, 3), criteria.random_scores(one, 4)):
        assert abs(np.corrcoef(scores.ravel(), other.ravel())[0, 1]) < 0.1


def test_random_scores_of_large_weights_are_drawn_in_parts(monkeypatch):
    [weight] = weights([(30, 40)])
    at_once = criteria.random_scores(weight, 0)
    monkeypatch.setattr(criteria, "_PART", 7)
    assert np.array_equal(criteria.random_scores(weight, 0), at_once)


def test_random_masks_are_exact_and_nested():
    [weight] = weights([(30, 40)])
    scores = criteria.scores_of("random", 0)
    before = np.zeros((30, 40), bool)
    for sparsity in (0.9, 0.5, 0.3, 0.0):
        [(_, mask)] = masks_for([weight], sparsity, scores)
        assert np.count_nonzero(~mask) == round(1200 * sparsity) and not (before & ~mask).any()
        before = mask


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        (np.ones((2, 2)), ValueError, r"weight's shape \(4, 5\).*shape=\(2, 2\)"),
        (np.full((4, 5), math.nan), ValueError, "finite scores.*20 of 20"),
        (np.ones((4, 5), bool), TypeError, "(?s)real numbers.*dtype bool"),
        (np.ones((4, 5), complex), TypeError, "(?s)real numbers.*complex128"),
        (None, TypeError, "real numbers.*None"),
        ([[1.0], [1.0, 2.0]], TypeError, "a function that returns arrays"),
    ],
)
def test_scores_that_are_none_are_refused(scores, error, message):
    with pytest.raises(error, match=message):
        given(weights([(4, 5)]), [scores], 0.5)


def test_arguments_of_a_phase():
    assert str(dsd.SparsePhase(2, criterion="random", seed=3)) == (
        "sparse for 2 epochs by random (seed 3)"
    )
    assert str(dsd.SparsePhase(2, sparsity=0.5, criterion=lowest)) == (
        "sparse for 2 epochs at sparsity 0.5 by lowest"
    )
    with pytest.raises(ValueError, match="'magnitude', .*'taylor' or a callable.*'size'"):
        dsd.SparsePhase(2, criterion="size")
    with pytest.raises(TypeError, match="criterion=3 of type int"):
        dsd.SparsePhase(2, criterion=3)
    with pytest.raises(ValueError, match="seed=1 with criterion='magnitude'"):
        dsd.SparsePhase(2, seed=1)
