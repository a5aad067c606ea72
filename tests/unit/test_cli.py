"""Output of the command without a model: help, wrong usage, files that are refused."""

import ast
import configparser
import importlib
import json
import pathlib
import re
import subprocess
import sys
import zipfile
from inspect import signature

import h5py
import numpy as np
import pytest
from absl import flags

import keras_dsd
from keras_dsd.algorithm.patterns import NM, Block
from keras_dsd.analysis.sensitivity import Sensitivity
from keras_dsd.cli import files, inspect, main
from keras_dsd.cli.command import CommandError, UsageError

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def run(capsys):
    """Runs the command and returns its exit code, what it printed, and to stderr."""

    def run(*arguments):
        code = main.main([*map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def flags_of(name):
    """Returns the names of a command's flags, but of `--json`."""
    values = flags.FlagValues()
    main.COMMANDS[name].define(values)
    return {*values}


def test_the_overview_names_all_commands_the_kerases_and_the_exit_codes(run):
    code, said, errors = run("--help")
    assert (code, errors) == (0, "")
    codes = ["0 done", "1 the command failed", "2 wrong usage", "130 interrupted"]
    for words in [
        *main.COMMANDS,
        "--safe_mode=false",
        "KERAS_BACKEND",
        "TF_USE_LEGACY_KERAS=1",
        *codes,
    ]:
        assert words in said
    assert run("-h")[1] == run("help")[1] == said
    assert run("--version") == (0, f"keras-dsd {keras_dsd.__version__}\n", "")


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_help_of_a_command_says_what_it_does_its_flags_and_how_to_call_it(name, run):
    code, said, errors = run(name, "--help")
    assert (code, errors) == (0, "")
    needed = "" if name in ("inspect", "report") else "--data=FILE.npz "
    assert said.startswith(f"Usage: keras-dsd {name} MODEL {needed}[FLAGS]\n")
    lines = [re.findall(r"--(\w+)", re.split("[=:]  |[=:] |  +", line.strip())[0])
             for line in said.splitlines() if line.startswith("  --")]  # fmt: skip
    told = [name for line in lines for name in line]
    assert sorted(told) == sorted([*flags_of(name), "json", "help"])  # and none of absl's own
    assert f"\nExample: keras-dsd {name} " in said
    assert "<" not in said and "repeat this option" not in said
    assert run(name, "model.keras", "-h")[1] == said


@pytest.mark.parametrize("name", ["", *main.COMMANDS])
def test_help_fits_a_terminal_of_24_lines_and_100_columns(name, run):
    lines = run(*[name] * bool(name), "--help")[1].splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 100  # the prompt takes the last line


@pytest.mark.parametrize("name", main.COMMANDS)
def test_examples_of_the_help_are_parsed(name):
    _, command, path, *rest = main.COMMANDS[name].example.split()
    values = main._defined(main.COMMANDS[name].define)
    assert (command, main._parse(main.COMMANDS[name], values, [path, *rest])) == (name, path)


def test_flags_have_the_names_of_the_arguments_in_python():
    # Beside those, what has no argument of that kind: files, and values that `evaluate` has.
    shell = {"keras", "data", "metric", "plot", "custom_objects", "safe_mode"}
    shell |= {"loss", "batch_size", "validation_split"}  # as in Keras
    functions = {
        "inspect": [keras_dsd.apply],
        "report": [],
        "sensitivity": [keras_dsd.sensitivity, Sensitivity.recommend],
        "compare": [keras_dsd.apply, keras_dsd.compare, keras_dsd.DSDSchedule],
    }
    for name, called in functions.items():
        known = {each for function in called for each in signature(function).parameters}
        assert flags_of(name) - shell <= known, name


@pytest.mark.parametrize(("old", "new"), [
    ("recommend_overall=0.3", "--overall"), ("unsafe", "--safe_mode=false"),
    ("validation_share=0.3", "--validation_split"),
])  # fmt: skip
def test_a_former_name_of_a_flag_is_answered_with_the_name_now(old, new, run):
    code, _, errors = run("sensitivity", "a", f"--{old}")
    assert code == 2 and f"--{old.partition('=')[0]} is called {new} now. keras-dsd" in errors


def test_a_flags_default_stands_in_its_help_on_one_line_with_others(run):
    said = " ".join(run("sensitivity", "--help")[1].split())
    assert "Default: 0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9." in said
    assert "--data=FILE.npz Arrays" in said and "in a batch. Default: 32." in said
    assert "--scope=layer|global Ranks each" in " ".join(run("inspect", "--help")[1].split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected a command first: inspect, report, sensitivity, compare. Received: nothing."),
        (("frobnicate",), "Received: frobnicate. keras-dsd --help describes"),
        (("inspect",), "expected MODEL and flags. Received: nothing. keras-dsd inspect --help"),
        (("report", "a.keras", "b.keras"), "expected MODEL and flags. Received: a.keras b.keras."),
        (("report", "a", "--sparsity=1"), "Unknown command line flag 'sparsity'"),
        (("inspect", "a", "--keras=4"), "value should be one of <3|2>"),
        (("inspect", "a", "--sparsity=1.5"), "Expected `sparsity` to be in [0, 1)"),
        (("inspect", "a", "--sparsity=half"), "or a JSON object. Received: --sparsity=half"),
        (("inspect", "a", "--sparsity=[1]"), "Expected `sparsity` to be a number"),
        (("inspect", "a", "--sparsity={\"(\": 1}"), "to be regular expressions"),
        (("inspect", "a", "--exclude=*"), "Expected the patterns of `exclude`"),
        (("inspect", "a", "--pattern=4x2"), "Received: --pattern=4x2. Write one of these."),
        (("inspect", "a", "--pattern=block:0x2"), "--pattern=block:0x2: Expected `height`"),
        (("inspect", "a", "--pattern=nm:2:4", "--sparsity=0.5"), "fixes it at 0.5"),
        (("sensitivity", "a"), "expected --data=FILE.npz"),
        (("compare", "a"), "expected --data=FILE.npz, to train on"),
        (("compare", "a", "--data=d", "--seeds=1"), "--seeds=1"),
        (("compare", "a", "--data=d", "--dense=0"), "--dense=0"),
        (("compare", "a", "--data=d", "--sparsity=2"), "Expected `sparsity` to be in [0, 1)"),
        (("sensitivity", "a", "--data=d", "--mode=most"), "should be one of <auto|min|max>"),
        (("sensitivity", "a", "--data=d", "--levels=0.5,1"), "Received: --levels=0.5,1."),
        (("sensitivity", "a", "--data=d", "--levels=x"), "Received: --levels=x."),
        (("sensitivity", "a", "--data=d", "--levels="), "Received: --levels=."),
        (("sensitivity", "a", "--data=d", "--max_drop=-1"), "--max_drop=-1"),
        (("sensitivity", "a", "--data=d", "--batch_size=0"), "--batch_size=0"),
        (("sensitivity", "a", "--data=d", "--overall=1"), "to be below 1"),
        (("sensitivity", "a", "--data=d", "--max_drop=1", "--overall=.1"), "both"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_a_line_and_code_2(arguments, words, run):
    code, said, errors = run(*arguments)
    assert (code, said) == (2, "")
    assert errors.startswith("keras-dsd: ") and errors.count("\n") == 1
    assert words in errors


def test_flags_become_the_arguments_of_apply():
    def asked(*given):
        values = flags.FlagValues()
        inspect.COMMAND.define(values)
        values(["inspect", *given])
        return inspect.asked(values)

    assert asked() == {"exclude": [], "pattern": None, "scope": "layer"}
    assert asked("--sparsity=0.25", "--exclude=a", "--exclude=b", "--scope=global") == {
        "sparsity": 0.25, "exclude": ["a", "b"], "pattern": None, "scope": "global",
    }  # fmt: skip
    assert asked('--sparsity={"conv": 0.3}', "--pattern=block:4x2")["pattern"] == Block(4, 2)
    assert asked("--pattern=block:4x2:max")["pattern"] == Block(4, 2, "max")
    assert asked("--pattern=nm:2:4")["pattern"] == NM(2, 4)


@pytest.mark.parametrize(
    ("asked", "legacy", "package"),
    [(None, None, "keras"), (None, "1", "tf_keras"), (None, "0", "keras"), ("3", "1", "keras"),
     ("2", None, "tf_keras")],
)  # fmt: skip
def test_keras_3_unless_the_flag_or_else_the_environment_says_tf_keras(
    asked, legacy, package, monkeypatch
):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    if legacy is not None:
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", legacy)
    assert files._package(asked) == package


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as opened:
        for name, text in members.items():
            opened.writestr(f"{name}.json", text)
    return path


def hdf5(path, **attributes):
    with h5py.File(path, "w") as opened:
        opened.attrs.update(attributes)
    return path


def no_models(folder):
    """Files that are none of a model, and what is said of each."""
    (folder / "text.keras").write_text("hello")
    (folder / "empty.keras").touch()
    (folder / "empty.h5").touch()
    (folder / "folder.keras").mkdir()
    (folder / "model.txt").write_text("hello")
    whole = archive(folder / "whole.keras", config="{}" * 500).read_bytes()
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    archive(folder / "zip.h5", config="{}")
    archive(folder / "other.keras", other="{}")
    archive(folder / "bad.keras", config="{")
    archive(folder / "deep.keras", config="[" * 100_000)
    hdf5(folder / "weights.h5")
    hdf5(folder / "bad.h5", model_config="{")
    return {
        "missing.keras": "no such file", "text.keras": "is not a complete model file",
        "empty.keras": "is empty", "empty.h5": "is empty", "folder.keras": "is a folder",
        "model.txt": "is not called .keras or .h5", "cut.keras": "is not a complete model file",
        "zip.h5": "is not a complete model file", "other.keras": "is not a complete model file",
        "bad.keras": "can't be read as a model: Expecting property name",
        "deep.keras": "can't be read as a model", "bad.h5": "can't be read as a model",
        "weights.h5": "holds only weights",
    }  # fmt: skip


def test_other_than_a_model_is_one_line_and_exit_code_1(run, tmp_path):
    for name, words in no_models(tmp_path).items():
        for command in ("inspect", "report"):
            code, said, errors = run(command, tmp_path / name, "--safe_mode=false")
            assert (code, said) == (1, ""), name
            assert errors.startswith("keras-dsd: ") and errors.count("\n") == 1, errors
            assert words in errors


LAYER = {"class_name": "Dense", "module": "keras.layers", "config": {"units": 3}}
IMPORT = {"class_name": "function", "config": "system", "module": "os"}
REFUSED = {
    "a Lambda": [{"class_name": "Lambda", "config": {}}, {"class_name": "__lambda__"},
                 {"class_name": "Mine", "config": {"function_type": "lambda"}}],
    "what is to be imported from 'os'": [IMPORT, {**LAYER, "module": "os"}],
    "a call of Python's eval": [{**IMPORT, "module": "builtins", "config": "eval"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("why", "part"), [(why, part) for why, parts in REFUSED.items() for part in parts], ids=str
)
@pytest.mark.parametrize("kind", [".keras", ".h5", "training", "h5 called .keras"])
def test_code_in_a_file_is_refused_however_deep(why, part, kind, run, tmp_path, monkeypatch):
    monkeypatch.setattr(files.registry, "adapter_for", pytest.fail)
    config = json.dumps({"config": {"layers": [LAYER, {"config": {"layer": [part]}}]}})
    if kind == ".keras":
        path = archive(tmp_path / "model.keras", config=config)
    else:
        path = tmp_path / ("model.keras" if kind == "h5 called .keras" else "model.h5")
        models = {"model_config": "{}", "training_config": config}
        hdf5(path, **(models if kind == "training" else {"model_config": config}))
    code, said, errors = run("report", "--keras=2", path)
    assert (code, said) == (1, "")
    assert errors.startswith(f"keras-dsd: {path} carries code ({why}), which was not run. If ")
    assert errors.endswith("If you trust where the file comes from, add --safe_mode=false.\n")
    named = "os:system" if part is IMPORT else "os:Dense"
    assert (f"If it is yours, add --custom_objects={named}." in errors) is ("imported" in why)


class Door:
    """Takes the place of a Keras."""

    asked = None

    def load_model(self, path, safe_mode, compiled):
        Door.asked = (path, safe_mode, compiled)
        raise RuntimeError("of\nseveral lines " + "x" * 1000)


@pytest.mark.parametrize(
    ("version", "package", "hint"),
    [("3.15.1", "2", " Keras 3.15.1 wrote it: add --keras=3.\n"), ("3.15.1", "3", "...\n"),
     ("2.16.0", "3", " Keras 2.16.0 wrote it: add --keras=2.\n"), (None, "3", "...\n")],
)  # fmt: skip
def test_what_keras_says_is_one_line_with_what_to_try(
    version, package, hint, run, tmp_path, monkeypatch
):
    monkeypatch.setattr(files.registry, "adapter_for", lambda package: Door())
    metadata = {} if version is None else {"metadata": json.dumps({"keras_version": version})}
    path = archive(tmp_path / "model.keras", config=json.dumps(LAYER), **metadata)
    code, said, errors = run("report", path, f"--keras={package}")
    assert (code, said) == (1, "") and Door.asked == (str(path), True, False)
    name = "Keras 3" if package == "3" else "tf_keras"
    assert errors.startswith(f"keras-dsd: {path}: {name} can't load it: of several lines x")
    assert errors.endswith(hint) and errors.count("\n") == 1 and len(errors) < 600
    run("report", "--nosafe_mode", path)
    assert Door.asked[1] is False


@pytest.mark.parametrize(("named", "code", "words"), [
    ("mine", 2, "expected --custom_objects to be MODULE:NAME. Received: --custom_objects=mine."),
    ("mine:", 2, "MODULE:NAME"), (":Mine", 2, "MODULE:NAME"), ("mine:My-1", 2, "MODULE:NAME"),
    ("no_such_module:Mine", 1, "--custom_objects=no_such_module:Mine: No module named"),
    ("json:Mine", 1, "--custom_objects=json:Mine: module 'json' has no attribute 'Mine'"),
])  # fmt: skip
def test_custom_objects_that_can_not_be_imported_are_refused(named, code, words, run, tmp_path):
    path = archive(tmp_path / "model.keras", config=json.dumps(LAYER))
    found, said, errors = run("report", path, f"--custom_objects={named}")
    assert (found, said) == (code, "") and words in errors


def test_custom_objects_come_from_this_folder_and_hide_no_other_module(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_here.py").write_text("class Mine: pass")
    (tmp_path / "json.py").write_text("dumps = 1")
    found = files.custom_objects(["mine_here:Mine", "json:dumps"])
    assert found["Mine"].__module__ == "mine_here" and found["dumps"] is json.dumps
    assert sys.path[-1] == str(tmp_path)


def test_of_a_file_only_the_registered_names_of_custom_objects_pass():
    mine = {"class_name": "Mine", "module": "mine", "registered_name": "Mine"}
    act = {"class_name": "function", "module": "mine", "config": "act", "registered_name": "act"}
    known = {"Mine", "act"}
    files._refuse_code("a", [mine, act], "tf_keras", known)
    for part in (mine, act):
        with pytest.raises(CommandError, match="imported from 'mine'"):
            files._refuse_code("a", [part], "tf_keras", {"Other"})
    # Keras looks a function up by its own name, and a class by the registered one.
    for part in ({**act, "config": "system"}, {**mine, "registered_name": "Yours"}):
        with pytest.raises(CommandError, match="imported from 'mine'"):
            files._refuse_code("a", [part], "tf_keras", known)


def data_file(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_the_data_least_trained_on_is_taken(tmp_path):
    ones, twos = np.ones((4, 3)), np.full(4, 2)
    mnist = {"x_train": ones, "y_train": twos, "x_test": ones * 3, "y_test": twos}
    path = data_file(tmp_path / "mnist.npz", **mnist)
    data = files.load_data(path)
    assert data.names == ("x_test", "y_test") and data.x.max() == 3 and data.y.tolist() == [2] * 4
    path = data_file(tmp_path / "all.npz", **mnist, x_val=ones, y_val=twos, x=ones, y=twos)
    assert files.load_data(path).names == ("x_val", "y_val")
    assert files.load_data(data_file(tmp_path / "a.npz", x=ones, y=twos)).names == ("x", "y")


def test_the_error_names_what_is_wrong_with_the_data(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", np.ones(3))
    archive(tmp_path / "zip.npz", x="1", y="2")
    ones = np.ones((4, 3))
    objects = np.array([print], dtype=object)
    bad = {
        str(tmp_path / "missing.npz"): "no such file",
        str(tmp_path): "no such file",
        str(tmp_path / "text.npz"): "not a complete .npz file",
        str(tmp_path / "one.npy"): "not a complete .npz file",
        str(tmp_path / "zip.npz"): "holds x.json, y.json. Expected arrays x and y",
        data_file(tmp_path / "none.npz"): "holds nothing. Expected arrays",
        data_file(tmp_path / "x.npz", x=ones): "holds x. Expected arrays x and y",
        data_file(tmp_path / "few.npz", x=ones, y=ones[:3]): "the shapes (4, 3) and (3, 3)",
        data_file(tmp_path / "no.npz", x=ones[:0], y=ones[:0]): "at least one",
        data_file(tmp_path / "scalar.npz", x=1, y=2): "the shapes () and ()",
        data_file(tmp_path / "objects.npz", x=objects, y=objects): "can't be read: Object arrays",
    }
    for path, words in bad.items():
        with pytest.raises(CommandError, match=re.escape(words)):
            files.load_data(path)


def test_the_figures_file_is_checked_before_the_scan(run, tmp_path):
    for plot in (tmp_path / "scan.xyz", tmp_path / "missing" / "scan.png", tmp_path):
        code, _, errors = run("sensitivity", "a", "--data=d", f"--plot={plot}")
        assert code == 1 and f"--plot={plot}: expected a file in a folder that exists" in errors


def test_no_traceback_of_what_the_library_refuses_or_a_user_interrupts(run, monkeypatch):
    for error, code in [
        (ValueError("Expected a\nb."), 1), (TypeError("Expected a b."), 1),
        (ImportError("Expected a b."), 1), (UsageError("Expected a b."), 2),
    ]:  # fmt: skip
        monkeypatch.setattr(main, "_answer", lambda _, error=error: (_ for _ in ()).throw(error))
        assert run() == (code, "", "keras-dsd: Expected a b.\n")
    monkeypatch.setattr(main, "_answer", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert run() == (130, "", "keras-dsd: interrupted\n")


def test_the_module_is_the_command_and_loads_no_framework():
    code = "import sys; from keras_dsd.cli.main import main; main(['inspect', '--help']); " \
           "print(sorted({n.partition('.')[0] for n in sys.modules}), file=sys.stderr)"  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(ran.stderr)
    assert {"keras", "tf_keras", "tensorflow", "matplotlib"}.isdisjoint(loaded)
    command = [sys.executable, "-m", "keras_dsd", "report", "missing.keras"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "keras-dsd: missing.keras: there is no such file.\n"


def test_setup_installs_the_command():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    script = config["options.entry_points"]["console_scripts"].strip()
    name, module, function = re.fullmatch(r"(\S+) = (\S+):(\S+)", script).groups()
    assert name == "keras-dsd"
    assert getattr(importlib.import_module(module), function) is main.main


ROWS = np.arange(20.0).reshape(10, 2)
TEST = {"x_test": ROWS[:3] + 50, "y_test": np.arange(3)}
TRAIN = {"x_train": ROWS, "y_train": np.arange(10)}


def test_validation_rows_are_those_of_the_file_or_held_out_the_same_each_time(tmp_path):
    np.savez(tmp_path / "all.npz", **TRAIN, **TEST, x_val=ROWS[:2] + 90, y_val=np.arange(2))
    data, words = files.load_parts(tmp_path / "all.npz", 0.5)
    assert words == "test: x_test and y_test; validation: x_val and y_val"
    assert {part: len(x) for part, (x, _) in data.items()} == {
        "train": 10, "test": 3, "validation": 2,
    }  # fmt: skip
    np.savez(tmp_path / "some.npz", **TRAIN, **TEST)
    data, words = files.load_parts(tmp_path / "some.npz", 0.3)
    assert words == "test: x_test and y_test; validation: 3 of the 10 training rows"
    assert sorted([*data["train"][1], *data["validation"][1]]) == [*range(10)]
    assert all((x == ROWS[y]).all() for x, y in (data["train"], data["validation"]))
    again, _ = files.load_parts(tmp_path / "some.npz", 0.3)
    assert (again["validation"][1] == data["validation"][1]).all()


@pytest.mark.parametrize(("arrays", "share", "words"), [
    (TRAIN, 0.2, "Expected arrays x_train, y_train, x_test, y_test.*Missing: x_test, y_test"),
    ({**TRAIN, **TEST}, 0.0, "the 10 training rows.*--validation_split=0"),
    ({**TRAIN, **TEST}, 1.0, "--validation_split=1"),
    ({**TRAIN, **TEST, "y_test": ROWS[:2]}, 0.2, "equal numbers of x_test and y_test"),
])  # fmt: skip
def test_data_that_can_not_be_trained_on_are_refused(arrays, share, words, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(CommandError, match=words):
        files.load_parts(tmp_path / "data.npz", share)
