"""Output of the command for files of real models, on every path."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.cli import compare, main
from tests.helpers.paths import PATH, classifier, compiled, fresh, keras, seed

KERAS = "--keras=2" if PATH == "tf_keras" else "--keras=3"
SIZES = {"dense/kernel": 1024, "dense_1/kernel": 160}
NO_WARNINGS = [  # of what Keras says as it saves and loads
    "ignore:You are saving your model as an HDF5 file:UserWarning",
    "ignore:Training ended with pruned weights",
]
pytestmark = [
    pytest.mark.once_per_keras, *(pytest.mark.filterwarnings(each) for each in NO_WARNINGS)
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    """Files of one model: as it was made, from a sparse phase, not compiled; and data."""
    found = tmp_path_factory.mktemp("files")
    fresh()
    seed(3)
    compiled(classifier()).save(found / "plain.h5")  # on Keras 3, it forgets its optimizer then
    classifier().save(found / "bare.keras")
    fresh()
    plain = compiled(classifier())
    plain.fit(*digits, verbose=0)
    plain.save(found / "plain.keras")
    applied = dsd.apply(plain, 0.5)
    sparse = dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])
    applied.fit(*digits, verbose=0, callbacks=[sparse])
    applied.save(found / "sparse.keras")
    if PATH == "tf_keras":
        applied.save(found / "sparse.h5")
    stripped = dsd.strip(applied)
    stripped.save(found / "stripped.keras")
    if PATH == "keras":
        stripped.save(found / "sparse.h5")
    x, y = digits
    np.savez(found / "data.npz", x_train=x[:9], y_train=y[:9], x_test=x[:64], y_test=y[:64])
    np.savez(found / "flat.npz", x=x.reshape(-1, 8, 8)[:, :5], y=y)
    return found


@pytest.fixture
def run(capfd):
    """Runs the command; what the process writes to stdout, by whatever way, is looked at."""

    def run(command, *arguments):
        capfd.readouterr()
        code = main.main([command, KERAS, *map(str, arguments)])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def found(run):
    """Runs the command with --json and returns what it found."""

    def found(*arguments):
        code, said, errors = run(*arguments, "--json")
        assert code == 0, errors
        return json.loads(said)  # and nothing else was printed

    return found


def sizes(paths):
    return {name: size for name, size in SIZES.items() if any(p.endswith(name) for p in paths)}


@pytest.mark.parametrize("name", ["plain.keras", "plain.h5", "sparse.keras", "sparse.h5"])
def test_inspect_lists_the_weights_to_prune_of_any_file(name, folder, found):
    data = found("inspect", folder / name, "--sparsity=0.25")
    rows = {row["path"]: row for row in data["report"]["weights"]}
    assert sizes(rows) == SIZES and {row["target"] for row in rows.values()} == {0.25}
    assert data["would_prune"]["values"] == 296
    assert [*data["would_prune"]["by_weight"].values()] == [256, 40]
    assert [*data["would_prune"]["by_weight"]] == [*rows]
    assert data["mask_bytes"] == 1184
    assert {row["measured"] for row in rows.values()} == {0.5 if "sparse" in name else 0.0}


def test_inspect_takes_the_arguments_of_apply(folder, found, run):
    path = folder / "plain.keras"
    data = found("inspect", path, '--sparsity={"dense": 0.5}', "--exclude=dense_1/")
    assert data["would_prune"]["values"] == 512
    reasons = {row["path"].rpartition("dense")[2]: row["reason"] for row in
               data["report"]["skipped"]}  # fmt: skip
    assert reasons["_1/kernel"] == "excluded"
    data = found("inspect", path, "--pattern=nm:1:4")
    assert data["would_prune"]["values"] == 888 and data["report"]["notes"] == ["pattern: 1:4"]
    data = found("inspect", path, "--scope=global", "--sparsity=0.5")
    assert data["would_prune"]["values"] == 592
    code, said, errors = run("inspect", path, "--sparsity=0.5", "--pattern=block:4x2")
    assert code == 0 and "blocks of 4 x 2 (avg)" in said and "would prune: 592 of 1,184" in said
    assert "memory: the masks take " in said and "left dense: " in said
    code, said, errors = run("inspect", path, "--exclude=densest")
    assert (code, said) == (1, "")
    assert "keras-dsd: Expected every pattern of `exclude` to match" in errors.splitlines()[-1]


@pytest.mark.parametrize("name", ["plain.keras", "sparse.keras", "sparse.h5", "stripped.keras"])
def test_report_measures_what_a_file_holds(name, folder, found):
    data = found("report", folder / name)
    is_sparse = name != "plain.keras"
    assert data["sparsity"] == 0.5 * is_sparse and data["total_size"] == 1210
    loaded = keras.models.load_model(folder / name)
    loaded = dsd.strip(loaded) if PATH == "tf_keras" and name.startswith("sparse") else loaded
    kernels = [np.abs(value) for value in map(np.array, loaded.get_weights()) if value.ndim == 2]
    for row, kernel in zip(data["weights"], kernels, strict=True):
        assert row["measured"] == np.mean(kernel == 0)
        smallest = pytest.approx(float(kernel[kernel > 0].min()))
        assert row["threshold"] == (smallest if is_sparse else None)
        is_known = PATH == "tf_keras" and name.startswith("sparse")
        assert row["target"] == (0.5 if is_known else None) and not row["masked"]


def test_report_prints_a_table(folder, run):
    code, said, _ = run("report", folder / "stripped.keras")
    rows = [line.split() for line in said.splitlines()]
    assert code == 0 and rows[0] == "sparsity 50.00% of 1,184 weights in 2 tensors".split()
    assert rows[6][0] == "weight"
    assert rows[8][1:8] == ["64", "x", "16", "1,024", "84.63%", "-", "50.00%"]


def test_sensitivity_scans_recommends_draws_and_resumes(folder, found, run, tmp_path):
    scan = ["sensitivity", folder / "sparse.keras", f"--data={folder / 'data.npz'}",
            "--levels=0.9,0.4", f"--path={tmp_path / 'scan.json'}"]  # fmt: skip
    data = found(*scan, "--overall=0.4", f"--plot={tmp_path / 'scan.png'}")
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")
    assert data["metric"] == "loss" and data["scan"]["mode"] == "min"
    assert data["scan"]["levels"] == [0.4, 0.9]
    model = keras.models.load_model(folder / "stripped.keras")
    with np.load(folder / "data.npz") as arrays:
        loss = model.evaluate(arrays["x_test"], arrays["y_test"], verbose=0)[0]
    assert data["scan"]["baseline"] == pytest.approx(loss, rel=1e-5)
    assert [p["values"][0] for p in data["scan"]["points"]] == pytest.approx([loss] * 2, rel=1e-5)
    assert len(data["recommended"]) == 2
    sparsity = f"--sparsity={json.dumps(data['recommended'])}"
    pruned = found("inspect", folder / "sparse.keras", sparsity)["would_prune"]["values"]
    assert pruned == pytest.approx(0.4 * 1184, abs=2)
    _, said, errors = run(*scan, "--max_drop=0")
    assert "recommended, for --sparsity:" in said and "x_test and y_test of" in errors
    assert json.loads((tmp_path / "scan.json").read_text())["baseline"] == data["scan"]["baseline"]


def test_sensitivity_by_another_metric_or_a_loss_by_name(folder, found):
    more = [f"--data={folder / 'data.npz'}", "--levels=0.5"]
    data = found("sensitivity", folder / "plain.keras", "--metric=accuracy", *more)
    assert data["scan"]["mode"] == "max" and 0 <= data["scan"]["baseline"] <= 1
    loss = "--loss=sparse_categorical_crossentropy"
    data = found("sensitivity", folder / "bare.keras", loss, "--metric=accuracy", *more)
    assert data["scan"]["mode"] == "max"


@pytest.mark.parametrize(
    ("name", "data", "flag", "words"),
    [
        ("bare.keras", "data.npz", "--metric=loss", "a model that is not compiled"),
        ("bare.keras", "data.npz", "--loss=nonsense", "nonsense"),
        ("plain.keras", "data.npz", "--metric=auc", "expected --metric to be one of"),
        ("plain.keras", "flat.npz", "--metric=loss", "on inputs of shape (320, 5, 8) and targets"),
        ("plain.keras", "none.npz", "--metric=loss", "none.npz: there is no such file"),
        ("plain.keras", "data.npz", "--path=no/scan.json", "Expected `path` to be a file in a"),
    ],
)
def test_sensitivity_names_missing_arguments(name, data, flag, words, folder, run):
    code, said, errors = run(
        "sensitivity", folder / name, f"--data={folder / data}", flag, "--levels=0.5"
    )
    assert (code, said) == (1, "")
    (line,) = [line for line in errors.splitlines() if line.startswith("keras-dsd: ")]
    assert words in line and "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    pytest.param("plain.keras", marks=[pytest.mark.exhaustive] * (PATH == "tf_keras")),
    pytest.param("sparse.h5", marks=[pytest.mark.exhaustive] * (PATH == "keras")),
])  # fmt: skip
def test_compare_trains_from_fresh_weights_and_resumes(name, folder, found, run, digits, tmp_path):
    x, y = digits
    np.savez(tmp_path / "data.npz", x_train=x[:160], y_train=y[:160], x_test=x[240:],
             y_test=y[240:])  # fmt: skip
    asked = ["compare", folder / name, f"--data={tmp_path / 'data.npz'}", "--metric=accuracy",
             "--validation_split=0.5", "--dense=1", "--sparse=1", "--redense=1", "--seeds=2",
             f"--path={tmp_path / 'runs.json'}"]  # fmt: skip
    data = found(*asked, f"--plot={tmp_path / 'runs.png'}")["comparison"]
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")
    assert (data["metric"], data["mode"]) == ("accuracy", "max")
    assert [*data["arms"]] == ["dense", "llr", "llr at once", "sparse", "dsd"]
    assert {run["num_updates"] for run in data["runs"] if run["arm"] == "dsd"} == {3 * 3}
    # What the file was trained for is gone: two seeds start from two different networks.
    assert len({tuple(run["validation"][:1]) for run in data["runs"]}) == 2
    written = (tmp_path / "runs.json").read_text()
    code, said, _ = run(*asked)
    assert (
        code == 0
        and data["verdict"] in " ".join(said.split())
        and "validation: 80 of the 160" in said
    )
    assert (tmp_path / "runs.json").read_text() == written


def test_compare_trains_the_requested_arms(folder, run, digits, tmp_path):
    x, y = digits
    rows = {"x_train": x[:16], "y_train": y[:16], "x_test": x[240:], "y_test": y[240:]}
    np.savez(tmp_path / "data.npz", **rows)
    asked = ["compare", folder / "plain.keras", f"--data={tmp_path / 'data.npz'}"]
    code, _, errors = run(*asked, "--arms=dsd")
    assert code == 1 and "one control at least" in errors and "arms=['dsd']" in errors


@pytest.mark.parametrize(
    ("name", "data", "flag", "words"),
    [
        ("bare.keras", "data.npz", "--metric=loss", "a model that is not compiled"),
        ("plain.keras", "flat.npz", "--metric=loss", "Missing: x_train, y_train, x_test, y_test"),
        ("plain.keras", "data.npz", "--metric=loss", "of data['test'] that are in data['train']"),
    ],
)
def test_compare_names_missing_arguments(name, data, flag, words, folder, run):
    code, said, errors = run("compare", folder / name, f"--data={folder / data}", flag)
    assert (code, said) == (1, "")
    (line,) = [line for line in errors.splitlines() if line.startswith("keras-dsd: ")]
    assert words in line and "Traceback" not in errors


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_code_in_a_file_is_not_run_unless_asked(name, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Keras writes down a lambda's code, not the name of the function.
    layer = keras.layers.Lambda(lambda t: (__import__("pathlib").Path("carried_out").touch(), t)[1])
    keras.Sequential([keras.layers.Input((3,)), layer, keras.layers.Dense(2)]).save(name)
    carried_out = tmp_path / "carried_out"
    carried_out.unlink(missing_ok=True)  # Keras ran it as the model was made
    for command in ("inspect", "report", "sensitivity", "compare"):
        given = {
            f"{axis}{part}": np.ones((10, 3)) for axis in "xy" for part in ("", "_train", "_test")
        }
        np.savez("data.npz", **given)
        data = ["--data=data.npz"] if command in ("sensitivity", "compare") else []
        code, said, errors = run(command, name, *data)
        assert (code, said) == (1, "")
        assert f"keras-dsd: {name} carries code (a Lambda), which was not run." in errors
    assert not carried_out.exists()
    code, said, errors = run("report", name, "--safe_mode=false")
    assert code == 0 and "dense" in said and carried_out.exists()


def test_layers_and_losses_of_the_user_are_imported_by_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(f"""
import {keras.__name__} as keras
class Kernel(keras.layers.Dense):
    pass
def loss(y, predicted):
    return keras.losses.mean_squared_error(y, predicted)
""")
    monkeypatch.syspath_prepend(tmp_path)
    registered = dict(keras.saving.get_custom_objects())
    mine = importlib.import_module("mine")
    model = keras.Sequential([keras.layers.Input((3,)), mine.Kernel(2, name="kernel")])
    model.compile("sgd", mine.loss)
    model.save("model.keras")
    rows = np.arange(12.0).reshape(4, 3)
    np.savez("data.npz", x=rows, y=rows[:, :2])
    try:
        code, said, errors = run("report", "model.keras")
        assert (code, said) == (1, "") and "--custom_objects=" in errors and ":Kernel." in errors
        named = ["--custom_objects=mine:Kernel", "--custom_objects=mine:loss"]
        code, said, errors = run("report", "model.keras", named[0])
        assert code == 0 and "of 6 weights in 1 tensor" in said, errors
        assert run("sensitivity", "model.keras", "--data=data.npz", "--levels=0.5", *named)[0] == 0
        # `compare` makes the model in each process.
        values = main._defined(main.COMMANDS["compare"].define)
        values(["compare", KERAS, *named])
        keras.saving.get_custom_objects().clear()
        made = compare._build("model.keras", values)()
        assert type(made.layers[-1]) is mine.Kernel
    finally:
        keras.saving.get_custom_objects().clear()
        keras.saving.get_custom_objects().update(registered)
        del sys.modules["mine"]


def test_a_file_cut_behind_its_config_is_not_a_model(folder, run, tmp_path):
    whole = (folder / "plain.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    code, said, errors = run("report", tmp_path / "cut.h5")
    assert (code, said) == (1, "") and "cut.h5 can't be read as a model" in errors


@pytest.mark.slow
def test_the_process_prints_one_object_and_nothing_else(folder):
    command = [sys.executable, "-m", "keras_dsd", "report", KERAS, folder / "sparse.keras"]
    ran = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["sparsity"] == 0.5
