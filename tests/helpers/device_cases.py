"""Masks on a backend's devices against NumPy's: for a test, and for programs on several devices."""

import ml_dtypes
import numpy as np

from keras_dsd.algorithm import device_masks, masks
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM, Block
from keras_dsd.visualization.histogram import histogram_of
from tests.helpers.ranked_weight import KINDS, RankedWeight, masked, values_of

DTYPES = {
    each.name: each for each in map(np.dtype, ("float16", ml_dtypes.bfloat16, "float32", "float64"))
}
PATTERNS = {
    "values": None, "avg": Block(3, 2), "max": Block(2, 3, "max"), "2:4": NM(2, 4),
}  # fmt: skip
DENSE, CONVOLUTION = ((8, 12), Layout((), (0,), (1,))), ((2, 3, 8, 4), Layout((0, 1), (3,), (2,)))


def weights(kind, seed, pattern, scope, dtypes, options, with_mask):
    """Returns two weights, on devices as `options` have it."""
    found = []
    for index, (shape, layout) in enumerate((DENSE, CONVOLUTION)):
        values = values_of(kind, shape, dtypes[index % len(dtypes)], seed + index)
        given = {"pattern": pattern, "scope": scope, "sparsity": 0.4, **options}
        mask = None
        if with_mask:
            alone = RankedWeight(values, layout, pattern=pattern, sparsity=0.3)
            [(_, mask)] = masks.masks_for([alone], None)
            values = masked(values, mask, seed)
        found.append(RankedWeight(values, layout, mask, **given))
    return found


def check(arrays, put, to_numpy, dtypes, pattern, scope, with_mask):
    """Compares masks of all kinds of values; shapes are the same, so programs are compiled once.

    Args:
        arrays: Operations of the backend.
        put: Returns a NumPy array as a tensor.
        to_numpy: The inverse.
        dtypes: Names of the weights' dtypes, in turn.
        pattern: The name of one.
        scope: `"layer"` or `"global"`.
        with_mask: Whether masks are active.
    """
    kinds = [DTYPES[name] for name in dtypes]
    options = {"arrays": arrays, "put": put}
    for seed, kind in enumerate(KINDS):
        made = weights(kind, seed, PATTERNS[pattern], scope, kinds, options, with_mask)
        here = [mask for _, mask in masks.masks_for(made, None)]
        for (weight, mask), expected in zip(device_masks.masks_for(made, None), here, strict=True):
            assert np.array_equal(to_numpy(mask), expected), (kind, seed, weight.shape)
            assert is_alike(mask, weight.tensor()), (kind, seed, weight.shape)
        check_measured(made, here, put)


def check_measured(made, given, put):
    """Compares measurements, under the given masks and without, and what is filled."""
    found = device_masks.measure(made, [put(mask) for mask in given])
    alone = device_masks.measure(made, [None] * len(made))
    for weight, mask, under, without in zip(made, given, found, alone, strict=True):
        values = weight.numpy().astype(float)
        assert without == (np.sum(values == 0), 0, 0, 0)
        pruned = values[~mask]
        assert under == (np.sum(pruned == 0), pruned.size, np.sum(pruned != 0), 0)


def check_histograms(arrays, put, dtype):
    """Compares histograms and thresholds, of what a mask keeps, of what it prunes, and of all."""
    shape, layout = DENSE
    for seed, kind in enumerate(KINDS):
        values = values_of(kind, shape, DTYPES[dtype], seed)
        mask = np.random.default_rng(seed).random(shape) < 0.6
        weight, here = (
            RankedWeight(values, layout, mask, **options)
            for options in ({"arrays": arrays, "put": put}, {})
        )
        [threshold] = device_masks.thresholds([weight])
        assert threshold == next(device_masks.thresholds([here]))
        assert threshold == np.abs(values[mask]).min()
        for given, is_kept in ((None, True), (mask, True), (mask, False)):
            found = histogram_of(
                weight, None if given is None else put(given), is_kept, threshold=threshold
            )
            assert found == histogram_of(here, given, is_kept, threshold=threshold), (kind, is_kept)


def is_alike(mask, values):
    """Returns whether a mask is in such parts as the values; where nothing says so, it is."""
    if not hasattr(values, "sharding"):
        return True
    return values.sharding.is_equivalent_to(mask.sharding, values.ndim)
