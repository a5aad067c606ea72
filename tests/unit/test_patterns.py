"""Blocks and N:M groups against brute force, block by block and group by group."""

import itertools
import types

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_dsd.adapters.base.layers import layout_of
from keras_dsd.algorithm import masks, selection
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM, Block, from_config, num_covered, to_config
from keras_dsd.algorithm.selection import Selection

ELEMENTS = st.one_of(st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0]), st.floats(-4, 4, width=16))
KERNELS = hnp.arrays(
    st.sampled_from([np.float16, np.float32, np.float64]),
    hnp.array_shapes(min_dims=2, max_dims=4, max_side=11), elements=ELEMENTS,
)  # fmt: skip
LAYOUTS = st.integers(0, 2)
BLOCKS = st.builds(Block, st.integers(1, 4), st.integers(1, 4), st.sampled_from(["avg", "max"]))
NMS = st.integers(1, 4).flatmap(lambda n: st.builds(NM, st.just(n), st.integers(n + 1, 10)))


def some_layout(rank, which):
    axes = tuple(range(rank))
    convolution = Layout(axes[:-2], axes[-2:-1], axes[-1:])
    transposed = Layout(axes[:-2], axes[-1:], axes[-2:-1])
    attention = Layout((), axes[:-1], axes[-1:])
    return [convolution, transposed, attention][which]


def weight(kernel, layout, pattern=None, sparsity=0.5, scope="layer"):
    return types.SimpleNamespace(
        path="w", shape=kernel.shape, layout=layout, pattern=pattern, sparsity=sparsity,
        scope=scope, mask=None, numpy=lambda: kernel,
    )  # fmt: skip


def mask_of(kernel, layout, pattern, sparsity=0.5):
    return masks.mask_of(kernel, weight(kernel, layout, pattern, sparsity), None)


@settings(max_examples=150, deadline=None)
@given(KERNELS, LAYOUTS)
def test_matrices_go_there_and_back(kernel, which):
    layout = some_layout(kernel.ndim, which)
    matrices = layout.matrices(kernel)
    assert matrices.shape == layout.sizes(kernel.shape)
    assert np.array_equal(layout.kernel(matrices, kernel.shape), kernel)


@settings(max_examples=150, deadline=None)
@given(KERNELS, LAYOUTS, BLOCKS, st.floats(0, 1, exclude_max=True))
def test_blocks_equal_brute_force(kernel, which, block, sparsity):
    layout = some_layout(kernel.ndim, which)
    if not block.num_covered(kernel.shape, layout):
        return
    matrices = layout.matrices(kernel)
    batch, inputs, outputs = matrices.shape
    corners = list(itertools.product(
        range(batch), range(0, inputs - block.height + 1, block.height),
        range(0, outputs - block.width + 1, block.width),
    ))  # fmt: skip
    inside = [np.abs(matrices[b, i : i + block.height, j : j + block.width]) for b, i, j in corners]
    scores = block.scores(kernel, layout).ravel()
    pool = np.max if block.pooling == "max" else np.sum
    np.testing.assert_allclose(scores, [pool(each, dtype=float) if pool is np.sum else pool(each)
                                        for each in inside], rtol=1e-3)  # fmt: skip
    order = np.argsort(scores, kind="stable")
    expected = np.ones(matrices.shape, bool)
    for index in order[: round(len(corners) * sparsity)]:
        b, i, j = corners[index]
        expected[b, i : i + block.height, j : j + block.width] = False
    mask = mask_of(kernel, layout, block, sparsity)
    assert mask.shape == kernel.shape and mask.dtype == bool
    assert np.array_equal(layout.matrices(mask), expected)
    assert np.array_equal(mask_of(kernel * mask, layout, block, sparsity), mask)


@settings(max_examples=150, deadline=None)
@given(KERNELS, LAYOUTS, NMS)
def test_groups_equal_brute_force(kernel, which, pattern):
    layout = some_layout(kernel.ndim, which)
    matrices = layout.matrices(kernel)
    batch, inputs, outputs = matrices.shape
    expected = np.ones(matrices.shape, bool)
    for b, j in itertools.product(range(batch), range(outputs)):
        for i in range(0, inputs - pattern.m + 1, pattern.m):
            order = np.argsort(np.abs(matrices[b, i : i + pattern.m, j]), kind="stable")
            expected[b, i + order[: pattern.m - pattern.n], j] = False
    mask = mask_of(kernel, layout, pattern)
    assert mask.shape == kernel.shape and mask.dtype == bool
    assert np.array_equal(layout.matrices(mask), expected)
    assert np.array_equal(mask_of(kernel * mask, layout, pattern), mask)
    num_pruned = pattern.num_covered(kernel.shape, layout) // pattern.m * (pattern.m - pattern.n)
    assert np.count_nonzero(~mask) == num_pruned


@pytest.mark.parametrize("pattern", [Block(3, 5), Block(1, 7, "max"), NM(2, 4), NM(3, 5)], ids=str)
def test_parts_do_not_matter(pattern, monkeypatch):
    kernel = np.random.default_rng(0).normal(size=(3, 50, 41)).astype("float32")
    layout = some_layout(3, 0)
    whole = mask_of(kernel, layout, pattern)
    monkeypatch.setattr("keras_dsd.algorithm.patterns._PART", 500)
    assert np.array_equal(mask_of(kernel, layout, pattern), whole)


@pytest.mark.parametrize("pattern", [Block(2, 2), NM(2, 4), None], ids=str)
def test_bfloat16_is_ranked_as_float32(pattern):
    kernel = np.random.default_rng(0).normal(size=(8, 9)).astype(ml_dtypes.bfloat16)
    layout = some_layout(2, 0)
    in_float32 = mask_of(kernel.astype(np.float32), layout, pattern)
    assert np.array_equal(mask_of(kernel, layout, pattern), in_float32)


def test_blocks_are_ranked_over_all_weights():
    small, large = np.full((4, 4), 0.1), np.arange(1.0, 17.0).reshape(4, 4)
    layout = some_layout(2, 0)
    both = [weight(each, layout, Block(2, 2), 0.5, "global") for each in (small, large)]
    made = [mask for _, mask in masks.masks_for(both, None)]
    assert [np.count_nonzero(~mask) for mask in made] == [12, 4]  # one block stays in each


def test_nothing_is_yielded_where_a_weight_is_not_finite():
    layout = some_layout(2, 0)
    weights = [weight(np.ones((2, 2)), layout), weight(np.full((2, 2), np.nan), layout)]
    with pytest.raises(ValueError, match="w with 4 of 4 values NaN"):
        next(masks.masks_for(weights, None))


class Dense: ...


class EinsumDense:
    def __init__(self, equation):
        self.equation = equation


class Conv2DTranspose: ...


class Conv2DTransposeOfMine(Conv2DTranspose): ...


# A Keras, as far as layouts depend on it.
LAYERS = types.SimpleNamespace(
    EinsumDense=EinsumDense, Conv1DTranspose=type("Conv1DTranspose", (), {}),
    Conv2DTranspose=Conv2DTranspose, Conv3DTranspose=type("Conv3DTranspose", (), {}),
)  # fmt: skip


def users(name):
    """A layer of the user's, whose name and attributes mean something else."""
    return type(name, (), {"equation": "ab,ba->ab", "depth_multiplier": "x", "rank": "high"})()


@pytest.mark.parametrize(("layer", "rank", "expected"), [
    (Dense(), 2, ((), (0,), (1,))),
    (Dense(), 4, ((0, 1), (2,), (3,))),
    (Conv2DTranspose(), 4, ((0, 1), (3,), (2,))),
    (Conv2DTransposeOfMine(), 4, ((0, 1), (3,), (2,))),
    (Conv2DTransposeOfMine(), 2, ((), (0,), (1,))),
    (users("Conv2DTranspose"), 4, ((0, 1), (2,), (3,))),
    (EinsumDense("ab,bc->ac"), 2, ((), (0,), (1,))),
    (EinsumDense("ab,bc->ac"), 3, ((0,), (1,), (2,))),
    (EinsumDense(None), 2, ((), (0,), (1,))),
    (EinsumDense("y = x"), 2, ((), (0,), (1,))),
    (users("EinsumDense"), 2, ((), (0,), (1,))),
    (users("Physics"), 2, ((), (0,), (1,))),
    (EinsumDense("abc,cde->abde"), 3, ((), (0,), (1, 2))),
    (EinsumDense("abcd,cde->abe"), 3, ((), (0, 1), (2,))),
    (EinsumDense("...x,xy->...y"), 2, ((), (0,), (1,))),
    (EinsumDense("ab,ba->ab"), 2, ((0, 1), (), ())),
    (EinsumDense("bte,eto->bto"), 3, ((1,), (0,), (2,))),
])  # fmt: skip
def test_layouts(layer, rank, expected):
    assert layout_of(layer, rank, LAYERS) == expected


def test_what_no_pattern_covers_stays_dense_with_the_reason():
    layout = some_layout(2, 0)
    tiny, fits = weight(np.ones((3, 8)), layout), weight(np.ones((4, 8)), layout)
    for pattern in (NM(2, 4), Block(4, 1)):
        chosen = Selection(pattern=pattern)
        assert chosen.choose(tiny) == (0.0, selection.TOO_SMALL)
        assert chosen.choose(fits)[1] is None
    assert Selection(pattern=NM(1, 4)).choose(fits) == (0.75, None)


def test_the_edge_is_counted():
    layout = some_layout(2, 0)
    assert num_covered((10, 7), NM(2, 4), layout) == 56
    assert num_covered((10, 7), Block(3, 2), layout) == 54
    assert num_covered((10, 7), None, layout) == 70


@pytest.mark.parametrize("pattern", [None, Block(2, 3, "max"), NM(2, 4)], ids=str)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_config_round_trip(pattern, scope):
    assert from_config(to_config(pattern)) == pattern
    if scope == "layer" or not isinstance(pattern, NM):
        again = Selection.from_config(Selection(pattern=pattern, scope=scope).get_config())
        assert (again.pattern, again.scope) == (pattern, scope)


@pytest.mark.parametrize(("make", "error", "said"), [
    (lambda: Block(0, 1), ValueError, r"`height` to be at least 1 \(inputs\).*height=0"),
    (lambda: Block(1, 2.0), TypeError, "`width` to be a whole number.*width=2.0"),
    (lambda: Block(1, 1, "AVG"), ValueError, "'avg' or 'max'.*pooling='AVG'"),
    (lambda: NM(4, 4), ValueError, "`m` to be at least 5.*m=4"),
    (lambda: NM(0, 4), ValueError, "`n` to be at least 1"),
    (lambda: NM(True, 4), TypeError, "`n` to be a whole number"),
    (lambda: Selection(pattern="2:4"), TypeError, r"Block\(height, width\) or NM.*pattern='2:4'"),
    (lambda: Selection(scope="all"), ValueError, "'layer'.*'global'.*scope='all'"),
    (lambda: Selection(0.3, pattern=NM(2, 4)), ValueError, "`sparsity` to be left out.*at 0.5"),
    (lambda: Selection({"a": 0.3}, pattern=NM(2, 4)), ValueError, "`sparsity` to be left out"),
    (lambda: Selection(pattern=NM(2, 4), scope="global"), ValueError, "`scope` to be 'layer'"),
])  # fmt: skip
def test_errors(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_a_phase_can_not_change_what_a_pattern_fixes():
    weights = [weight(np.ones((4, 4)), some_layout(2, 0), NM(2, 4))]
    with pytest.raises(ValueError, match="SparsePhase without `sparsity`.*2:4.*fixes it at 0.5"):
        masks.check_phase(weights, 0.3)
    masks.check_phase(weights, None)
