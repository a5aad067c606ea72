"""Argument checks that public names share, and their errors.

In every function, `name` is the name of the argument and `value` its value. A check returns the
value, converted to the documented type. It raises TypeError for a wrong type and ValueError for a
wrong value; both messages have three parts: expected, received, what to do.
"""

import math
import numbers
import operator
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

_MOST_SHOWN = 200  # number of characters of a value in a message

_Converted = TypeVar("_Converted")


def shown(value: object) -> str:
    """Returns `repr(value)` for a message, truncated if it is long."""
    try:
        text = repr(value)
    except Exception as error:  # the repr of an arbitrary value may raise anything
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def invalid(name: str, value: object, expected: str, hint: str, note: str = "") -> ValueError:
    """Returns the error for an argument of the right type and a wrong value.

    `expected` completes "Expected `name` ...": "to be in [0, 1)". `hint` is the advice. `note`
    follows the value in the message, such as ", which is plain training".
    """
    return ValueError(
        f"Expected `{name}` {expected}. Received: {name}={shown(value)}{note}. {hint}"
    )


def invalid_type(name: str, value: object, expected: str, hint: str, note: str = "") -> TypeError:
    """Returns the error for an argument of a wrong type; see `invalid`."""
    received = f"{name}={shown(value)} of type {type(value).__name__}{note}"
    return TypeError(f"Expected `{name}` {expected}. Received: {received}. {hint}")


def fraction(name: str, value: object) -> float:
    """Returns a real number in [0, 1) as a float."""
    number = _real(name, value, "a number in [0, 1), such as 0.3 for 30 %")
    if not 0.0 <= number < 1.0:
        hint = "Give the fraction of weights to prune, such as 0.3 for 30 %."
        raise invalid(name, value, "to be in [0, 1)", hint)
    return number


def positive(name: str, value: object) -> float:
    """Returns a finite real number above 0 as a float."""
    number = _real(name, value, "a number above 0, such as 0.1")
    if not 0.0 < number < math.inf:
        hint = "Give a factor, such as 0.1 for a tenth."
        raise invalid(name, value, "to be finite and above 0", hint)
    return number


def not_negative(name: str, value: object) -> float:
    """Returns a finite real number of at least 0 as a float."""
    number = _real(name, value, "a number of at least 0, such as 0.01")
    if not 0.0 <= number < math.inf:
        raise invalid(name, value, "to be finite and at least 0", "Give a bound, such as 0.01.")
    return number


def whole_number(
    name: str, value: object, least: int, unit: str = "epochs", most: int = sys.maxsize
) -> int:
    """Returns an integer from `least` to `most`, a number of `unit`, as an int."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        expected = f"to be a whole number of {unit}, at least {least}"
        raise invalid_type(name, value, expected, "Give an int.")
    number = converted(name, value, operator.index, "an int")
    if number < least:
        expected = f"to be at least {least} ({unit})"
        raise invalid(name, value, expected, "Give a larger whole number.")
    if number > most:
        expected = f"to be at most {most} ({unit})"
        raise invalid(name, value, expected, "Give a smaller whole number.")
    return number


def flag(name: str, value: object) -> bool:
    """Returns True or False."""
    if not isinstance(value, bool):
        raise invalid_type(name, value, "to be True or False", "Give one of the two.")
    return value


def choice(name: str, value: object, choices: tuple[str, ...], advice: str = "") -> str:
    """Returns one of `choices`; `advice` replaces the hint of the error."""
    # Comparing with another type, such as an array, may return anything or raise.
    if not isinstance(value, str) or value not in choices:
        expected = f"to be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
        raise invalid(name, value, expected, advice or "Give one of them.")
    return value


def listed(name: str, value: Any, expected: str, hint: str, kind: type = Sequence) -> list[Any]:
    """Returns the items of a collection of type `kind` as a list; a str is refused."""
    is_listed = isinstance(value, kind) and not isinstance(value, str | bytes)
    if not is_listed:
        raise invalid_type(name, value, expected, hint)
    return items(name, value)


def check_items(name: str, found: Iterable[object], kind: Any, expected: str, hint: str) -> None:
    """Raises TypeError if an item of the argument `name` is not of the type `kind`."""
    for index, each in enumerate(found):
        if not isinstance(each, kind):
            raise TypeError(
                f"Expected every item of `{name}` {expected}. Received: {name}[{index}]="
                f"{shown(each)} of type {type(each).__name__}. {hint}"
            )


def items(name: str, value: Iterable[Any]) -> list[Any]:
    """Returns the items of a collection, or the pairs of a mapping, as a list."""
    if isinstance(value, Mapping):
        return converted(name, value, lambda mapping: list(mapping.items()), "a plain dict")
    return converted(name, value, list, "a plain list")


def converted(
    name: str, value: Any, convert: Callable[[Any], _Converted], wanted: str
) -> _Converted:
    """Returns `convert(value)`; a foreign type may raise anything in it."""
    try:
        return convert(value)
    except Exception as error:
        expected = f"to be of a type that can be used as {wanted}"
        note = f", which raised {shown(error)}"
        raise invalid_type(name, value, expected, f"Give {wanted}.", note) from error


def as_float(name: str, value: Any) -> float:
    """Returns a number as a float; infinity if it is too large for one."""

    def convert(number: Any) -> float:
        try:
            return float(number)
        except OverflowError:
            return math.inf

    return converted(name, value, convert, "a float")


def normalise(frozen: object, **fields: object) -> None:
    """Sets fields of a frozen dataclass, in its `__post_init__`, to their checked values."""
    for name, value in fields.items():
        object.__setattr__(frozen, name, value)


def path(name: str, value: object, kind: str, example: str) -> pathlib.Path | None:
    """Returns a str or any `os.PathLike` as a path, and None as None.

    `kind` is `"file"` or `"folder"`; `example` is a valid path for the message.
    """
    expected = f"to be the path of a {kind}"
    if not isinstance(value, str | os.PathLike | None):
        raise invalid_type(name, value, expected, f"Give a str, such as {example!r}.")
    if value is None:
        return None
    found = converted(name, value, pathlib.Path, f"a str, such as {example!r}")
    try:
        if b"\0" in os.fsencode(found):
            raise ValueError("null byte")
    except ValueError as error:
        note = f", which is invalid on every file system ({error})"
        raise invalid(name, value, expected, f"Give one such as {example!r}.", note) from error
    return found


def _real(name: str, value: object, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise invalid_type(name, value, f"to be {wanted}", "Give a float.")
    return as_float(name, value)
