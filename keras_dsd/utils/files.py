"""Files that are complete or absent, whenever the process ends, and the JSON that they hold."""

import dataclasses
import json
import math
import pathlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeVar

from keras_dsd.utils.checks import invalid

_MOST_SHOWN = 200  # characters of an error that a message repeats

_Parsed = TypeVar("_Parsed")


def replace(path: pathlib.Path, write: Callable[[BinaryIO], object]) -> None:
    """Replaces a file in one step by what `write` writes, and makes its folder where there is none.

    Where it can't be written, what was there is complete.
    """
    # Not by the process's id: containers that share a folder may each have the same one.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                write(file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"Expected to write a file. Received: path={str(path)!r}, where the system says: "
            f"{error.strerror or error}. What was there before is whole. Make room, or see that it "
            f"can be written to, and go on from there",
        ) from error


def write_json(path: pathlib.Path, data: object, indent: int | None = 1) -> None:
    """Replaces a file in one step by what JSON makes of `data`."""
    text = json.dumps(data, indent=indent).encode()
    replace(path, lambda file: file.write(text))


def read_json(path: pathlib.Path, parse: Callable[[Any], _Parsed]) -> _Parsed:
    """Returns the content of a JSON file, which `parse` makes of what JSON has.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: The file can't be read, is not complete, or is something else; says how.
    """
    try:
        return parse(json.loads(path.read_bytes().decode("utf-8")))
    except FileNotFoundError:
        raise
    # What a file holds that was cut, or is of something else, may raise any of these in `parse`.
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError,
            ValueError) as error:  # fmt: skip
        raise ValueError(f"{type(error).__name__}: {error}"[:_MOST_SHOWN]) from error


def read_results(
    path: pathlib.Path, parse: Callable[[Any], _Parsed], writer: str, verb: str = "begin"
) -> _Parsed | None:
    """Returns the content of the JSON file `path=` that something long resumes from, if it exists.

    `writer` and `verb` tell in the message what writes such files, and what it does without one.
    """
    try:
        return read_json(path, parse)
    except FileNotFoundError:
        return None
    except ValueError as error:
        expected = f"to be a file that {writer} wrote, or a new one"
        hint = f"Delete it to {verb} anew, or give another path."
        note = f", which is not whole or something else ({error})"
        raise invalid("path", str(path), expected, hint, note) from error


def plain(value: object) -> Any:
    """Returns a value as JSON has it: a dict for a dataclass, a list for a tuple, None for NaN."""
    if dataclasses.is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def number(value: object) -> float:
    """Returns a finite number of JSON as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def number_or_nan(value: object) -> float:
    """Returns a finite number as a float, and None, which stands for NaN in JSON, as NaN."""
    return math.nan if value is None else number(value)
