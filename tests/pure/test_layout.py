"""Who may import which framework, how long things may be, what is public, what is the oldest."""

import ast
import configparser
import inspect
import pathlib
import re
import subprocess
import sys

import pytest

import keras_dsd

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "keras_dsd").rglob("*.py"))
OF_THE_TFMOT_DOOR = {"tensorflow", "tf_keras", "tensorflow_model_optimization"}
OF_THE_KERAS_DOOR = {"keras"}
PUBLIC = [
    "NM", "Block", "DSDLoop", "DSDSchedule", "DSDTensorBoard", "DensePhase", "Plateau",
    "SparsePhase", "WeightHistory", "apply", "compare", "report", "sensitivity", "strip",
    "weights",
]  # fmt: skip


def tree_of(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def imports_of(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_framework_is_imported_behind_its_own_door_alone(path):
    door = path.parts[1]
    barred = set()
    if door != "tfmot":
        barred |= OF_THE_TFMOT_DOOR
    if path.parts[1:3] == ("keras3", "backends"):
        barred -= {path.stem}
    else:
        barred |= {"jax", "torch"}
    if door != "keras3":
        barred |= OF_THE_KERAS_DOOR
    assert {name.partition(".")[0] for name in imports_of(path)} & barred == set()


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_the_doors_do_not_import_each_other_nor_does_what_both_share(path):
    others = {"keras_dsd.tfmot", "keras_dsd.keras3"} - {f"keras_dsd.{path.parts[1]}"}
    imported = {".".join(name.split(".")[:2]) for name in imports_of(path)}
    assert imported & others == set()


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_and_functions_are_short(path):
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= 300, f"{path} has {lines} lines"
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for node in ast.walk(tree_of(path))
        if isinstance(node, functions)
    }
    assert {name: length for name, length in lengths.items() if length > 50} == {}


def test_importing_the_package_imports_no_framework():
    code = (
        "import sys, keras_dsd; dir(keras_dsd); keras_dsd.DSDSchedule(1, 1, 1);"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "keras_dsd" in loaded
    assert loaded & (OF_THE_TFMOT_DOOR | OF_THE_KERAS_DOOR | {"matplotlib", "rich"}) == set()


def test_the_public_names_are_these():
    assert keras_dsd.__all__ == PUBLIC
    assert {*PUBLIC} <= {*dir(keras_dsd)}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented_and_annotated(name):
    public = getattr(keras_dsd, name)
    documented = vars(public).get("__doc__") if inspect.isclass(public) else public.__doc__
    # A dataclass without a docstring gets its signature for one.
    assert documented and not documented.startswith(f"{name}(")
    signature = inspect.signature(public.__init__ if inspect.isclass(public) else public)
    bare = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.name != "self" and parameter.annotation is parameter.empty
    ]
    assert bare == []
    assert signature.return_annotation is not signature.empty


def test_the_oldest_versions_under_test_are_the_oldest_allowed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"]
    asked = config["options"]["install_requires"] + extras["test"] + extras["examples"]
    # On the Python of the oldest set, markers leave out what only a newer one needs.
    lowest = set(re.findall(r"^(\S+)>=([\d.]+)(?:,\S+)?$", asked, flags=re.MULTILINE))
    pins = (ROOT / "requirements" / "oldest.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"^(\S+)==(\S+)$", pins, flags=re.MULTILINE)) == lowest
