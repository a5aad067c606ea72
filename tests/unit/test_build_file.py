"""BUILD has the layers that import-linter checks, and every folder of tests."""

import ast
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def build():
    return ast.parse((ROOT / "BUILD").read_text(encoding="utf-8"))


def test_the_layers_are_those_of_import_linter(build):
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    checked = [re.split(" [|:] ", layer) for layer in _contract(config)["layers"]]
    arguments = [argument for node in ast.walk(build) for argument in getattr(node, "keywords", ())]
    (layers,) = [ast.literal_eval(each.value) for each in arguments if each.arg == "layers"]
    assert [*layers, ["__main__"]] == checked[::-1]


def _contract(config):
    contracts = config["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each.get("containers") == ["keras_dsd"]]
    return contract


def test_every_folder_of_tests_has_a_target(build):
    (loop,) = [node for node in ast.walk(build) if isinstance(node, ast.ListComp)]
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert {*ast.literal_eval(loop.generators[0].iter)} == folders
