"""Shared parts of the recipes, on a small one: arms, resuming, devices, files, errors."""

import importlib
import json
import re
import shutil
import signal

import numpy as np
import pytest

from tests.helpers import toy_recipe
from tests.helpers.paths import PATH, keras
from tests.helpers.programs_of_recipes import result_of, run, start, table_of

TOY = toy_recipe.__file__
pytestmark = pytest.mark.slow

PHASES = [
    "--data=digits",
    "--deterministic",
    "--dense=2",
    "--sparse=2",
    "--redense=2@0.1",
    "--verbose=0",
]


# tf_keras keeps no state of what dropout draws.
DROPOUT = {"DROPOUT": "0" if PATH == "tf_keras" else "0.2"}


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """The folder of a run of each arm, and what each printed."""
    folder = tmp_path_factory.mktemp("arms")
    said = {
        arm: run(TOY, folder, *PHASES, f"--arm={arm}", **DROPOUT) for arm in ("dsd", "llr", "dense")
    }
    return folder, said


def weights_in(folder, arm="dsd"):
    return keras.models.load_model(folder / "seed-0" / arm / "model.keras").get_weights()


def test_each_part_is_on_record(arms):
    parts = result_of(arms[0])["parts"]
    assert {name: part["epoch"] for name, part in parts.items()} == {
        "dense": 2, "sparse": 4, "re-dense": 6
    }  # fmt: skip
    assert parts["dense"]["sparsity"] == 0
    assert parts["sparse"]["sparsity"] == round(64 * 16 * 0.3) / (64 * 16)
    assert parts["re-dense"]["sparsity"] < 0.2
    assert all(part["seconds_a_step"] > 0 for part in parts.values())
    assert result_of(arms[0])["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert result_of(arms[0])["to_prune"] == 64 * 16
    assert result_of(arms[0])["is_complete"]


def test_the_arms_part_where_they_should(arms):
    found = {arm: result_of(arms[0], arm)["parts"] for arm in ("dsd", "llr", "dense")}
    assert len({found[arm]["dense"]["metrics"]["error"] for arm in found}) == 1
    assert len({found[arm]["re-dense"]["metrics"]["error"] for arm in found}) > 1
    assert found["llr"]["sparse"]["sparsity"] == found["dense"]["sparse"]["sparsity"] == 0
    assert found["llr"]["sparse"]["metrics"] == found["dense"]["sparse"]["metrics"]


def test_the_last_table_has_them_all(arms):
    folder, said = arms
    parts = {arm: result_of(folder, arm)["parts"] for arm in ("dsd", "llr", "dense")}
    rows = {row: cells["error"]["0"] for row, cells in table_of(folder).items()}
    ours = parts["dsd"]["re-dense"]["metrics"]["error"]
    before = parts["dsd"]["dense"]["metrics"]["error"]
    llr, dense = (parts[arm]["re-dense"]["metrics"]["error"] for arm in ("llr", "dense"))
    assert rows == {
        "Baseline": before, "Sparse (30%)": parts["dsd"]["sparse"]["metrics"]["error"],
        "DSD": ours, "LLR": llr, "Dense": dense,
        "Gain over the baseline, absolute": before - ours,
        "Gain over the baseline, relative": 100 * (before - ours) / before,
        "Gain over LLR, absolute": llr - ours, "Gain over Dense, absolute": dense - ours,
    }  # fmt: skip
    assert (folder / "results.md").read_text() in said["dense"]
    assert re.search(rf"^\| DSD +\| {ours:.2f} +\| 1 ", said["dense"], re.M)
    assert "LLR" not in said["dsd"]


def test_the_exported_model_is_the_one_that_was_evaluated(arms):
    tf = importlib.import_module("tensorflow")
    served = tf.saved_model.load(str(arms[0] / "seed-0" / "dsd" / "saved_model"))
    wrong = np.argmax(served.serve(toy_recipe.X[1024:]), axis=1) != toy_recipe.Y[1024:]
    error = result_of(arms[0])["parts"]["re-dense"]["metrics"]["error"]
    assert 100 * wrong.mean() == pytest.approx(error, abs=0.2)  # a digit or so may be a close call


def test_it_writes_what_tensorboard_and_tables_of_epochs_show(arms):
    folder = arms[0] / "seed-0" / "dsd"
    assert len((folder / "epochs.csv").read_text().splitlines()) == 7
    assert {path.parent.name for path in (folder / "logs").rglob("*tfevents*")} == {"train", "dsd"}


def test_a_complete_run_is_not_run_again(arms):
    said = run(TOY, arms[0], *PHASES)
    assert "End of part" not in said
    assert "| DSD " in said


@pytest.mark.only_on("tensorflow")
def test_other_settings_do_not_resume_in_the_same_folder(arms):
    done = start(TOY, f"--workdir={arms[0]}", *PHASES, "--learning_rate=0.01")
    assert done.returncode == 1
    assert "learning_rate=0.05. Received: learning_rate=0.01. Give the same" in done.stderr
    assert "Traceback" not in done.stderr
    other_arm = start(TOY, f"--workdir={arms[0]}", *PHASES, "--seed=5", "--sparsity=0.5")
    assert "sparsity=0.3. Received: sparsity=0.5. Give the same" in other_arm.stderr


@pytest.mark.only_on("tensorflow")
def test_a_run_that_is_killed_before_its_export_trains_no_more(arms, tmp_path):
    folder = tmp_path / "seed-0" / "llr"
    shutil.copytree(arms[0] / "seed-0" / "llr", folder)
    (folder / "model.keras").unlink()
    result = result_of(tmp_path, "llr") | {"is_complete": False}
    (folder / "results.json").write_text(json.dumps(result))
    said = run(TOY, tmp_path, *PHASES, "--arm=llr")
    assert "End of part" not in said
    for ours, theirs in zip(weights_in(tmp_path, "llr"), weights_in(arms[0], "llr"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("evaluation", [2, 3])
def test_a_run_that_is_killed_ends_as_one_that_was_not(evaluation, arms, tmp_path):
    killed = start(TOY, f"--workdir={tmp_path}", *PHASES, STOP_AT=str(evaluation), **DROPOUT)
    assert killed.returncode == -signal.SIGKILL
    said = run(TOY, tmp_path, *PHASES, **DROPOUT)
    assert f"Resuming from {tmp_path / 'seed-0' / 'dsd' / 'backup'}" in said
    assert said.count("End of part") == 4 - evaluation
    for ours, theirs in zip(weights_in(tmp_path), weights_in(arms[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    parts, whole = result_of(tmp_path)["parts"], result_of(arms[0])["parts"]
    for name in whole:
        assert parts[name]["metrics"] == whole[name]["metrics"]


@pytest.mark.only_on("tensorflow")
def test_several_devices_train_without_a_flag(tmp_path):
    said = {n: run(TOY, tmp_path / n, *PHASES, "--arm=llr", DEVICES=n) for n in ("1", "2")}
    assert "Training on 2 devices." in said["2"]
    assert "Training on" not in said["1"]
    ones, others = (weights_in(tmp_path / number, "llr") for number in said)
    for ours, theirs in zip(ones, others, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-3)


def test_a_run_may_start_from_a_trained_model(arms, tmp_path):
    given = arms[0] / "seed-0" / "llr" / "model.keras"
    start_from = [f"--initial_weights={given}", "--dense=0", "--sparse=1", "--redense=1@0.1"]
    run(TOY, tmp_path, "--data=digits", "--verbose=0", *start_from)
    parts = result_of(tmp_path)["parts"]
    assert list(parts) == ["start", "sparse", "re-dense"]
    trained = result_of(arms[0], "llr")["parts"]["re-dense"]["metrics"]
    assert parts["start"]["metrics"] == trained
    assert table_of(tmp_path)["Baseline"]["error"] == {"0": trained["error"]}


def test_two_sparse_phases_two_seeds_and_half_precision(tmp_path):
    more = ["--sparsity=0.5", "--sparse2=1", "--redense2=1@0.01", "--sparsity2=0.25"]
    flags = ["--data=digits", "--dense=1", "--sparse=1", "--redense=1@0.1", "--verbose=0"]
    for seed in (0, 1):
        further = [f"--seed={seed}", "--mixed_precision=mixed_bfloat16", *more]
        said = run(TOY, tmp_path, *flags, *further)
    assert "computes in bfloat16" in said
    parts = result_of(tmp_path, seed=1)["parts"]
    assert [parts[name]["sparsity"] for name in ("sparse", "sparse 2")] == [0.5, 0.25]
    assert list(table_of(tmp_path)) == [
        "Baseline", "Sparse (50%)", "Re-dense", "Sparse 2 (25%)", "DSD",
        "Gain over the baseline, absolute", "Gain over the baseline, relative",
    ]  # fmt: skip
    assert len({*table_of(tmp_path)["DSD"]["error"].values()}) == 2
    assert re.search(r"^\| DSD +\| \d+\.\d\d ± \d+\.\d\d +\| 2 ", said, re.M)


@pytest.mark.only_on("tensorflow")
def test_every_line_says_that_data_are_fake(tmp_path):
    flags = ["--data=fake", "--dense=1", "--sparse=1", "--redense=1", "--verbose=2"]
    said = run(TOY, tmp_path, *flags, "--steps_per_epoch=2")
    lines = said.splitlines()
    assert [line for line in lines if not line.startswith("FAKE DATA: ")] == []
    assert any("Epoch 3/3" in line for line in lines)
    assert any("2/2 - " in line for line in lines)
    assert "on FAKE DATA" in (tmp_path / "results.md").read_text()


@pytest.mark.only_on("tensorflow")
def test_a_loss_of_nan_ends_a_run(tmp_path):
    done = start(TOY, f"--workdir={tmp_path}", *PHASES, "--learning_rate=1e30", "--arm=llr")
    assert done.returncode == 1
    assert "Expected a loss that is a number. Received: loss=nan in epoch 1." in done.stderr
    assert not result_of(tmp_path, "llr")["parts"]


LENGTHS = ["--dense=1", "--sparse=1", "--redense=1"]


@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data=nowhere"], "error: Expected data. Received: data='nowhere'."),
        (["--data=x", "--dense=ten"], "Expected epochs, joined by commas"),
        (["--data=x", *LENGTHS, "--sparse=0"], "error: Expected a sparse phase"),
        (["--data=x", *LENGTHS, "--dense=0"], "--dense=0 and no --initial_weights. Give"),
        (["--data=x", *LENGTHS, "--sparsity=1"], "it is a share, in [0, 1)"),
        (["--data=x", *LENGTHS, "--initial_weights=lost.h5"], "error: Expected weights of this"),
    ],
)
def test_errors_are_reported(flags, said, tmp_path):
    done = start(TOY, f"--workdir={tmp_path}", *flags)
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("backup"))


def test_which_keras_trains(arms):
    assert result_of(arms[0])["settings"]["keras"] == PATH
