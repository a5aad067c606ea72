"""JSON files that something long goes on from: whole ones, of finite numbers."""

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

from keras_dsd.utils.files import replace

_Parsed = TypeVar("_Parsed")


def write(path: pathlib.Path, data: Any) -> None:
    """Replaces the file in one go, so that whenever the process ends, a whole one is there.

    Args:
        path: The file.
        data: What JSON has.
    """
    replace(path, lambda file: file.write(json.dumps(data, indent=1).encode()))


def read(path: pathlib.Path, parse: Callable[[Any], _Parsed], writer: str, verb: str) -> _Parsed:
    """Returns what a file holds.

    Args:
        path: The file.
        parse: Takes what JSON has of it, and raises an error where it is something else.
        writer: What writes such files, for the message.
        verb: What it does to what it keeps there: `"scan"`, to begin a scan anew.

    Raises:
        ValueError: It is no such file.
    """
    try:
        return parse(json.loads(path.read_bytes().decode("utf-8")))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"Expected `path` to be a file that {writer} wrote, or a new one. Received: "
            f"path={str(path)!r}, which is not whole or something else "
            f"({type(error).__name__}: {error}). Delete it to {verb} anew, or give another path."
        ) from error


def number(value: Any) -> float:
    """Returns a number as a float.

    Raises:
        ValueError: It is something else, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def number_or_nan(value: Any) -> float:
    """Returns a number as a float; NaN, which JSON has not, for None.

    Raises:
        ValueError: It is something else, or not finite.
    """
    return math.nan if value is None else number(value)
