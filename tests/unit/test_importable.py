"""Arguments that compare(parallel=...) refuses before a process starts, or passes to it."""

import dataclasses
import functools
import importlib
import os
import pathlib
import pickle
import runpy
import subprocess
import sys
import types

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.analysis.comparison.importable import check_importable

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMPORTS = "import sys, threading\nfrom keras_dsd.analysis.comparison.importable import *\n"
UNGUARDED = {
    "at the top": "check_guarded(2)",
    "in a function": "def main():\n    check_guarded(2)\nmain()",
    "below another condition": "if len(sys.argv):\n    check_guarded(2)",
    "after a guard": "if __name__ == '__main__':\n    print()\ncheck_guarded(2)",
    "in a thread": """
found = []
def start():
    try:
        check_guarded(2)
    except ValueError as error:
        found.append(error)
thread = threading.Thread(target=start)
thread.start()
thread.join()
raise found[0]
""",
}
GUARDED = {
    "in the guard": "if __name__ == '__main__':\n    check_guarded(2)",
    "in a function": "def main():\n    check_guarded(2)\nif '__main__' == __name__:\n    main()",
    "in a block": "try:\n    if __name__ == '__main__':\n        check_guarded(2)\nfinally: pass",
    "after an end": "if __name__ != '__main__':\n    sys.exit()\ncheck_guarded(2)",
    "by the process": """
import multiprocessing
if multiprocessing.parent_process() is None:
    check_guarded(2)
""",
    "one seed at a time": "check_guarded(1)",
}


def run(tmp_path, text, name="__main__"):
    script = tmp_path / "script.py"
    script.write_text(IMPORTS + text)
    return runpy.run_path(str(script), run_name=name)


@pytest.mark.parametrize("text", UNGUARDED.values(), ids=UNGUARDED)
def test_a_call_that_every_process_would_make_again_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"is not guarded, in line \d+ of .*script.py") as caught:
        run(tmp_path, text)
    assert str(caught.value).endswith("""Write:

    if __name__ == "__main__":
        result = keras_dsd.compare(build, data, phases=phases, parallel=2)
        print(result)

or leave parallel out.""")


@pytest.mark.parametrize("text", GUARDED.values(), ids=GUARDED)
def test_a_guarded_call_is_not_refused(tmp_path, text):
    run(tmp_path, text)


def test_a_process_that_runs_the_script_again_starts_no_other(tmp_path):
    with pytest.raises(ValueError, match="not guarded, in line 4 of"):
        run(tmp_path, "if len(__name__):\n    check_guarded(2)", name="__mp_main__")


def test_compare_refuses_before_it_reads_data(tmp_path):
    call = "dsd.compare(print, sys.exit, phases=dsd.timelines.dsd(1, 1, 1), parallel=2)"
    with pytest.raises(ValueError, match="is not guarded, in line 3 of"):
        run(tmp_path, f"import keras_dsd as dsd; {call}")


@dataclasses.dataclass
class Job:
    """The arguments of a comparison that other processes are given."""

    build: object = dsd.compare
    data: object = dsd.compare
    evaluate: object = None
    apply_options: object = None
    fit_options: object = None
    batches: object = None


class Value:
    """Something that a script defines."""


def of_module(name, value=Value, **attributes):
    """Returns a copy of `value`, as if it were from a module made in this process."""
    made = type(value.__name__, (), {"__module__": name, "__qualname__": value.__qualname__})
    module = types.ModuleType(name)
    vars(module).update(attributes, **{value.__name__: made})
    return module, made


@pytest.mark.parametrize("argument", [field.name for field in dataclasses.fields(Job)])
@pytest.mark.parametrize("held", [
    lambda made: made, lambda made: functools.partial(made, 3), lambda made: {"x": [made()]},
], ids=["itself", "in a partial", "an instance in a dict"])  # fmt: skip
def test_what_a_notebook_defines_is_refused_wherever_it_is(monkeypatch, argument, held):
    module, made = of_module("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    name = {"batches": "batch_norm_data"}.get(argument, argument)
    with pytest.raises(ValueError, match=f"`{name}` to be importable .*'Value', of a notebook") as (
        caught
    ):
        check_importable(Job(**{argument: held(made)}), 2)
    assert str(caught.value).endswith("""such as my_model.py, and write:

    from my_model import build, evaluate, load_data
    if __name__ == "__main__":
        keras_dsd.compare(build, load_data, phases=phases, evaluate=evaluate, parallel=2)

or leave parallel out.""")
    check_importable(Job(**{argument: held(made)}), 1)


def test_what_no_other_process_can_import_is_refused(monkeypatch):
    module, made = of_module("made_here")
    monkeypatch.setitem(sys.modules, "made_here", module)
    with pytest.raises(ValueError, match="of the module 'made_here', which is not on sys.path"):
        check_importable(Job(build=made), 2)


def test_what_the_main_program_of_a_package_defines_is_refused(monkeypatch):
    spec = importlib.machinery.ModuleSpec("package.__main__", None)
    module, made = of_module("__main__", __spec__=spec, __file__=__file__)
    monkeypatch.setitem(sys.modules, "__main__", module)
    with pytest.raises(ValueError, match="a program that processes do not run again"):
        check_importable(Job(build=made), 2)


def test_what_is_defined_below_the_guard_is_refused(tmp_path):
    text = "if __name__ == '__main__':\n    def build(): pass\n    check_importable(Job(build), 2)"
    with pytest.raises(ValueError, match="'build', defined below `if __name__"):
        run(tmp_path, f"from tests.unit.test_importable import Job\n{text}")
    run(tmp_path, f"from tests.unit.test_importable import Job\ndef build(): pass\n{text}")


@pytest.mark.parametrize("argument", ["build", "data", "fit_options"])
def test_what_can_not_be_pickled_is_refused_by_name(argument):
    with pytest.raises(
        ValueError, match=f"Received: {argument} with an object that can't be pickled .*<la"
    ):
        check_importable(Job(**{argument: {"x": lambda: None}}), 2)


def test_large_data_are_not_copied(monkeypatch):
    data = {"train": (np.zeros(10), np.zeros(10))}
    monkeypatch.setattr(pickle, "dumps", pytest.fail)
    check_importable(Job(data=data, fit_options={"batch_size": np.int64(3)}), 2)


SCRIPT = """
import multiprocessing
from keras_dsd.analysis.comparison.importable import check_guarded, check_importable
from tests.unit.test_importable import Job


def build():
    return 7


if __name__ == "__main__":
    check_guarded(2)
    check_importable(Job(build), 2)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(build))
"""


def test_a_process_finds_what_was_not_refused(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr
