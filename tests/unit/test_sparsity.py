"""Zeros that a mask made, and others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_dsd.algorithm.device_masks import check_pruned_alike, masks_for, measure
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM, Block
from tests.helpers.ranked_weight import RankedWeight


def weight_of(values, mask=None, **options):
    return RankedWeight(values, Layout((), (0,), (1,)), mask, **options)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([None, Block(2, 2), Block(2, 3, "max"), NM(2, 4)]),
    st.sampled_from(["layer", "global"]), st.sampled_from(["float16", "float32", "float64"]),
    st.floats(0, 0.9),
)  # fmt: skip
def test_an_active_mask_is_read_back_despite_other_zeros(seed, pattern, scope, dtype, sparsity):
    random = np.random.default_rng(seed)
    options = {"pattern": pattern, "scope": "layer" if isinstance(pattern, NM) else scope}
    options["sparsity"] = sparsity
    values = [random.normal(size=(8, 9)).astype(dtype) for _ in range(2)]
    made = [mask for _, mask in masks_for([weight_of(each, **options) for each in values], None)]
    held = []
    for each, mask in zip(values, made, strict=True):
        each *= mask
        each[random.random(each.shape) < 0.4] = 0  # of what is kept, this underflows
        held.append(weight_of(each, mask, **options))
    again = [mask for _, mask in masks_for(held, None)]
    assert all(map(np.array_equal, again, made))
    for each in held:
        assert measure([each])[0].num_zeros == np.count_nonzero(~each.mask)
    assert check_pruned_alike(held, None) == (True, 0)


def test_measured_under_a_mask_and_without():
    values = np.array([[0.0, 0.0, 0.0, 1.0, np.nan, 2.0]])
    mask = np.array([[True, False, False, True, False, False]])
    assert measure([weight_of(values, mask)]) == [(2, 4, 1, 1)]
    assert measure([weight_of(values), weight_of(values, mask)]) == [(3, 0, 0, 1), (2, 4, 1, 1)]
    assert measure([weight_of(values)], [mask]) == [(2, 4, 1, 1)]
    assert measure([]) == []


def test_weights_of_another_sparsity_are_refused():
    values = np.arange(1.0, 101.0).reshape(10, 10)
    assert check_pruned_alike([weight_of(values)], None) == (False, 0)  # dense
    values.flat[:30] = 0
    with pytest.raises(ValueError, match="a/kernel with 30 of 100 values zero.*prunes 50"):
        check_pruned_alike([weight_of(values)], None)
    with pytest.raises(ValueError, match="with 30 of 100 values zero.*prunes 31"):
        check_pruned_alike([weight_of(values)], 0.31)
    assert check_pruned_alike([weight_of(values)], 0.3) == (True, 0)
    assert check_pruned_alike([weight_of(values)], 0.2) == (True, 10)


def test_blocks_of_weights_near_the_largest_number_are_ranked():
    values = np.full((4, 4), 3e38, "float32")
    values[:2] = 1.0
    [(_, mask)] = masks_for([weight_of(values, pattern=Block(2, 2))], None)
    assert np.array_equal(mask, values > 1)
