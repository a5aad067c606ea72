"""The program `keras-dsd`: arguments, output, help and exit codes."""

import contextlib
import itertools
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence

from absl import flags, logging

import keras_dsd
from keras_dsd.cli import compare, files, inspect, report, sensitivity
from keras_dsd.cli.command import Command, CommandError, UsageError, one_line

_HELP = {"--help", "-help", "-h"}
_WIDTH = 100
_TYPES = {"float": "NUMBER", "int": "N"}
# Former and current names of flags.
_RENAMED = {
    "recommend_overall": "--overall",
    "validation_share": "--validation_split",
    "unsafe": "--safe_mode=false",
}

_INTRODUCTION = "Dense-Sparse-Dense training for Keras: commands on saved models."
_USAGE = """\
Usage: keras-dsd COMMAND MODEL [FLAGS]
       MODEL is a .keras or .h5 file, as model.save and ModelCheckpoint write them."""
_ENVIRONMENT = "KERAS_BACKEND selects the backend of Keras 3: tensorflow, jax or torch."
_EXIT_CODES = "Exit codes: 0 done, 1 the command failed, 2 wrong usage, 130 interrupted."

COMMANDS: dict[str, Command] = {
    module.COMMAND.name: module.COMMAND for module in (inspect, report, sensitivity, compare)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `keras-dsd` and returns its exit code. Results go to stdout, all else to stderr.

    Args:
        arguments: Arguments after `keras-dsd`. Defaults to `None`: those of this process.
    """
    # The C++ code of TensorFlow logs dozens of lines on import, and reads this only then.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        print(_answer(list(sys.argv[1:] if arguments is None else arguments)), flush=True)
    except UsageError as error:
        return _failed(error, 2)
    # Errors of this library, ValueError and TypeError, include advice.
    except (CommandError, ValueError, TypeError, ImportError, OSError) as error:
        return _failed(error, 1)
    except KeyboardInterrupt:
        return _failed(CommandError("interrupted"), 130)  # as shells have it: 128 + SIGINT
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
            f"keras-dsd --help describes them."
        )
    command = COMMANDS[name]
    values = _defined(command.define)
    if not _HELP.isdisjoint(itertools.takewhile("--".__ne__, rest)):
        return _help_of(command, values)
    path = _parse(command, values, rest)
    logging.set_verbosity(logging.ERROR)
    # Output of Keras or a model is not a part of the result.
    with contextlib.redirect_stdout(sys.stderr):
        result = command.run(values, path)
    return json.dumps(result.data, indent=1) if values.json else result.text


def _defined(define: Callable[[flags.FlagValues], None]) -> flags.FlagValues:
    """Returns the flags of a command, those of all commands last."""
    values = flags.FlagValues()
    define(values)
    flags.DEFINE_bool("json", False, "Prints one JSON object, for programs.", flag_values=values)
    return values


def _parse(command: Command, values: flags.FlagValues, rest: Sequence[str]) -> str:
    """Sets the flags, and returns the path of the model."""
    more = f"keras-dsd {command.name} --help lists the flags."
    values.set_gnu_getopt(True)  # flags may come after MODEL
    try:
        given: list[str] = values([command.name, *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        if error.flagname in _RENAMED:
            now = _RENAMED[error.flagname]
            raise UsageError(f"--{error.flagname} is called {now} now. {more}") from error
        raise UsageError(f"{one_line(error).replace(' ?', '?')} {more}") from error
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
    commands = [(name, command.summary) for name, command in COMMANDS.items()]
    values = _defined(files.define_flags)
    common = [_flag(values[name], files.VALUES) for name in values]
    common += [("--help, --version", "Shows this or the help of a command, or the version.")]
    return "\n\n".join(
        [
            f"{_INTRODUCTION}\n{_USAGE}",
            "Commands, each with further flags (keras-dsd COMMAND --help):\n" + _listed(commands),
            "Flags of all commands:\n" + _listed(common),
            f"{_ENVIRONMENT}\n{_EXIT_CODES}",
            f"Example: {COMMANDS['inspect'].example}",
        ]
    )


def _help_of(command: Command, values: flags.FlagValues) -> str:
    """Returns the help of one command, whose flags are defined in `values`."""
    grouped = {name for names in command.groups for name in names}
    rows = [_flag(values[name], command.values) for name in values if name not in grouped]
    usage = " ".join(filter(None, ["keras-dsd", command.name, "MODEL", command.needed, "[FLAGS]"]))
    groups = [
        f"  {', '.join(f'--{name}' for name in names)}: {text}"
        for names, text in command.groups.items()
    ]
    return "\n\n".join(
        [
            f"Usage: {usage}",
            command.description.strip("\n"),
            "\n".join(filter(None, [_listed(rows), *groups])),
            f"Example: {command.example}\n{_EXIT_CODES}",
        ]
    )


def _flag(flag: flags.Flag, values: Mapping[str, str]) -> tuple[str, str]:
    """Returns the syntax of a flag, and its help."""
    if flag.boolean and flag.name not in values:
        return f"--{flag.name}", flag.help
    choices = getattr(flag.parser, "enum_values", None)
    value = "|".join(choices) if choices else _TYPES.get(flag.flag_type(), "TEXT")
    # absl adds the choices before, and after that a flag may be repeated.
    words = re.sub(r"^<[^>]*>: |;\s*repeat this option.*$", "", flag.help, flags=re.DOTALL)
    default = None if flag.boolean else flag.default
    shown = ",".join(map(str, default)) if isinstance(default, list) else default
    words = words if default is None else f"{words} Default: {shown}."
    return f"--{flag.name}={values.get(flag.name, value)}", words


def _listed(items: Sequence[tuple[str, str]]) -> str:
    """Returns names and their descriptions in two columns."""
    indent = max((len(name) for name, _ in items), default=0) + 4
    lines = []
    for name, words in items:
        lines += textwrap.wrap(words, _WIDTH, initial_indent=f"  {name}".ljust(indent),
                               subsequent_indent=" " * indent, break_on_hyphens=False)  # fmt: skip
    return "\n".join(lines)
