"""Commands of `keras-dsd`, their results, and how they fail."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
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
    """One command, with a line and paragraphs of help, and examples to copy.

    `define` defines its flags; `values` are placeholders for those whose types do not tell. `run`
    runs it, given the flags and the path of the model.
    """

    name: str
    summary: str
    description: str
    define: Callable[[flags.FlagValues], None]
    values: Mapping[str, str]
    examples: Sequence[str]
    run: Callable[[flags.FlagValues, str], Result]


def one_line(error: BaseException) -> str:
    """Returns the message of an error of Keras, NumPy or the system, as the start of one line."""
    # What goes wrong in traced code begins with where that was, over many lines.
    _, _, said = str(error).rpartition("in user code:")
    causes = re.findall(r"^ *\w+(?:Error|Exception): .*", said, re.DOTALL | re.MULTILINE)
    said = " ".join((causes[0] if causes else said).split()) or type(error).__name__
    return said if len(said) <= _MOST_SHOWN else f"{said[:_MOST_SHOWN]}..."
