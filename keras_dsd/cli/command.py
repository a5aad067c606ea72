"""What a command of `keras-dsd` is made of, and how it fails."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_MOST_SHOWN = 300  # characters of what somebody else's error says


class UsageError(Exception):
    """What was typed makes no sense: exit code 2."""


class CommandError(Exception):
    """The command was understood, and failed: exit code 1."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command found.

    Attributes:
        data: Plain values, for `--json`.
        text: The same for people.
    """

    data: Mapping[str, Any]
    text: str


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: What is typed after `keras-dsd`.
        summary: What it does, in a line.
        description: The same at more length; paragraphs, and what is indented stays as it is.
        arguments: What it needs besides flags, in their order, each with what it is.
        define: Defines its flags in the `absl.flags.FlagValues` that it is given.
        values: What stands for the value of a flag in its help, where its type does not tell.
        examples: Lines to copy.
        run: Does it, given the flags and the arguments, one for each of `arguments`.
    """

    name: str
    summary: str
    description: str
    arguments: Mapping[str, str]
    define: Callable[[Any], None]
    values: Mapping[str, str]
    examples: Sequence[str]
    run: Callable[[Any, Sequence[str]], Result]


def one_line(error: BaseException) -> str:
    """Returns what an error of Keras, NumPy or the system says, as the begin of one line."""
    # What goes wrong in traced code begins with where that was, over many lines.
    _, _, said = str(error).rpartition("in user code:")
    causes = re.findall(r"^ *\w+(?:Error|Exception): .*", said, re.DOTALL | re.MULTILINE)
    said = " ".join((causes[0] if causes else said).split()) or type(error).__name__
    return said if len(said) <= _MOST_SHOWN else f"{said[:_MOST_SHOWN]}..."
