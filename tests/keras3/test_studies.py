"""The studies in benchmarks/studies: what they train, keep and compare."""

import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_dsd.analysis.comparison.arms import DSD, FIRST
from keras_dsd.analysis.comparison.result import Run

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "studies"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "TASKS = [" in path.read_text())
NEEDS = {"speech": ("soundfile", "jiwer")}

pytestmark = pytest.mark.only_on("tensorflow")


@pytest.fixture(scope="module")
def study():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(FOLDER), str(FOLDER.parent), *sys.path])
        yield importlib.import_module("study")


def module(name):
    for needed in NEEDS.get(name, ()):
        pytest.importorskip(needed, reason="make recipes")
    # examples/ has modules of these names too.
    spec = importlib.util.spec_from_file_location(f"study_of_{name}", FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def rates(phases):
    return [phase.lr for phase in phases for _ in range(phase.epochs)]


@pytest.mark.parametrize("name", NAMES)
def test_all_arms_of_a_task_train_alike(study, name):
    tasks = module(name).TASKS
    assert len({task.name for task in tasks}) == len(tasks)
    for task in tasks:
        dense, sparse, redense = task.phases
        arms = dataclasses.replace(task, only=()).arms
        assert set(task.arms) <= set(arms)
        kinds = [f"{kind} {each:g}" for kind in ("sparse", "DSD") for each in task.sparsities]
        assert {"dense", "llr", "llr at once", *kinds, *task.variants} <= set(arms)
        expected = dict.fromkeys(
            arms,
            [1.0] * dense + [task.sparse_lr] * sparse + [task.redense_lr] * redense,
        )
        expected["dense"] = [1.0] * sum(task.phases)
        expected["llr at once"] = [1.0] * dense + [task.redense_lr] * (sparse + redense)
        assert {arm: rates(phases) for arm, phases in arms.items()} == expected


def one_layer():
    model = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(),
                              keras.layers.Dense(10)])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)  # nothing to trace
    return model


class Counted:
    """A measure of a model of one layer, and how often it was asked for."""

    def __init__(self):
        self.number = 0

    def __call__(self, model, part):
        self.number += 1
        x, y = part
        weights, bias = model.get_weights()
        return float(np.mean((x.reshape(len(x), -1) @ weights + bias).argmax(axis=1) != y))


@pytest.fixture
def task(study, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    x, y = digits
    parts = {"train": slice(160), "validation": slice(160, 240), "test": slice(240, 320)}
    data = {name: (x[place], y[place]) for name, place in parts.items()}
    return study.Task("toy", "a toy", one_layer, lambda: data, Counted(), "error", (1, 1, 1),
                      sparsities=(0.5,), batch_size=80)  # fmt: skip


def test_a_study_is_kept_and_goes_on_with_more_seeds(study, task, tmp_path):
    task = dataclasses.replace(task, only=(arms := ("llr", "DSD 0.5")))
    found, path, evaluate = study.run(task, range(1), 1), tmp_path / "toy.json", task.evaluate
    kept = json.loads(path.read_text())
    assert [(run["seed"], run["arm"], run["num_updates"]) for run in kept["runs"]] == [
        (0, arm, 2 if arm == FIRST else 6) for arm in (FIRST, *arms)
    ]
    assert kept["identity"]["words"] == "a toy"
    evaluate.number = 0
    assert study.run(task, range(1), 1) == found and evaluate.number == 0
    more = study.run(task, range(2), 1)["DSD 0.5"]
    assert evaluate.number >= 1 + 2 * len(arms)  # epochs of the second seed
    after = json.loads(path.read_text())["runs"]
    assert after[: len(kept["runs"])] == kept["runs"] and len(after) == 2 * len(kept["runs"])
    assert [run.seed for run in more.runs if run.arm == "llr"] == [0, 1]
    assert study.run(task, range(1), 1) == found  # of the seeds that are asked for
    with pytest.raises(ValueError, match="the same words"):
        study.run(dataclasses.replace(task, words="another"), range(1), 1)


def run_of(seed, arm, value):
    return Run(seed, arm, (value, value), 0, value, value, 6, "s")


def test_every_variant_is_compared_with_every_control(study, task):
    values = {FIRST: 0.5, "dense": 0.3, "llr": 0.4, "llr at once": 0.4, "sparse 0.5": 0.2,
              "DSD 0.5": 0.1, "AC/DC 0.5": 0.6}  # fmt: skip
    runs = [run_of(seed, arm, value + seed / 100 + seed * value / 50)
            for arm, value in values.items() for seed in (0, 1, 2)]  # fmt: skip
    identity = {"variants": list(task.variants), "arms": dict.fromkeys(task.arms, "in words"),
                "metric": "error", "mode": "min"}  # fmt: skip
    found = study.of_each_variant(identity, runs)
    controls = {FIRST, "dense", "llr", "llr at once", "sparse 0.5"}
    assert list(found) == list(task.variants) == ["DSD 0.5", "AC/DC 0.5"]
    for variant, each in found.items():
        assert {run.arm for run in each.runs} == {*controls, DSD}
        assert each.tests(DSD) == [run.test_best for run in runs if run.arm == variant]
        assert each.gain().control == "sparse 0.5"
        assert set(each.arms) == {*controls, DSD} - {FIRST}
    assert "better" in found["DSD 0.5"].verdict and "worse" in found["AC/DC 0.5"].verdict


def test_an_arm_with_fewer_updates_is_refused_when_trained_and_when_read(
    study, task, tmp_path, monkeypatch
):
    task = dataclasses.replace(task, only=("dense", "llr", "sparse 0.5", "DSD 0.5"))
    given = {"dense": 6, "llr": 6, "sparse 0.5": 6, "DSD 0.5": 5}

    def train_seed(job, seed, finished, tell):
        for arm in job.arms:
            yield dataclasses.replace(run_of(seed, arm, 0.1 + seed), num_updates=given[arm])

    monkeypatch.setattr(study.comparison_run, "train_seed", train_seed)
    message = "6 in arm 'dense' of seed 0, but 5 in arm 'DSD 0.5' of seed 0"
    with pytest.raises(ValueError, match=message):
        study.run(task, range(2), 1)
    path = tmp_path / "toy.json"
    kept = json.loads(path.read_text())
    assert [run["arm"] for run in kept["runs"]] == ["dense", "llr", "sparse 0.5"]
    kept["runs"][2]["num_updates"] = 7
    path.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match="6 in arm 'dense' of seed 0, but 7 in arm 'sparse 0.5'"):
        study.run(task, range(2), 1)


PROGRAM = """
import dataclasses, pathlib, sys
sys.path.insert(0, {folder!r})
import digits, study
if __name__ == "__main__":
    study.RESULTS = pathlib.Path({results!r})
    task = dataclasses.replace(digits.TASKS[0], phases=(1, 1, 1), sparsities=(0.5,), sparse_lr=0.5)
    study.main([task])
"""


@pytest.mark.slow
def test_the_program_trains_seeds_at_a_time_and_prints_what_came_of_it(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(folder=str(FOLDER), results=str(tmp_path)))
    done = subprocess.run(
        [sys.executable, program, "--seeds=2", "--parallel=2", "--only=digits"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    headings = [line for line in done.stdout.splitlines() if line.startswith("====")]
    assert headings == ["==== digits: DSD 0.5"]
    assert len(json.loads((tmp_path / "digits.json").read_text())["runs"]) == 2 * 6
