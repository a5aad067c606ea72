"""JAX in two processes, with every kernel cut into parts that are in both."""

import os
import types

import numpy as np
import pytest

from keras_dsd.algorithm import masks
from tests.helpers import programs

pytestmark = [pytest.mark.only_on("jax"), pytest.mark.slow]
SHAPES = [(64, 16), (16, 10)]


def mask_of(values):
    """Returns the masks of both kernels, by NumPy, from their values one after the other."""
    kernels = np.split(values, [64 * 16])
    weights = [types.SimpleNamespace(pattern=None, sparsity=0.4, shape=shape) for shape in SHAPES]
    made = [
        masks.mask_of(kernel.reshape(weight.shape), weight, None)
        for kernel, weight in zip(kernels, weights, strict=True)
    ]
    return np.concatenate([mask.ravel() for mask in made])


def test_two_processes_train_as_one_with_two_devices(tmp_path):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count="
    programs.run("processes_run", tmp_path / "one.npz", XLA_FLAGS=f"{flags}2")
    given = [tmp_path / "two_{}.npz", programs.address(), 2, "{}"]
    programs.Workers(2, "processes_run", given, tmp_path).outputs()
    one, *both = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two_0", "two_1"))
    for two in both:
        assert set(two) == set(one) and len(two) == 7
        for name in one:
            np.testing.assert_array_equal(two[name], one[name])
    values, active = one["values"], one["masks"]
    assert np.array_equal(active, np.tile(mask_of(values[9]), (10, 1)))
    assert np.array_equal(values[10:20] != 0, active)
    assert np.count_nonzero(values[20]) > np.count_nonzero(active[0])
    assert one["sparsity"].tolist()[2:4] == [(~active[0]).mean()] * 2
