"""Checks of `evaluate` functions and of their results."""

import math
import numbers
import os
import pathlib

from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid, invalid_type, shown

BETTER = {"min": "smaller is better", "max": "larger is better"}


def number(value: object, subject: str, call: str = "evaluate(model)") -> float:
    """Returns the result of `evaluate` as a float; NaN if it is not finite.

    In the message, `subject` describes the evaluated model, and `call` is the code of the call.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"Expected `evaluate` to return a number. Received: {call}={shown(value)} of "
            f"type {type(value).__name__} ({subject}). Return one float, such as "
            f"model.evaluate(x, y)[0] if this is a list, or float(value) of an array."
        )
    found = checks.as_float(call, value)
    return found if math.isfinite(found) else math.nan


def check_evaluate(evaluate: object, takes: str, example: str) -> None:
    """Checks that `evaluate` can be called; `takes` and `example` are for the message."""
    if not callable(evaluate):
        expected = f"to be a function that takes the {takes} and returns a number"
        raise invalid_type("evaluate", evaluate, expected, f"Give lambda {takes}: {example}.")


def check_mode(mode: object) -> str:
    """Returns `mode`, which is "min" or "max"."""
    advice = "Give 'min' if evaluate returns a loss, 'max' if it returns an accuracy."
    return checks.choice("mode", mode, ("min", "max"), advice)


def check_file(path: "str | os.PathLike[str] | None", example: str) -> pathlib.Path | None:
    """Returns `path`, a file in a folder that exists, such as `example`; None stays None."""
    file = checks.path("path", path, "file", example)
    try:
        is_usable = file is None or (not file.is_dir() and file.parent.is_dir())
    except OSError:  # a name that is too long for the file system
        is_usable = False
    if not is_usable:
        hint = f"Create the folder first, or give another file, such as {example!r}."
        raise invalid("path", path, "to be a file in a folder that exists", hint)
    return file
