"""Every block of code of README.md and docs/ runs, or a line below says why it does not."""

import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from tests.helpers import forked, pages, programs

# Blocks of commands that are not run here, by how they start.
ELSEWHERE = {
    "make ": "each is a step of .ci/run, but make bench, whose programs test_benchmarks.py runs",
    "python benchmarks/": "takes minutes to hours; tests of what it measures run it briefly",
    "pip install ": "make runs it, and a test must not change what it runs in",
}
PAGES_ELSEWHERE = {"docs/tutorial.md": "make notebook runs the same program, cell by cell"}
# What to give to Python for the first word of a command.
PROGRAMS_OF_COMMANDS = {
    "python": [],
    "keras-dsd": ["-m", "keras_dsd"],
}
IMPORTS = ["tensorflow", "sklearn.datasets", "keras", "keras_dsd"]
# Languages of what a program prints, or of what no program is.
NOT_CODE = {"text"}
COMMANDS = {"console", "bash"}


def read(page):
    return page.read_text(encoding="utf-8")


def name_of(page):
    return str(page.relative_to(pages.ROOT))


def commands_of(block):
    """The commands of a block, without their prompts and without what they print."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip()]


PROGRAMS = [
    (page, number)
    for page in pages.PAGES
    if name_of(page) not in PAGES_ELSEWHERE
    for number in range(len(pages.programs_of(read(page))))
]


CHOOSE_KERAS = ("KERAS_BACKEND", "KERAS_DSD_PATH", "TF_USE_LEGACY_KERAS")


def commands_in(page):
    """The commands of a page that are to run here."""
    blocks = [block for block in pages.blocks_of(read(page)) if block.language in COMMANDS]
    found = [command for block in blocks for command in commands_of(block)]
    return [command for command in found if not command.startswith(tuple(ELSEWHERE))]


def run(arguments, folder, **variables):
    """Runs Python with Keras 3; forked, where it takes the backend that most do."""
    kept = {name: value for name, value in os.environ.items() if name not in CHOOSE_KERAS}
    env = {**kept, "PYTHONPATH": str(pages.ROOT), "COLUMNS": "100", **variables}
    if variables:
        ran = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=env, capture_output=True, text=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    else:
        ran = forked.run(*arguments, imports=IMPORTS, cwd=folder, env=env)
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-5000:]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "number"), PROGRAMS, ids=[f"{name_of(page)}-{number}" for page, number in PROGRAMS]
)
def test_a_page_runs_from_top_to_bottom(page, number, tmp_path):
    variables = pages.programs_of(read(page))[number].variables
    if variables.get("KERAS_BACKEND") == "torch" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed; `make torch` installs it")
    run([*programs.module("pages"), str(page), str(number)], tmp_path, **variables)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages.PAGES if commands_in(page)], ids=name_of)
def test_the_commands_of_a_page_run(page, tmp_path):
    (tmp_path / "examples").symlink_to(pages.ROOT / "examples")
    if pages.programs_of(read(page)):
        run([*programs.module("pages"), str(page), "0"], tmp_path)
    for command in commands_in(page):
        program, *arguments = shlex.split(command)
        run([*PROGRAMS_OF_COMMANDS[program], *arguments], tmp_path)


@pytest.mark.parametrize("page", pages.PAGES, ids=name_of)
def test_no_block_is_left_out(page):
    for block in pages.blocks_of(read(page)):
        where = f"{name_of(page)}:{block.line}"
        if block.included is not None:
            assert is_tested(block.included), f"{where}: no test runs {block.included}"
        else:
            known = block.language in {"python", *COMMANDS, *NOT_CODE}
            assert known, f"{where}: give the block one of the languages known here"
    fences = len(re.findall(r"^ *```", read(page), flags=re.MULTILINE))
    hidden = read(page).count("<!-- run\n")
    assert fences == 2 * (len(pages.blocks_of(read(page))) - hidden), f"{page}: a fence is open"


def is_tested(path):
    """True if a test names the file, and so runs it."""
    tests = pages.ROOT.glob("tests/*/*.py")
    return any(pathlib.Path(path).name in read(test) for test in tests)


@pytest.mark.slow
def test_the_examples_in_docstrings_run(tmp_path):
    run(programs.module("docstrings"), tmp_path, KERAS_BACKEND="jax")


def test_the_notebook_is_the_tutorial():
    program = [sys.executable, pages.ROOT / "tools" / "make_notebook.py", "--check"]
    subprocess.run(program, check=True)
