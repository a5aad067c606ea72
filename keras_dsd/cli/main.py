"""From what was typed to what is printed, and an exit code."""

import contextlib
import json
import os
import sys
from collections.abc import Sequence

from absl import flags, logging

import keras_dsd
from keras_dsd.cli import compare, help, inspect, report, sensitivity
from keras_dsd.cli.command import Command, CommandError, Result, UsageError, one_line

COMMANDS: dict[str, Command] = {
    module.COMMAND.name: module.COMMAND for module in (inspect, report, sensitivity, compare)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `keras-dsd` and returns its exit code.

    What was found goes to stdout, all else to stderr.

    Args:
        arguments: What was typed after `keras-dsd`. Defaults to `None`: that of this process.
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
    """Returns what is to be printed."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name in ("--help", "-help", "-h", "help"):
        return help.overview(COMMANDS.values())
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
    if _asks_for_help(rest):
        return help.of_command(command, values)
    given = _parse(command, values, rest)
    result = _run(command, values, given)
    return json.dumps(result.data, indent=1) if values["json"].value else result.text


def _asks_for_help(rest: Sequence[str]) -> bool:
    before = rest[: rest.index("--")] if "--" in rest else rest
    return not {"--help", "-help", "-h"}.isdisjoint(before)


def _parse(command: Command, values: flags.FlagValues, rest: Sequence[str]) -> list[str]:
    """Sets the flags, and returns what is none."""
    more = f"keras-dsd {command.name} --help says what it takes."
    values.set_gnu_getopt(True)  # flags may come after MODEL
    try:
        given: list[str] = values([command.name, *rest])[1:]
    except flags.Error as error:
        said = one_line(error).replace(" ?", "?").rstrip(".")
        raise UsageError(f"{said}{'' if said.endswith('?') else '.'} {more}") from error
    if len(given) != len(command.arguments):
        raise UsageError(
            f"expected {' '.join(command.arguments)} and flags. Received: "
            f"{' '.join(given) or 'nothing'}. {more}"
        )
    return given


def _run(command: Command, values: flags.FlagValues, given: Sequence[str]) -> Result:
    """Runs the command; what is printed meanwhile, by Keras or a model, is not its result."""
    logging.set_verbosity(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        return command.run(values, given)


def _failed(error: BaseException, code: int) -> int:
    print(f"keras-dsd: {' '.join(str(error).split())}", file=sys.stderr)
    return code
