"""Several devices, which only a fresh process can set up: MirroredStrategy, keras.distribution."""

import os

import keras
import numpy as np
import pytest

from tests.helpers import programs

WAYS = {"tensorflow": ["fit", "loop"], "jax": ["data_parallel", "model_parallel"]}
BACKEND = keras.backend.backend()

pytestmark = [pytest.mark.only_on(*WAYS), pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All runs: 6 epochs of 5 batches, of which epochs 2 and 3 are sparse."""
    path = tmp_path_factory.mktemp("devices")
    if BACKEND == "tensorflow":
        programs.run("mirrored_run", path)
    else:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
        printed = programs.run("sharded_run", path, XLA_FLAGS=flags)
        assert "one 6 in parts of 64 16" in printed
        assert "data_parallel 6 in parts of 64 16" in printed
        assert "model_parallel 6 in parts of 32 8" in printed
    return path


@pytest.fixture(params=WAYS.get(BACKEND))
def runs(request, folder):
    """One device beside several."""
    return np.load(folder / "one.npz"), np.load(folder / f"{request.param}.npz")


def weights(run):
    return [run[name] for name in run if name.startswith("arr_")]


def test_several_devices_train_as_one_does(runs):
    one, several = runs
    assert len(weights(one)) == 8
    for ours, reference in zip(weights(several), weights(one), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5)
    np.testing.assert_allclose(several["values"][:, 0], one["values"][:, 0], rtol=0, atol=1e-5)


def test_every_device_holds_the_mask_of_the_whole_tensor(runs):
    one, several = runs
    num_copies = 2 if BACKEND == "tensorflow" else 1
    assert several["masks"].shape == (10, num_copies, 64 * 16 + 16 * 12)
    for copy in range(num_copies):
        np.testing.assert_array_equal(several["masks"][:, copy], one["masks"][:, 0])
    assert (~several["masks"][:, 0, : 64 * 16]).sum(axis=1).tolist() == [round(64 * 16 * 0.4)] * 10
    assert (~several["masks"][:, 0, 64 * 16 :]).sum(axis=1).tolist() == [round(16 * 12 * 0.4)] * 10


@pytest.mark.parametrize("way", [way for way in WAYS.get(BACKEND, []) if way != "loop"])
def test_every_device_holds_the_same_random_mask(way, folder):
    one, several = np.load(folder / "one.npy"), np.load(folder / f"{way}.npy")
    assert several.shape == (5, 2 if BACKEND == "tensorflow" else 1, 64 * 16 + 16 * 12)
    assert (several == one).all() and (~one[0, 0]).sum() == round(1024 * 0.4) + round(192 * 0.4)


@pytest.mark.parametrize("way", [way for way in WAYS.get(BACKEND, []) if way != "loop"])
def test_several_devices_sum_gradients_and_average_as_one_does(way, folder):
    one, several = np.load(folder / "ways_one.npz"), np.load(folder / f"ways_{way}.npz")
    assert len(weights(one)) == 8
    for ours, reference in zip(weights(several), weights(one), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5)
    zeros = [np.count_nonzero(each == 0) for each in weights(several)[::6]]
    assert zeros == [410 - 205, 77 - 38]  # of 1,024 and 192 weights, 40% and a half of these


def test_every_device_holds_its_zeros_at_every_batch_end(runs):
    _, several = runs
    np.testing.assert_array_equal(several["values"][10:20] != 0, several["masks"])
    assert np.count_nonzero(several["values"][20:]) > np.count_nonzero(several["masks"])


@pytest.mark.only_on("tensorflow")
def test_several_workers_train_in_a_loop_and_fit_refuses_them(folder, tmp_path):
    for text in programs.Workers(2, "mirrored_run", [tmp_path], tmp_path).outputs():
        assert "refused: Expected a model on one worker: Keras 3's fit does not support" in text
        assert "2 workers. Train a tf_keras model" in text
    one = np.load(folder / "one.npz")
    first, second = (np.load(tmp_path / f"worker_{index}.npz") for index in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    np.testing.assert_array_equal(first["masks"], one["masks"])
    np.testing.assert_array_equal(first["values"][10:20] != 0, first["masks"])
    for ours, reference in zip(weights(first), weights(one), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5)
