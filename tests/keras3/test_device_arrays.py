"""Masks and measurements on a backend's devices: those of NumPy, to the last bit."""

import contextlib
import os

import keras
import numpy as np
import pytest

from keras_dsd.adapters.keras3 import backends
from keras_dsd.algorithm import device_masks
from keras_dsd.algorithm.kernel_layout import Layout
from tests.helpers import device_cases, paths, programs
from tests.helpers.ranked_weight import RankedWeight

BACKEND = keras.backend.backend()
CASES = [
    ("values", "layer", ["float32"], False), ("values", "layer", ["float32"], True),
    ("values", "layer", ["float16", "bfloat16"], True), ("values", "layer", ["float64"], False),
    ("values", "global", ["float32"], False), ("values", "global", ["float16", "float32"], True),
    ("avg", "layer", ["float32"], True), ("avg", "global", ["bfloat16", "float16"], True),
    ("max", "layer", ["bfloat16"], True), ("max", "global", ["float32", "float16"], False),
    ("2:4", "layer", ["float32", "float16"], True), ("avg", "layer", ["float64"], False),
]  # fmt: skip


def put(array):
    if array.dtype.name == "bfloat16":
        return keras.ops.cast(array.astype("float32"), "bfloat16")
    return keras.ops.convert_to_tensor(array, array.dtype.name)


@pytest.fixture(autouse=True)
def _on_devices(monkeypatch):
    """Masks are made as on other devices."""
    arrays = backends.current().arrays
    monkeypatch.setattr(type(arrays), "is_on_host", lambda self, values: False)


@pytest.mark.parametrize(("pattern", "scope", "dtypes", "with_mask"), CASES, ids=str)
def test_masks_are_those_of_numpy(pattern, scope, dtypes, with_mask):
    wide = paths.double_precision() if "float64" in dtypes else contextlib.nullcontext()
    arrays, to_numpy = backends.current().arrays, keras.ops.convert_to_numpy
    with wide:
        device_cases.check(arrays, put, to_numpy, dtypes, pattern, scope, with_mask)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_histograms_are_those_of_numpy(dtype):
    device_cases.check_histograms(backends.current().arrays, put, dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_not_finite_is_counted(dtype):
    values = np.array([[0.0, np.nan, np.inf, -np.inf], [-0.0, 1e-7, -3.0, 4.0]])
    values = values.astype(device_cases.DTYPES[dtype])
    mask = np.array([[True, False, False, True], [False, False, False, True]])
    options = {"arrays": backends.current().arrays, "put": put}
    weight = RankedWeight(values, Layout((), (0,), (1,)), **options)
    alone, under = device_masks.measure([weight, weight], [None, put(mask)])
    assert alone == (2, 0, 0, 3) and under == (1, 5, 2, 3)
    with pytest.raises(ValueError, match="a/kernel with 3 of 8 values NaN or infinite"):
        next(device_masks.masks_for([weight], None))


def test_entries_are_filled_and_masks_are_compared():
    arrays, to_numpy = backends.current().arrays, keras.ops.convert_to_numpy
    values = put(np.arange(6, dtype="float32").reshape(2, 3))
    mask = np.array([[True, False, True], [False, True, True]])
    filled = to_numpy(arrays.fill(values, put(mask), 0.1))
    assert filled.tolist() == np.where(mask, to_numpy(values), np.float32(0.1)).tolist()
    assert arrays.num_different(put(mask), put(~mask)) == 6
    assert arrays.num_different(put(mask), put(mask)) == 0
    assert to_numpy(arrays.all_kept(values)).all()
    assert np.array_equal(to_numpy(arrays.copy(values)), to_numpy(values))


@pytest.mark.only_on("tensorflow")
@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "scope", "dtypes", "with_mask"), CASES, ids=str)
def test_masks_that_xla_makes_as_on_a_gpu_are_those_of_numpy(
    pattern, scope, dtypes, with_mask, monkeypatch
):
    arrays, compiled = backends.current().arrays, []
    monkeypatch.setattr(arrays, "_compiles", lambda devices: compiled.append(devices) or True)
    to_numpy = keras.ops.convert_to_numpy
    device_cases.check(arrays, put, to_numpy, dtypes, pattern, scope, with_mask)
    assert compiled


@pytest.mark.only_on("jax")
@pytest.mark.slow
def test_parts_on_several_devices_make_the_same_masks_in_such_parts():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    printed = programs.run("device_cases_run", XLA_FLAGS=flags)
    assert "12 cases in parts of 4 6" in printed
