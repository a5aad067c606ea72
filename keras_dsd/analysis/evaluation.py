"""What a user's `evaluate` is to be, and what it returns: a number, smaller or larger is better."""

import math
import numbers
import pathlib
from typing import Any

from keras_dsd.utils import checks
from keras_dsd.utils.checks import shown

BETTER = {"min": "smaller is better", "max": "larger is better"}


def number(value: Any, words: str, call: str = "evaluate(model)") -> float:
    """Returns what `evaluate` returned as a float; NaN where it is not finite.

    Args:
        value: What it returned.
        words: Of what; they stand in the message.
        call: How it was called.

    Raises:
        TypeError: It is no number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"Expected `evaluate` to return a number. Received: {call}={shown(value)} of "
            f"type {type(value).__name__} ({words}). Return one float, such as "
            f"model.evaluate(x, y)[0] where that is a list, or float(value) of an array."
        )
    found = checks.as_float(call, value)
    return found if math.isfinite(found) else math.nan


def check_evaluate(evaluate: Any, takes: str, example: str) -> None:
    """Checks that `evaluate` can be called.

    Args:
        evaluate: What was given.
        takes: Its arguments, for the message.
        example: What to return of them.

    Raises:
        TypeError: It can't.
    """
    if not callable(evaluate):
        raise TypeError(
            f"Expected `evaluate` to be a function that takes the {takes} and returns a number. "
            f"Received: evaluate={shown(evaluate)} of type {type(evaluate).__name__}. Give "
            f"lambda {takes}: {example}."
        )


def check_mode(mode: Any) -> str:
    """Returns `mode`, which is "min" or "max".

    Raises:
        ValueError: It is something else.
    """
    advice = "Give 'min' where evaluate returns a loss, 'max' where it returns an accuracy."
    return checks.choice("mode", mode, ("min", "max"), advice)


def check_file(path: Any, example: str) -> pathlib.Path | None:
    """Returns `path`, a file that can be written; None stays None.

    Args:
        path: What was given.
        example: A name for one, for the message.

    Raises:
        TypeError: It is no path.
        ValueError: It is a folder, or there is no folder for it.
    """
    file = checks.path("path", path, "file", example)
    try:
        is_usable = file is None or (not file.is_dir() and file.parent.is_dir())
    except OSError:  # a name that the file system takes for too long
        is_usable = False
    if not is_usable:
        raise ValueError(
            f"Expected `path` to be a file in a folder that exists. Received: path={shown(path)}. "
            f"Make the folder first, or give a file in it, such as {example!r}."
        )
    return file
