"""MultiWorkerMirroredStrategy: processes on this machine that train one model together."""

import json

import numpy as np
import pytest

from tests.helpers import programs
from tests.tf_keras.test_strategies import (
    OPERATIONS_OF_A_MASK,
    OPERATIONS_OF_THE_FACTOR,
    check_ways,
    differing,
)

pytestmark = pytest.mark.slow


def weights(run):
    return [run[name] for name in run if name.startswith("arr_")]


@pytest.mark.parametrize("number", [2, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_workers_train_as_one_device_does(number, strategy_runs, tmp_path):
    one = np.load(strategy_runs / "one.npz")
    for index in range(number):
        (tmp_path / str(index)).mkdir()
    arguments = [tmp_path / "{}", "multi_worker"]
    programs.Workers(number, "distributed_run", arguments, tmp_path).outputs()
    runs = [np.load(tmp_path / str(index) / "multi_worker.npz") for index in range(number)]
    for run in runs:
        assert len(weights(run)) == 6
        for ours, reference in zip(weights(run), weights(one), strict=True):
            np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5)
        for ours, first in zip(weights(run), weights(runs[0]), strict=True):
            np.testing.assert_array_equal(ours, first)
        np.testing.assert_array_equal(run["masks"], one["masks"])
        np.testing.assert_array_equal(run["values"][10:20] == 0, one["masks"][10:20] == 0)
        np.testing.assert_array_equal(run["random_masks"], one["random_masks"])
        check_ways(one, run)
        assert "other masks in one of the processes" in str(run["refused"])
        assert str(one["refused"]) == ""
        np.testing.assert_array_equal(run["loop_masks"], one["loop_masks"])
        np.testing.assert_array_equal(run["loop_values"][5:10] == 0, one["loop_masks"][5:10] == 0)
        np.testing.assert_allclose(run["loop_values"], one["loop_values"], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(run["steps_masks"], one["steps_masks"])
        np.testing.assert_array_equal(run["steps_made"], one["steps_made"])
        np.testing.assert_allclose(run["steps_values"], one["steps_values"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(run["exported"], run["predicted"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(run["statistics"], one["statistics"], rtol=1e-5, atol=1e-6)
    assert [len([*(tmp_path / str(i)).glob("logs/dsd/*")]) for i in (0, 1)] == [1, 0]
    counts = json.loads((tmp_path / "1" / "multi_worker.json").read_text())
    assert counts["3"]["CollectiveReduceV2"] == counts["plain"]["CollectiveReduceV2"] > 0
    assert differing(counts["0"], counts["plain"]) == OPERATIONS_OF_THE_FACTOR
    assert differing(counts["3"], counts["0"]) == OPERATIONS_OF_A_MASK


def test_a_run_resumes_after_a_worker_is_killed_in_the_sparse_phase(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()

    def start(name, last):
        return programs.Workers(2, "backup_run", [tmp_path / name, "{}", last], tmp_path / name)

    start("whole", -1).outputs()
    start("killed", 3).wait_for_a_kill(1)
    assert not list((tmp_path / "killed").glob("*.npz"))
    for text in start("killed", -1).outputs():
        assert "epoch 3\n" in text and "epoch 2\n" not in text
    whole = [np.load(tmp_path / "whole" / f"{index}.npz") for index in range(2)]
    resumed = [np.load(tmp_path / "killed" / f"{index}.npz") for index in range(2)]
    for run in resumed:
        np.testing.assert_array_equal(run["masks"], whole[0]["masks"][15:])
        np.testing.assert_array_equal(run["values"], whole[0]["values"][15:])
        for ours, uninterrupted in zip(weights(run), weights(whole[1]), strict=True):
            np.testing.assert_array_equal(ours, uninterrupted)


def test_phases_with_until_end_in_the_same_epoch_on_all_workers(tmp_path):
    programs.Workers(2, "until_run", [tmp_path, "{}"], tmp_path).outputs()
    first, second = (json.loads((tmp_path / f"{index}.json").read_text()) for index in range(2))
    assert first == second
    phases = first["dsd_phase"]
    assert set(phases) == {0, 1, 2}
    assert phases.count(0) < 6 or phases.count(1) < 6
    for ours, others in zip(
        *(weights(np.load(tmp_path / f"{i}.npz")) for i in (0, 1)), strict=True
    ):
        np.testing.assert_array_equal(ours, others)
    assert (tmp_path / "backup" / "dsd_history.json").exists()
