"""Commands of `keras-dsd`, their results and errors."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

_MOST_SHOWN = 300  # maximum length of a foreign error message


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
        description: Description of up to three lines.
        needed: Required flags, as shown in the usage.
        define: Defines its flags.
        values: Placeholders for the values of flags, in the help.
        groups: Flags that share a line of the help, and that line's text.
        example: A command line to copy.
        run: Runs it with the flags and the path of the model.
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
    """Returns the message of an error of Keras, NumPy or the system, in one line."""
    # An error in traced code starts with its location, over many lines.
    _, _, said = str(error).rpartition("in user code:")
    causes = re.findall(r"^ *\w+(?:Error|Exception): .*", said, re.DOTALL | re.MULTILINE)
    said = " ".join((causes[0] if causes else said).split()) or type(error).__name__
    return said if len(said) <= _MOST_SHOWN else f"{said[:_MOST_SHOWN]}..."
