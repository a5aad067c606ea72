"""Masks against the plainest rule there is, a stable sort, on anything hypothesis thinks of."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_dsd.algorithm import masks

FIXTURE = [HealthCheck.function_scoped_fixture]
SPARSITIES = st.floats(0, 1, exclude_max=True)
ARRAYS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=6),
    elements=st.one_of(st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0]), st.floats(-4, 4, width=16)),
)


def by_sorting(weights, sparsity):
    order = np.argsort(np.abs(weights), axis=None, kind="stable")
    mask = np.ones(weights.size, bool)
    mask[order[: round(weights.size * sparsity)]] = False
    return mask.reshape(weights.shape)


@pytest.fixture(params=[2**18, 8], ids=["whole", "from a sample"], autouse=True)
def _sample(request, monkeypatch):
    """Small arrays are ranked by a sample, and part by part, as large ones are."""
    monkeypatch.setattr(masks, "_SAMPLE", request.param)
    monkeypatch.setattr(masks, "_PART", 2**16 if request.param > 8 else 7)


@settings(max_examples=200, deadline=None, suppress_health_check=FIXTURE)
@given(ARRAYS, SPARSITIES)
def test_mask_equals_a_stable_sort(weights, sparsity):
    before = weights.copy()
    mask = masks.magnitude_mask(weights, sparsity)
    assert mask.dtype == bool and mask.shape == weights.shape
    assert np.array_equal(mask, by_sorting(weights, sparsity))
    assert np.array_equal(weights, before)


@settings(max_examples=200, deadline=None, suppress_health_check=FIXTURE)
@given(ARRAYS, SPARSITIES)
def test_the_mask_can_be_read_back_off_pruned_weights(weights, sparsity):
    mask = masks.magnitude_mask(weights, sparsity)
    assert np.array_equal(masks.magnitude_mask(weights * mask, sparsity), mask)


@settings(max_examples=200, deadline=None, suppress_health_check=FIXTURE)
@given(ARRAYS, SPARSITIES)
def test_memory_order_does_not_matter(weights, sparsity):
    mask = masks.magnitude_mask(np.asfortranarray(weights), sparsity)
    assert np.array_equal(mask, by_sorting(weights, sparsity))


@pytest.mark.parametrize("shape", [(1,), (10,), (7, 3), (3, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("sparsity", [0, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("fill", [0.0, 0.25, -1.0])
def test_equal_magnitudes_fall_by_flat_index(fill, sparsity, shape):
    mask = masks.magnitude_mask(np.full(shape, fill, np.float32), sparsity).ravel()
    num_pruned = round(mask.size * sparsity)
    assert mask.tolist() == [False] * num_pruned + [True] * (mask.size - num_pruned)


def test_signs_do_not_matter_and_ties_are_cut_in_order():
    weights = np.array([[3.0, -1.0, 1.0], [-2.0, 1.0, 5.0]])
    kept = masks.magnitude_mask(weights, 1 / 3)
    assert kept.tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize(("size", "sparsity", "count"), [
    (10, 0.3, 3), (10, 0.25, 2), (10, 0.35, 4), (1, 0.5, 0), (1, 0.51, 1), (1000, 0.999, 999),
    (3, 0.5, 2), (5, 0.5, 2), (10, np.float32(0.3), 3),
])  # fmt: skip
def test_the_count_is_rounded_half_to_even(size, sparsity, count):
    assert masks.num_pruned(size, sparsity) == count
    values = np.arange(1, size + 1, dtype=np.float32)
    assert np.count_nonzero(~masks.magnitude_mask(values, sparsity)) == count


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    weights = np.ones((3, 4))
    weights[1, 2] = bad
    with pytest.raises(ValueError, match="1 of 12 values NaN or infinite"):
        masks.magnitude_mask(weights, 0.5)


def test_bfloat16_is_ranked_exactly():
    weights = np.random.default_rng(0).normal(size=(8, 9)).astype(ml_dtypes.bfloat16)
    mask = masks.magnitude_mask(weights, 0.3)
    assert np.array_equal(mask, by_sorting(weights.astype(np.float32), 0.3))


def ranked_by_sorting(weights, sparsities):
    """The rule for one ranking, place by place: floors first, then the smallest of the others."""
    count = round(sum(w.size * s for w, s in zip(weights, sparsities, strict=True)))
    places = []
    for index, (each, sparsity) in enumerate(zip(weights, sparsities, strict=True)):
        floor = max(-(-(each.size - round(each.size * sparsity)) // 10), 1)
        order = np.argsort(np.abs(each), axis=None, kind="stable")
        places += [(abs(each.ravel()[i]), index, i) for i in order[: each.size - floor]]
    kept = [np.ones(each.size, bool) for each in weights]
    for _, index, place in sorted(places)[:count]:
        kept[index][place] = False
    return [k.reshape(each.shape) for k, each in zip(kept, weights, strict=True)], count


@settings(max_examples=150, deadline=None, suppress_health_check=FIXTURE)
@given(st.lists(st.tuples(ARRAYS, st.floats(0, 0.7)), min_size=1, max_size=4))
def test_one_ranking_equals_sorting_all(pairs):
    weights, sparsities = zip(*pairs, strict=True)
    expected, count = ranked_by_sorting(weights, sparsities)
    if count > sum(each.size for each in weights) - sum(
        max(-(-(w.size - round(w.size * s)) // 10), 1) for w, s in pairs
    ):
        with pytest.raises(ValueError, match="keep a weight in each"):
            masks.global_masks(weights, sparsities)
        return
    found = masks.global_masks(weights, sparsities)
    assert sum(np.count_nonzero(~mask) for mask in found) == count
    assert all(mask.any() for mask in found)
    for mask, wanted, each in zip(found, expected, weights, strict=True):
        assert mask.shape == each.shape and np.array_equal(mask, wanted)
    again = masks.global_masks([w * m for w, m in zip(weights, found, strict=True)], sparsities)
    assert all(np.array_equal(a, b) for a, b in zip(again, found, strict=True))


def test_no_tensor_is_pruned_whole_and_the_count_is_exact_all_the_same():
    small, large = np.full((10, 10), 1e-3), np.arange(1.0, 101.0).reshape(10, 10)
    found = masks.global_masks([small, large], [0.5, 0.5])
    assert [int(np.count_nonzero(mask)) for mask in found] == [5, 95]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_ranking_refuses_what_is_not_finite(bad):
    with pytest.raises(ValueError, match="1 of 2 values NaN or infinite"):
        masks.global_masks([np.ones(3), np.array([1, bad])], [0.5, 0.5])


@pytest.mark.parametrize("_sample", [2**18], indirect=True)  # as it is
@pytest.mark.parametrize("values", ["sorted", "normal", "mostly zero", "equal", "a few large"])
@pytest.mark.parametrize("sparsity", [0.001, 0.3, 0.9, 0.9999])
def test_large_arrays(values, sparsity):
    rng = np.random.default_rng(0)
    made = {
        "sorted": lambda: np.arange(700_000), "normal": lambda: rng.normal(size=700_000),
        "mostly zero": lambda: rng.normal(size=700_000) * (rng.uniform(size=700_000) < 0.4),
        "equal": lambda: np.ones(700_000),
        "a few large": lambda: np.where(np.arange(700_000) % 350_001 == 7, 9.0, 1e-3),
    }  # fmt: skip
    weights = made[values]().astype(np.float32).reshape(700, 1000)
    assert np.array_equal(masks.magnitude_mask(weights, sparsity), by_sorting(weights, sparsity))
