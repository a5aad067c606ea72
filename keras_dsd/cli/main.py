"""The program `keras-dsd`: from the arguments to the output, the help and an exit code."""

import contextlib
import itertools
import json
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence

from absl import flags, logging

import keras_dsd
from keras_dsd.cli import compare, inspect, report, sensitivity
from keras_dsd.cli.command import Command, CommandError, UsageError, one_line

_HELP = {"--help", "-help", "-h"}
_WIDTH, _INDENT = 80, 18
_TYPES = {"float": "NUMBER", "int": "NUMBER"}

_MODEL = "A model in a .keras or .h5 file, as model.save and ModelCheckpoint write them."
_INTRODUCTION = """\
Dense-Sparse-Dense training for Keras: looks at saved models from the command
line. Training itself is Python: see the README."""

_ENVIRONMENT = """\
Which Keras: Keras 3, on the backend that KERAS_BACKEND names (tensorflow, jax
or torch). tf_keras (Keras 2) with --keras=2, or where TF_USE_LEGACY_KERAS=1.

Files that carry code, such as Lambda layers, are refused; --unsafe runs it.

Exit codes: 0 done; 1 the command failed; 2 wrong usage. A line on stderr then
says why."""

COMMANDS: dict[str, Command] = {
    module.COMMAND.name: module.COMMAND for module in (inspect, report, sensitivity, compare)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `keras-dsd` and returns its exit code. Results go to stdout, all else to stderr.

    Args:
        arguments: Those after `keras-dsd`. Defaults to `None`: those of this process.
    """
    # TensorFlow's C++ side logs dozens of lines as it is imported, and reads this only then.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        print(_answer(list(sys.argv[1:] if arguments is None else arguments)), flush=True)
    except UsageError as error:
        return _failed(error, 2)
    # The library's own errors, in ValueError and TypeError, say what to do.
    except (CommandError, ValueError, TypeError, ImportError, OSError) as error:
        return _failed(error, 1)
    except KeyboardInterrupt:
        return _failed(CommandError("interrupted"), 1)
    return 0


def _answer(arguments: list[str]) -> str:
    """Returns the output."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name in {*_HELP, "help"}:
        return _overview()
    if name in ("--version", "-version"):
        return f"keras-dsd {keras_dsd.__version__}"
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise UsageError(
            f"expected a command first: {known}. Received: {name or 'nothing'}. "
            f"keras-dsd --help says what they do."
        )
    command = COMMANDS[name]
    values = flags.FlagValues()
    command.define(values)
    flags.DEFINE_bool("json", False, "Prints one JSON object, for programs.", flag_values=values)
    if not _HELP.isdisjoint(itertools.takewhile("--".__ne__, rest)):
        return _help_of(command, values)
    path = _parse(command, values, rest)
    logging.set_verbosity(logging.ERROR)
    # Output of Keras or a model meanwhile is not the result.
    with contextlib.redirect_stdout(sys.stderr):
        result = command.run(values, path)
    return json.dumps(result.data, indent=1) if values.json else result.text


def _parse(command: Command, values: flags.FlagValues, rest: Sequence[str]) -> str:
    """Sets the flags, and returns the path of the model."""
    more = f"keras-dsd {command.name} --help says what it takes."
    values.set_gnu_getopt(True)  # flags may come after MODEL
    try:
        given: list[str] = values([command.name, *rest])[1:]
    except flags.Error as error:
        said = one_line(error).replace(" ?", "?").rstrip(".")
        raise UsageError(f"{said}{'' if said.endswith('?') else '.'} {more}") from error
    if len(given) != 1:
        received = " ".join(given) or "nothing"
        raise UsageError(f"expected MODEL and flags. Received: {received}. {more}")
    return given[0]


def _failed(error: BaseException, code: int) -> int:
    print(f"keras-dsd: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _overview() -> str:
    """Returns the help of `keras-dsd` itself."""
    known = {name: command.summary for name, command in COMMANDS.items()}
    return "\n\n".join(
        [
            _INTRODUCTION,
            "Usage: keras-dsd COMMAND [ARGUMENTS] [FLAGS]\n       keras-dsd COMMAND --help",
            "Commands:\n" + _listed(known),
            "Flags:\n" + _listed({"--help": "Shows this.", "--version": "Shows the version."}),
            _ENVIRONMENT,
        ]
    )


def _help_of(command: Command, values: flags.FlagValues) -> str:
    """Returns the help of one command, whose flags are defined in `values`."""
    defined = dict(_flag(values[name], command.values) for name in values)
    return "\n\n".join(
        [
            f"Usage: keras-dsd {command.name} MODEL [FLAGS]",
            command.description.strip("\n"),
            "Arguments:\n" + _listed({"MODEL": _MODEL}),
            "Flags:\n" + _listed(defined | {"--help": "Shows this."}),
            "Examples:\n" + "\n".join(f"  {line}" for line in command.examples),
            "Exit codes: 0 done; 1 the command failed; 2 wrong usage. stderr then says why.",
        ]
    )


def _flag(flag: flags.Flag, values: Mapping[str, str]) -> tuple[str, str]:
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
    """Returns names and their descriptions in two columns; that of a long name is below it."""
    lines = []
    for name, words in items.items():
        head, indent = f"  {name}".ljust(_INDENT), " " * _INDENT
        if not head.endswith("  "):
            lines.append(head.rstrip())
            head = indent
        lines += textwrap.wrap(" ".join(words.split()), _WIDTH, initial_indent=head,
                               subsequent_indent=indent, break_on_hyphens=False)  # fmt: skip
    return "\n".join(lines)
