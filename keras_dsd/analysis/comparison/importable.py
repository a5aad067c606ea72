"""Checks that processes can start, and can import their arguments, before one starts.

A process that multiprocessing spawns receives functions and classes by name. It imports their
modules. For those of the main script, it runs this script again, as `"__mp_main__"`, except the
code below `if __name__ == "__main__":`.
"""

import ast
import importlib.machinery
import linecache
import pathlib
import pickle
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from keras_dsd.analysis.comparison.training import Job

# Fields of a job, and the arguments of compare() that they come from.
_ARGUMENTS = {
    "build": "build", "data": "data", "evaluate": "evaluate", "apply_options": "apply_options",
    "fit_options": "fit_options", "batches": "batch_norm_data",
}  # fmt: skip
_RERUN = "__mp_main__"  # name of the main script in a process that runs it again
_GUARDED_CALL = """

    if __name__ == "__main__":
        result = keras_dsd.compare(build, data, phases=phases, parallel=2)
        print(result)

or leave parallel out."""
_IMPORTED = """Define build, evaluate and a function that returns the data at the top of a file, \
such as my_model.py, and write:

    from my_model import build, evaluate, load_data
    if __name__ == "__main__":
        keras_dsd.compare(build, load_data, phases=phases, evaluate=evaluate, parallel=2)

or leave parallel out."""


def check_guarded(number: int) -> None:
    """Checks that the main script may start `number` processes at this point.

    Raises:
        ValueError: This point is not guarded, so that each process would start others; or this is
            such a process.
    """
    if number == 1:
        return
    frame = _main_frame()
    if frame is None:
        return
    is_again = frame.f_globals.get("__name__") == _RERUN
    if is_again or (_runs_again() and not _is_guarded(frame)):
        raise ValueError(
            f"Expected the script to call compare() below `if __name__ == '__main__':`, as "
            f"parallel is above 1: each process runs the script again from the top. Received: a "
            f"call that is not guarded, in line {frame.f_lineno} of {frame.f_code.co_filename}. "
            f"Write:{_GUARDED_CALL}"
        )


def check_importable(job: Job, number: int) -> None:
    """Checks that other processes can receive a job, if `number` is above one.

    Raises:
        ValueError: An argument can't be pickled, or holds a function or class that other processes
            can't import.
    """
    if number == 1:
        return
    for field, argument in _ARGUMENTS.items():
        _check_argument(argument, getattr(job, field))


def _check_argument(name: str, value: object) -> None:
    pickler = _Pickler(_Nowhere())
    try:
        pickler.dump(value)
    except Exception as error:  # pickling an arbitrary object may raise anything
        raise ValueError(
            f"Expected `{name}` to be picklable, as parallel is above 1. Received: {name} with an "
            f"object that can't be pickled ({error}), such as a nested function or a lambda. "
            f"{_IMPORTED}"
        ) from error
    for found in pickler.found:
        reason = _why_not_found(found)
        if reason is not None:
            raise ValueError(
                f"Expected `{name}` to be importable by other processes, as parallel is above "
                f"1. Received: {name} with {found.__qualname__!r}, {reason}. {_IMPORTED}"
            )


class _Pickler(pickle.Pickler):
    """Records the functions and classes that a pickle refers to by name."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.found: list[Any] = []

    def reducer_override(self, obj: object) -> Any:
        """Records `obj`, which is then pickled as usual."""
        if isinstance(getattr(obj, "__module__", None), str) and hasattr(obj, "__qualname__"):
            self.found.append(obj)
        return NotImplemented


class _Nowhere:
    """A file that discards its content, as data may be large."""

    def write(self, values: bytes) -> int:
        """Returns the number of bytes."""
        return memoryview(values).nbytes


def _why_not_found(found: Any) -> str | None:
    """Returns the reason why another process can't import a function or class, or None."""
    if found.__module__ in ("__main__", _RERUN):
        if not _runs_again():
            return "of a notebook, a prompt or a program that processes do not run again"
        if found.__qualname__.partition(".")[0] in _guarded_names():
            return "defined below `if __name__ == '__main__':`, which processes skip"
        return None
    if not _is_importable(found.__module__):
        return f"of the module {found.__module__!r}, which is not on sys.path"
    return None


def _is_importable(name: str) -> bool:
    """Returns whether an import finds the package of a module, which may be imported already."""
    package = name.partition(".")[0]
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return any(finder.find_spec(package, None) is not None for finder in finders)


def _runs_again() -> bool:
    """Returns whether a process runs the main script again to import from it."""
    if getattr(sys, "frozen", False):
        return True
    main = sys.modules["__main__"]
    spec: importlib.machinery.ModuleSpec | None = getattr(main, "__spec__", None)
    if spec is not None:
        return spec.name.rpartition(".")[2] != "__main__"  # modules of packages are not
    file = getattr(main, "__file__", None)
    return file is not None and pathlib.Path(file).is_file()


def _main_frame() -> FrameType | None:
    """Returns the frame of the main script's top level, or None."""
    main = threading.main_thread().ident
    frame = None if main is None else sys._current_frames().get(main)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if frame.f_code.co_name == "<module>" and name in ("__main__", _RERUN):
            return frame
        frame = frame.f_back
    return None


def _is_guarded(frame: FrameType) -> bool:
    """Returns whether another process skips the current code; True if unknown."""
    line, script = frame.f_lineno, _parsed(frame.f_code.co_filename)
    for node in ast.walk(script):
        if isinstance(node, ast.If) and _is_guard(node):
            is_around = node.lineno <= line <= (node.end_lineno or line)
            may_have_ended = any(isinstance(each, ast.NotEq) for each in ast.walk(node.test))
            if is_around or (node.lineno < line and may_have_ended):
                return True
    return not script.body


def _guarded_names() -> set[str]:
    """Returns the names that the main script defines only below a guard."""
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for statement in _parsed(str(getattr(sys.modules["__main__"], "__file__", ""))).body:
        guarded = isinstance(statement, ast.If) and _is_guard(statement)
        names[guarded].update(_defined_in(statement))
    return names[True] - names[False]


def _parsed(file: str) -> ast.Module:
    """Returns the statements of a script; empty if it can't be read."""
    linecache.checkcache(file)
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _defined_in(statement: ast.stmt) -> Iterator[str]:
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def _is_guard(statement: ast.If) -> bool:
    """Returns whether a condition tests `__name__`, which differs between processes."""
    words = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(statement.test)}
    return bool(words & {"__name__", "parent_process", "current_process"})
