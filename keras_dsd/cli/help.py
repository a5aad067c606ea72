"""What `--help` says."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keras_dsd.cli.command import Command

_WIDTH = 80
_TYPES = {"float": "NUMBER", "int": "NUMBER"}

_INTRODUCTION = """\
Dense-Sparse-Dense training for Keras: looks at saved models from the command
line. Training itself is Python: see the README."""

_ENVIRONMENT = """\
Which Keras: Keras 3, on the backend that KERAS_BACKEND names (tensorflow, jax
or torch). tf_keras (Keras 2) with --keras=2, or where TF_USE_LEGACY_KERAS=1.

Files that carry code, such as Lambda layers, are refused; --unsafe runs it.

Exit codes: 0 done; 1 the command failed; 2 wrong usage. A line on stderr then
says why."""


def overview(commands: Iterable[Command]) -> str:
    """Returns the help of `keras-dsd` itself."""
    known = {command.name: command.summary for command in commands}
    return "\n\n".join(
        [
            _INTRODUCTION,
            "Usage: keras-dsd COMMAND [ARGUMENTS] [FLAGS]\n       keras-dsd COMMAND --help",
            "Commands:\n" + _listed(known),
            "Flags:\n" + _listed({"--help": "Shows this.", "--version": "Shows the version."}),
            _ENVIRONMENT,
        ]
    )


def of_command(command: Command, values: Any) -> str:
    """Returns the help of one command.

    Args:
        command: Which.
        values: The `FlagValues` that its flags are defined in.
    """
    usage = " ".join(["Usage: keras-dsd", command.name, *command.arguments, "[FLAGS]"])
    flags = dict(_flag(values[name], command.values) for name in values)
    parts = [
        usage,
        command.description.strip("\n"),
        "Arguments:\n" + _listed(command.arguments) if command.arguments else "",
        "Flags:\n" + _listed(flags | {"--help": "Shows this."}),
        "Examples:\n" + "\n".join(f"  {line}" for line in command.examples),
        "Exit codes: 0 done; 1 the command failed; 2 wrong usage. stderr then says why.",
    ]
    return "\n\n".join(filter(None, parts))


def _flag(flag: Any, values: Mapping[str, str]) -> tuple[str, str]:
    """Returns how a flag is written, and what it is for."""
    if flag.boolean:
        return f"--{flag.name}", flag.help
    choices = getattr(flag.parser, "enum_values", None)
    value = "|".join(choices) if choices else _TYPES.get(flag.flag_type(), "TEXT")
    # absl adds the choices before, and after that a flag may be repeated.
    words = re.sub(r"^<[^>]*>: |;\s*repeat this option.*$", "", flag.help, flags=re.DOTALL)
    default = flag.default
    shown = ",".join(map(str, default)) if isinstance(default, list) else default
    words = words if default is None else f"{words} Default: {shown}."
    return f"--{flag.name}={values.get(flag.name, value)}", words


def _listed(items: Mapping[str, str]) -> str:
    """Returns names and what they are, in two columns; what has a long name goes on below it."""
    return "\n".join(line for name, words in items.items() for line in _entry(name, words))


def _entry(name: str, words: str) -> Iterator[str]:
    lines = textwrap.wrap(" ".join(words.split()), _WIDTH - 18, break_on_hyphens=False)
    if len(name) > 14:
        yield f"  {name}"
        name = ""
    for line in lines:
        yield f"  {name:<16}{line}"
        name = ""
