"""Masks by counting alone, as devices make them, against those of NumPy."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_dsd.algorithm import device_masks, masks
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM, Block
from tests.helpers.numpy_arrays import NumPyArrays
from tests.helpers.ranked_weight import KINDS, RankedWeight, masked, values_of

DTYPES = [np.dtype(each) for each in ("float16", ml_dtypes.bfloat16, "float32", "float64")]
PATTERNS = [None, Block(2, 2), Block(3, 2), Block(2, 3, "max"), NM(2, 4), NM(1, 3)]
SHAPES = [(8, 9), (3, 3, 4, 5), (4, 7, 6)]
LAYOUTS = {
    2: [Layout((), (0,), (1,))],
    3: [Layout((), (0, 1), (2,)), Layout((0,), (1,), (2,))],
    4: [Layout((0, 1), (2,), (3,)), Layout((0, 1), (3,), (2,))],
}
WEIGHT = st.tuples(
    st.sampled_from(KINDS), st.sampled_from(SHAPES), st.sampled_from(DTYPES), st.integers(0, 999)
)


class Elsewhere(NumPyArrays):
    """Counts the calls, as each takes a reading of all arrays."""

    def __init__(self):
        super().__init__(on_host=False)
        self.num_readings = self.num_ties = 0

    def num_below(self, arrays, limits):
        self.num_readings += 1
        return super().num_below(arrays, limits)

    def ties(self, array, limit, index, axis):
        self.num_ties += 1
        return super().ties(array, limit, index, axis)


def both(made, sparsity=None):
    """Returns the masks of NumPy and of the device."""
    here = [mask for _, mask in masks.masks_for(made, sparsity)]
    there = [mask for _, mask in device_masks.masks_for(made, sparsity)]
    return here, there


def make(given, pattern, scope, sparsity, arrays=None, with_mask=False):
    found = []
    for index, (kind, shape, dtype, seed) in enumerate(given):
        values = values_of(kind, shape, dtype, seed)
        layout = LAYOUTS[len(shape)][seed % len(LAYOUTS[len(shape)])]
        scope = "layer" if isinstance(pattern, NM) else scope
        options = {"pattern": pattern, "scope": scope, "path": f"{index}/kernel"}
        options |= {"sparsity": sparsity, "arrays": arrays or Elsewhere()}
        weight = RankedWeight(values, layout, **options)
        if with_mask:
            earlier = RankedWeight(values, layout, **{**options, "scope": "layer"})
            [(_, mask)] = masks.masks_for([earlier], None)
            weight = RankedWeight(masked(values, mask, seed), layout, mask, **options)
        found.append(weight)
    return found


@settings(max_examples=150, deadline=None)
@given(
    st.lists(WEIGHT, min_size=1, max_size=3), st.sampled_from(PATTERNS),
    st.sampled_from(["layer", "global"]), st.floats(0, 0.85), st.booleans(),
)  # fmt: skip
def test_masks_are_those_of_numpy(given, pattern, scope, sparsity, with_mask):
    made = make(given, pattern, scope, sparsity, with_mask=with_mask)
    harder = None if isinstance(pattern, NM) else min(1.1 * sparsity, 0.85)
    for phase in (None, harder):
        try:
            here = [mask for _, mask in masks.masks_for(made, phase)]
        except ValueError as error:
            with pytest.raises(ValueError) as ours:
                list(device_masks.masks_for(made, phase))
            assert str(ours.value) == str(error)
            continue
        there = [mask for _, mask in device_masks.masks_for(made, phase)]
        assert all(mask.dtype == bool for mask in there)
        assert all(map(np.array_equal, here, there))


def test_all_tensors_are_searched_in_the_same_sixteen_readings_and_ties_in_few():
    arrays = Elsewhere()
    given = [("ties", shape, DTYPES[2], 0) for shape in SHAPES]
    here, there = both(make(given, None, "layer", 0.4, arrays))
    assert all(map(np.array_equal, here, there))
    assert arrays.num_readings == 16 and 0 < arrays.num_ties <= 2 + 4 + 3
    arrays = Elsewhere()
    both(make([("normal", SHAPES[0], DTYPES[2], 0)], None, "layer", 0.4, arrays))
    assert arrays.num_ties == 0


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_numpy_makes_masks_of_what_is_in_this_memory_and_no_other(scope):
    arrays, given = Elsewhere(), [("normal", SHAPES[0], DTYPES[2], 0)] * 2
    made, sizes = make(given, None, scope, 0.5, arrays), []
    below = arrays.num_below
    arrays.num_below = lambda ranked, limits: sizes.append(len(ranked)) or below(ranked, limits)
    arrays.is_on_host = lambda values: values is made[0].tensor()
    found = dict(device_masks.masks_for(made, None))
    # What is ranked together is ranked in one way.
    assert set(sizes) == {1 if scope == "layer" else 2} and set(found) == set(made)
    sizes.clear()
    arrays.is_on_host = lambda values: True
    assert len(list(device_masks.masks_for(made, None))) == 2 and sizes == []


def test_a_pattern_is_ranked_by_itself_in_one_ranking_for_all():
    given = [("normal", SHAPES[0], DTYPES[2], seed) for seed in range(2)]
    made = make(given[:1], None, "global", 0.5) + make(given[1:], Block(2, 2), "global", 0.5)
    here, there = both(made)
    assert all(map(np.array_equal, here, there))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_is_refused(bad, dtype):
    made = make([("normal", SHAPES[0], dtype, 0)] * 2, None, "layer", 0.5)
    made[1].tensor()[2, 3] = bad
    with pytest.raises(ValueError, match="1/kernel with 1 of 72 values NaN or infinite"):
        next(device_masks.masks_for(made, None))


@pytest.mark.parametrize(("of", "to"), list(itertools.product([d.name for d in DTYPES], repeat=2)))
def test_a_limit_is_the_same_in_every_dtype(of, to):
    """Numbers of one dtype that are below a limit are those below it in the other."""
    dtypes = {dtype.name: dtype for dtype in DTYPES}
    random = np.random.default_rng(0)
    top = device_masks.INFINITY
    keys = [0, 1, 2, 3, top[of] // 2, top[of] - 1, top[of], *random.integers(0, top[of], 50)]
    for key in map(int, keys):
        number = device_masks._number(key, of)
        found = device_masks._converted(key, of, to)
        assert device_masks._number(found, to) >= number
        assert found == 0 or device_masks._number(found - 1, to) < number
    values = random.normal(size=50).astype(dtypes[to])
    found = NumPyArrays().magnitudes(values)
    for key, value in zip(found.tolist(), values, strict=True):
        assert device_masks._number(key, to) == abs(float(value))


def test_the_order_of_sums_is_defined():
    """Rows first, then columns, in float32; subnormal terms are zero."""
    column = np.array([1.0, 2.0**-24, 2.0**-24], "float32")
    kernel = np.stack([column, 0 * column], 1)
    layout = LAYOUTS[2][0]
    assert Block(3, 2).scores(kernel, layout).item() == 1.0
    assert Block(3, 2).scores(kernel[::-1], layout).item() == 1.0 + 2.0**-23
    assert Block(2, 3).scores(kernel.T, layout).item() == 1.0
    assert Block(2, 1).scores(np.full((2, 1), 1e-39, "float32"), layout).item() == 0.0
    assert Block(2, 1, "max").scores(np.full((2, 1), 1e-39, "float32"), layout).item() > 0.0
    assert Block(2, 1).scores(np.full((2, 1), 6e4, "float16"), layout).item() > 1.1e5


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_blocks_whose_sums_are_infinite_are_ranked_by_index(scope):
    options = {"pattern": Block(2, 2), "scope": scope, "arrays": Elsewhere()}
    values = np.full((4, 6), 3e38, "float32")
    values[:2, :2] = 1.0
    here, there = both([RankedWeight(values, LAYOUTS[2][0], **options)])
    assert np.array_equal(here[0], there[0])
    assert there[0][::2, ::2].tolist() == [[False, False, False], [True, True, True]]
