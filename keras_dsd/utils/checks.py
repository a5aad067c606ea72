"""Checks of arguments that several public names share, and how messages show what was given."""

import math
import numbers
import operator
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_MOST_SHOWN = 200  # characters of what was given that a message repeats


def shown(value: object) -> str:
    """Returns `repr(value)` for a message: cut where it is long, whatever `value` is."""
    try:
        text = repr(value)
    except Exception as error:  # anything may be given, and its repr may raise anything
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def invalid(name: str, value: object, expected: str, hint: str) -> ValueError:
    """Returns the error for an argument of the right type and a wrong value.

    Args:
        name: What the caller calls the argument.
        value: What was given.
        expected: What it should have been; completes "Expected `name` ...": "to be in [0, 1)".
        hint: What to do, in one or more sentences.
    """
    return ValueError(f"Expected `{name}` {expected}. Received: {name}={shown(value)}. {hint}")


def invalid_type(name: str, value: object, expected: str, hint: str) -> TypeError:
    """Returns the error for an argument of a wrong type; arguments as for `invalid`."""
    received = f"{name}={shown(value)} of type {type(value).__name__}"
    return TypeError(f"Expected `{name}` {expected}. Received: {received}. {hint}")


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
        hint = "Give the share of weights to prune, such as 0.3 for 30 %."
        raise invalid(name, value, "to be in [0, 1)", hint)
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
    if not 0.0 < number < math.inf:
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
    if not 0.0 <= number < math.inf:
        raise _not_finite(name, value, "at least 0", "a bound, such as 0.01")
    return number


def whole_number(
    name: str, value: object, least: int, unit: str = "epochs", most: int = sys.maxsize
) -> int:
    """Returns `value` as an int of at least `least`.

    Args:
        name: What the caller calls the argument.
        value: What was given. Any integer but `bool`.
        least: The smallest value allowed.
        unit: What is counted.
        most: The largest value allowed.

    Raises:
        TypeError: `value` is not an integer.
        ValueError: `value` is below `least` or above `most`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"Expected `{name}` to be a whole number of {unit}, at least {least}. "
            f"Received: {name}={shown(value)} of type {type(value).__name__}. Give an int."
        )
    number = converted(name, value, operator.index, "an int")
    if number < least:
        raise ValueError(
            f"Expected `{name}` to be at least {least} ({unit}). Received: {name}={shown(value)}."
            f" Give a larger whole number."
        )
    if number > most:
        raise ValueError(
            f"Expected `{name}` to be at most {most} ({unit}). Received: {name}={shown(value)}."
            f" Give a smaller whole number."
        )
    return number


def flag(name: str, value: object) -> bool:
    """Returns `value`, which is True or False.

    Args:
        name: What the caller calls the argument.
        value: What was given.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(value, bool):
        raise TypeError(
            f"Expected `{name}` to be True or False. Received: {name}={shown(value)} of type "
            f"{type(value).__name__}. Give one of the two."
        )
    return value


def choice(name: str, value: object, choices: tuple[str, ...], advice: str = "") -> str:
    """Returns `value`, which is one of `choices`.

    Args:
        name: What the caller calls the argument.
        value: What was given.
        choices: What may be given.
        advice: What to do, for the message. Defaults to giving one of them.

    Raises:
        ValueError: It is none of them.
    """
    # A comparison with something else, such as an array, may be anything or raise.
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"Expected `{name}` to be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}. "
            f"Received: {name}={shown(value)}. {advice or 'Give one of them.'}"
        )
    return value


def items(name: str, value: Iterable[Any]) -> list[Any]:
    """Returns what a collection holds, as a list; of a mapping, its pairs.

    Args:
        name: What the caller calls the argument.
        value: What was given, of a type that holds something.

    Raises:
        TypeError: It can't be read.
    """
    if isinstance(value, Mapping):
        return converted(name, value, lambda mapping: list(mapping.items()), "a plain dict")
    return converted(name, value, list, "a plain list")


def converted(name: str, value: Any, convert: Callable[[Any], Any], wanted: str) -> Any:
    """Returns `convert(value)`; a type of somebody else's may raise anything there.

    Args:
        name: What the caller calls the argument.
        value: What was given.
        convert: What to make of it.
        wanted: That, in words.

    Raises:
        TypeError: It can't be made of it.
    """
    try:
        return convert(value)
    except Exception as error:
        raise _unusable(name, value, wanted, error) from error


def as_float(name: str, value: Any) -> float:
    """Returns a number as a float; an infinite one where it is too large for that.

    Args:
        name: What the caller calls it.
        value: The number.

    Raises:
        TypeError: It can't be made of it.
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except Exception as error:
        raise _unusable(name, value, "a float", error) from error


def normalise(frozen: object, **fields: Any) -> None:
    """Sets fields of a frozen dataclass that is being made, to what its checks returned."""
    for name, value in fields.items():
        object.__setattr__(frozen, name, value)


def path(name: str, value: object, kind: str, example: str) -> pathlib.Path | None:
    """Returns `value` as a path; None stays None.

    Args:
        name: What the caller calls the argument.
        value: What was given. A str or any `os.PathLike`, or None.
        kind: `"file"` or `"folder"`.
        example: One of the kind, for the message.

    Raises:
        TypeError: `value` is something else.
        ValueError: No file system has such a path.
    """
    if not isinstance(value, str | os.PathLike | None):
        raise TypeError(
            f"Expected `{name}` to be the path of a {kind}. Received: {name}={shown(value)} of "
            f"type {type(value).__name__}. Give a str, such as {example!r}."
        )
    if value is None:
        return None
    found: pathlib.Path = converted(name, value, pathlib.Path, f"a str, such as {example!r}")
    try:
        if b"\0" in os.fsencode(found):
            raise ValueError("null byte")
    except ValueError as error:
        raise ValueError(
            f"Expected `{name}` to be the path of a {kind}. Received: {name}={shown(value)}, "
            f"which no file system has ({error}). Give one such as {example!r}."
        ) from error
    return found


def _not_finite(name: str, value: object, bound: str, example: str) -> ValueError:
    return invalid(name, value, f"to be finite and {bound}", f"Give {example}.")


def _real(name: str, value: object, wanted: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise invalid_type(name, value, f"to be {wanted}", "Give a float.")
    return as_float(name, value)


def _unusable(name: str, value: object, wanted: str, error: Exception) -> TypeError:
    return TypeError(
        f"Expected `{name}` to be of a type that can be used as {wanted}. Received: "
        f"{name}={shown(value)} of type {type(value).__name__}, which raised {shown(error)}. "
        f"Give {wanted}."
    )
