"""The program behind `make test`: what it runs, and that nothing that goes wrong looks right."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools" / "run_tests.py"
TESTS = """
import os, pytest
def test_passes(): pass
@pytest.mark.skip
def test_is_skipped(): pass
def test_fails(): assert False
@pytest.fixture
def broken(): assert False
def test_has_an_error(broken): pass
def test_exits(): os._exit(0)
def test_is_killed(): os.kill(os.getpid(), 9)
"""


def load():
    spec = importlib.util.spec_from_file_location("run_tests", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_folder_of_tests_is_run():
    run = {each for parts in load().TESTS.values() for folders in parts for each in folders}
    assert run == {path.parent.name for path in ROOT.glob("tests/*/test_*.py")}


def test_a_path_may_be_run_in_part():
    program = load()
    assert program.parts_of(["torch/all_backends", "jax"]) == [
        ("jax", ["all_backends", "keras3"]), ("torch", ["all_backends"]),
    ]  # fmt: skip
    assert len(program.parts_of([])) == sum(map(len, program.TESTS.values()))


MARKED = """
import pytest
def test_of_each_path(): pass
@pytest.mark.once_per_keras
def test_once(): pass
@pytest.mark.only_on("jax", "torch")
def test_only_there(): pass
"""
# Of tests that are not slow.
SELECTED = {
    "tf_keras": {"test_of_each_path"},
    "jax": {"test_of_each_path", "test_once", "test_only_there"},
    "tensorflow": {"test_of_each_path"},
    "torch": {"test_of_each_path", "test_only_there"},
}


@pytest.mark.slow
@pytest.mark.parametrize("path", load().PATHS)
def test_a_path_runs_what_its_markers_say(path, tmp_path):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_marked.py").write_text(MARKED)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "not slow"],
        cwd=tmp_path, env={**os.environ, **load().PATHS[path]}, capture_output=True, text=True,
    )  # fmt: skip
    found = {line.partition("::")[2] for line in ran.stdout.splitlines() if "::" in line}
    assert found == SELECTED[path], ran.stdout + ran.stderr


SAID = {
    "passes": (0, "jax: 1 passed, 0 failed, 0 skipped\n1 passed, 0 failed, 0 skipped\n"),
    "passes or skipped": (0, "\n1 passed, 0 failed, 1 skipped\n"),
    "passes or fails or error": (1, "\n1 passed, 2 failed, 0 skipped\n"),
    "exits": (1, "exit code 0 before it could report)\n0 passed, 1 failed, 0 skipped\n"),
    "passes or killed": (1, "signal 9 before it could report)\n0 passed, 1 failed, 0 skipped\n"),
    "nothing": (1, "0 skipped (no tests)\n0 passed, 0 failed, 0 skipped\n"),
    "of_one_path": (
        0,
        "tf_keras: 1 passed, 0 failed, 0 skipped\njax: 0 passed, 0 failed, 0 skipped (no tests)\n"
        "1 passed, 0 failed, 0 skipped\n",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("chosen", SAID)
def test_what_it_says_and_its_exit_code(chosen, tmp_path):
    run = [each for parts in load().TESTS.values() for folders in parts for each in folders]
    for folder in {"tools", *(f"tests/{each}" for each in run)}:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tools" / "run_tests.py").write_text(PROGRAM.read_text())
    (tmp_path / "tests" / "all_backends" / "test_each.py").write_text(TESTS)
    (tmp_path / "tests" / "unit" / "test_one.py").write_text("def test_of_one_path(): pass")
    paths = ["--only=jax", "--only=tf_keras"] if chosen == "of_one_path" else ["--only=jax"]
    ran = subprocess.run(
        [sys.executable, "tools/run_tests.py", *paths, "--jobs=1", "-k", chosen],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    code, ending = SAID[chosen]
    assert ran.stdout.endswith(ending)
    slowest = ran.stdout.partition("==== The slowest tests\n")[2]
    assert slowest
    was_measured = chosen.startswith("passes") and "killed" not in chosen
    assert ("s  jax  tests.all_backends.test_each::test_passes" in slowest) == was_measured
    assert ran.returncode == code
