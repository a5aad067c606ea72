"""Files that are written atomically, and JSON."""

import dataclasses
import json
import math
import pathlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeVar

from keras_dsd.utils.checks import invalid

_MOST_SHOWN = 200  # number of characters of an error in a message

_Parsed = TypeVar("_Parsed")


def replace(path: pathlib.Path, write: Callable[[BinaryIO], object]) -> None:
    """Replaces a file atomically by the output of `write`, and creates its folder if necessary.

    If writing fails, the previous file is unchanged.
    """
    # Not by process id: containers that share a folder may have equal ones.
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
            f"Expected a writable file. Received: path={str(path)!r}, which failed with: "
            f"{error.strerror or error}. The previous file is unchanged. Free disk space, or make "
            f"the folder writable, and resume",
        ) from error


def write_json(path: pathlib.Path, data: object, indent: int | None = 1) -> None:
    """Replaces a file atomically by `data` as JSON."""
    text = json.dumps(data, indent=indent).encode()
    replace(path, lambda file: file.write(text))


def read_json(path: pathlib.Path, parse: Callable[[Any], _Parsed]) -> _Parsed:
    """Returns the content of a JSON file, converted by `parse`.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file can't be read, is incomplete, or has another content.
    """
    try:
        return parse(json.loads(path.read_bytes().decode("utf-8")))
    except FileNotFoundError:
        raise
    # A truncated or foreign file may raise any of these in `parse`.
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError,
            ValueError) as error:  # fmt: skip
        raise ValueError(f"{type(error).__name__}: {error}"[:_MOST_SHOWN]) from error


def read_results(
    path: pathlib.Path, parse: Callable[[Any], _Parsed], writer: str, verb: str = "start"
) -> _Parsed | None:
    """Returns the content of the JSON file that a long computation resumes from, or None.

    In the message, `writer` names what writes such files, and `verb` what to do without one.

    Raises:
        ValueError: The file is incomplete, or has another content.
    """
    try:
        return read_json(path, parse)
    except FileNotFoundError:
        return None
    except ValueError as error:
        expected = f"to be a file that {writer} wrote, or a new one"
        hint = f"Delete it to {verb} again, or give another path."
        note = f", which is incomplete or another file ({error})"
        raise invalid("path", str(path), expected, hint, note) from error


def plain(value: object) -> Any:
    """Returns a value as JSON types: a dict for a dataclass, a list for a tuple, None for NaN."""
    if dataclasses.is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def number(value: object) -> float:
    """Returns a finite JSON number as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def number_or_nan(value: object) -> float:
    """Returns a finite JSON number as a float, and None as NaN."""
    return math.nan if value is None else number(value)
