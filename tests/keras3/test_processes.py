"""JAX in two processes: with copies of the weights in each, or kernels cut into parts."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import types

import numpy as np
import pytest

from keras_dsd.algorithm import masks
from tests.helpers import programs

pytestmark = [pytest.mark.only_on("jax"), pytest.mark.slow]
SHAPES = [(64, 16), (16, 10)]
# See processes_run: copies, and kernels cut into parts within processes and across them.
LAYOUTS, OTHERS = ["data", "within", "both"], ["four", "across"]
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "distributed"
TIMEOUT = 900


def run(folder, *scenarios):
    """Runs scenarios, and returns the exit statuses of each one's processes by name."""
    given = [str(folder), *map(json.dumps, scenarios)]
    done = subprocess.run(
        [*programs.command("processes_run"), *given], env=os.environ,
        cwd=programs.ROOT, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    names = [each["name"] for each in scenarios]
    exits = [tuple(line[1:]) for line in lines if line and line[0] in names]
    assert len(exits) == len(names), done.stderr[-3000:]
    return exits, done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of every layout: in one process with four devices, and in two with two each."""
    return train(tmp_path_factory.mktemp("processes"), LAYOUTS)


def train(folder, layouts):
    one = {"name": "one", "layouts": layouts}
    exits, done = run(folder, one, {"name": "two", "layouts": layouts, "number": 2})
    assert exits == [("0",), ("0", "0")], done.stderr[-3000:]
    return folder


def results(folder, name, layout, index=0):
    with np.load(folder / f"{name}_{layout}_{index}.npz") as file:
        return {key: file[key] for key in file.files}


def check_alike(folder, layout, tolerance=0.0):
    """Two processes see what one does: weights, masks, sparsity, report, histograms."""
    one = results(folder, "one", layout)
    for index in range(2):
        two = results(folder, "two", layout, index)
        assert set(two) == set(one) and len(two) == 9
        for name, value in one.items():
            if tolerance and value.dtype.kind == "f":
                np.testing.assert_allclose(two[name], value, rtol=0, atol=tolerance)
            else:
                np.testing.assert_array_equal(two[name], value)
    assert len(list((folder / f"two_{layout}_logs" / "dsd").iterdir())) == 1  # one writes
    return one


def mask_of(values):
    """Returns the masks of both kernels, by NumPy, from their values one after the other."""
    kernels = np.split(values, [64 * 16])
    weights = [types.SimpleNamespace(pattern=None, sparsity=0.4, shape=shape) for shape in SHAPES]
    made = [
        masks.mask_of(kernel.reshape(weight.shape), weight, None)
        for kernel, weight in zip(kernels, weights, strict=True)
    ]
    return np.concatenate([mask.ravel() for mask in made])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_train_as_one_to_the_bit(layout, folder):
    one = check_alike(folder, layout)
    values, active = one["values"], one["masks"]
    assert np.array_equal(active, np.tile(mask_of(values[9]), (10, 1)))
    assert np.array_equal(values[10:20] != 0, active)
    assert np.count_nonzero(values[20]) > np.count_nonzero(active[0])
    assert one["sparsity"].tolist()[2:4] == [(~active[0]).mean()] * 2
    # The sparse phase ended with the weights of its first epoch, from which the next one trained.
    # One step of Adam at a tenth of its rate moves none by more than about that.
    assert np.abs(values[20] - values[14]).max() < 3e-4 < np.abs(values[20] - values[19]).max()


@pytest.mark.exhaustive
def test_sums_over_three_devices_and_more_may_be_in_another_order(tmp_path):
    train(tmp_path, OTHERS)
    check_alike(tmp_path, "across")
    check_alike(tmp_path, "four", 1e-6)


IN_SPARSE, AFTER_IT = [3, 2], [4, 2]  # epoch and batch


@pytest.mark.parametrize("kills", [
    [AFTER_IT],  # so that it resumes with the best weights, from files of parts
    pytest.param([IN_SPARSE, AFTER_IT], marks=pytest.mark.exhaustive),
])  # fmt: skip
def test_a_run_resumes_after_a_process_was_killed(kills, folder, tmp_path):
    pytest.importorskip("orbax.checkpoint")
    orbax = {"name": "orbax", "layouts": ["both"], "number": 2, "save": "orbax"}
    backup = {"name": "backup", "layouts": ["data"], "number": 2, "save": "backup"}
    killed = [{**orbax, "kill": kill} for kill in kills]
    exits, done = run(tmp_path, *killed, orbax, {**backup, "kill": IN_SPARSE}, backup)
    is_killed, is_over = ("ended", "-9"), ("0", "0")
    assert exits == [*[is_killed] * len(kills), is_over, is_killed, is_over], done.stderr[-3000:]
    for name, layout in (("orbax", "both"), ("backup", "data")):
        whole = results(folder, "two", layout)
        for index in range(2):
            again = results(tmp_path, name, layout, index)
            assert set(again) == {f"arr_{i}" for i in range(4)}
            for key, value in again.items():
                np.testing.assert_array_equal(value, whole[key])
    parts = [path.name for path in (tmp_path / "orbax_both_dsd").glob("*.npz")]
    assert sorted(parts) == [f"dsd_best_000002_process_{i}_of_2.npz" for i in range(2)]


@pytest.mark.parametrize("resumes", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_the_example_trains_alike_in_all_processes(resumes, tmp_path):
    pytest.importorskip("orbax.checkpoint")
    arguments = [
        EXAMPLES / "launch_local.py", f"--program={EXAMPLES / 'jax_processes.py'}", "--workers=2",
        "--", "--layout=model", "--phases=1,1,1", f"--checkpoint_dir={tmp_path / 'checkpoints'}",
        f"--tensorboard_dir={tmp_path / 'logs'}",
    ]  # fmt: skip
    printed = launched(*arguments)
    lines, others = (re.findall(rf"^\[{i}\] (.*[:;].*)$", printed, re.M) for i in range(2))
    kept = [line for line in lines if line.startswith(("2 proc", "phase", "mask"))]
    assert kept == [line for line in others if line.startswith(("2 proc", "phase", "mask"))]
    assert kept[0] == "2 processes, 2 devices; first kernel in parts of 64 x 32"
    assert "phase 1 ended with epoch 2: sparsity 50.00%, test accuracy" in kept[2]
    assert [line.partition(":")[0] for line in kept[4:]] == [
        f"mask of digits/{name}/kernel" for name in ("dense", "dense_1", "dense_2")
    ]
    assert len(list((tmp_path / "logs" / "dsd").iterdir())) == 1
    if not resumes:
        return
    shutil.rmtree(tmp_path / "checkpoints" / "2")  # as if killed in the last phase
    again = launched(*arguments)
    assert kept[3] in again and "phase 1 ended" not in again


def launched(*command):
    """Returns what the example printed."""
    code, printed = programs.launched(command, TIMEOUT)
    assert code == 0, printed[-3000:]
    return printed
