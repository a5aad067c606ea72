"""Commands of `keras-dsd`, their results, and how they fail."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

_MOST_SHOWN = 300  # characters of somebody else's error


class UsageError(Exception):
    """Wrong usage: exit code 2."""


class CommandError(Exception):
    """The command was understood, and failed: exit code 1."""


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a command: plain values for `--json`, and text for people."""

    data: Mapping[str, Any]
    text: str


@dataclasses.dataclass(frozen=True)
class Command:
    """One command, with its help on one screen.

    Attributes:
        name: The first argument.
        summary: A line of the help of `keras-dsd`.
        description: What it does, in up to three lines.
        needed: Flags that it can't do without, as the usage shows them.
        define: Defines its flags.
        values: Placeholders for the values of flags whose types do not tell.
        groups: Flags that share a line of the help, and that line's text.
        example: A command line to copy.
        run: Runs it, given the flags and the path of the model.
    """

    name: str
    summary: str
    description: str
    define: Callable[[flags.FlagValues], None]
    values: Mapping[str, str]
    groups: Mapping[tuple[str, ...], str]
    example: str
    run: Callable[[flags.FlagValues, str], Result]
    needed: str = ""


def one_line(error: BaseException) -> str:
    """Returns the message of an error of Keras, NumPy or the system, as the start of one line."""
    # What goes wrong in traced code begins with where that was, over many lines.
    _, _, said = str(error).rpartition("in user code:")
    causes = re.findall(r"^ *\w+(?:Error|Exception): .*", said, re.DOTALL | re.MULTILINE)
    said = " ".join((causes[0] if causes else said).split()) or type(error).__name__
    return said if len(said) <= _MOST_SHOWN else f"{said[:_MOST_SHOWN]}..."
