"""Checks of arguments that several public names share."""

import numbers
import os
import pathlib


def fraction(name: str, value: object) -> float:
    """Returns `value` as a float in [0, 1).

    Args:
        name: What the caller calls the argument; it stands in the message.
        value: What was given. Any real number but `bool`.

    Raises:
        TypeError: `value` is not a real number.
        ValueError: `value` is NaN or outside [0, 1).
    """
    number = _real(name, value, "a number in [0, 1), such as 0.3 for 30 %")
    if not 0.0 <= number < 1.0:
        raise ValueError(
            f"Expected `{name}` to be in [0, 1). Received: {name}={value!r}. "
            f"Give the share of weights to prune, such as 0.3 for 30 %."
        )
    return number


def positive(name: str, value: object) -> float:
    """Returns `value` as a finite float above 0.

    Args:
        name: What the caller calls the argument.
        value: What was given. Any real number but `bool`.

    Raises:
        TypeError: `value` is not a real number.
        ValueError: `value` is NaN, infinite, zero or negative.
    """
    number = _real(name, value, "a number above 0, such as 0.1")
    if not 0.0 < number < float("inf"):
        raise _not_finite(name, value, "above 0", "a factor, such as 0.1 for a tenth")
    return number


def not_negative(name: str, value: object) -> float:
    """Returns `value` as a finite float of at least 0.

    Args:
        name: What the caller calls the argument.
        value: What was given. Any real number but `bool`.

    Raises:
        TypeError: `value` is not a real number.
        ValueError: `value` is NaN, infinite or negative.
    """
    number = _real(name, value, "a number of at least 0, such as 0.01")
    if not 0.0 <= number < float("inf"):
        raise _not_finite(name, value, "at least 0", "a bound, such as 0.01")
    return number


def whole_number(name: str, value: object, least: int, unit: str = "epochs") -> int:
    """Returns `value` as an int of at least `least`.

    Args:
        name: What the caller calls the argument.
        value: What was given. Any integer but `bool`.
        least: The smallest value allowed.
        unit: What is counted.

    Raises:
        TypeError: `value` is not an integer.
        ValueError: `value` is below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"Expected `{name}` to be a whole number of {unit}, at least {least}. "
            f"Received: {name}={value!r} of type {type(value).__name__}. Give an int."
        )
    if value < least:
        raise ValueError(
            f"Expected `{name}` to be at least {least} ({unit}). Received: {name}={value!r}."
            f" Give a larger whole number."
        )
    return int(value)


def path(name: str, value: object, kind: str, example: str) -> pathlib.Path | None:
    """Returns `value` as a path; None stays None.

    Args:
        name: What the caller calls the argument.
        value: What was given. A str or any `os.PathLike`, or None.
        kind: `"file"` or `"folder"`.
        example: One of the kind, for the message.

    Raises:
        TypeError: `value` is something else.
    """
    if not isinstance(value, str | os.PathLike | None):
        raise TypeError(
            f"Expected `{name}` to be the path of a {kind}. Received: {name}={value!r} of type "
            f"{type(value).__name__}. Give a str, such as {example!r}."
        )
    return None if value is None else pathlib.Path(value)


def _not_finite(name: str, value: object, bound: str, example: str) -> ValueError:
    return ValueError(
        f"Expected `{name}` to be finite and {bound}. Received: {name}={value!r}. Give {example}."
    )


def _real(name: str, value: object, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"Expected `{name}` to be {wanted}. "
            f"Received: {name}={value!r} of type {type(value).__name__}. Give a float."
        )
    return float(value)
