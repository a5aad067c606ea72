"""What a run says to whoever trains: lines beside Keras's own, and warnings."""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

from absl import logging

# Packages between the line of a user's that trains and this one.
_ON_THE_WAY = {"keras_dsd", "keras", "tf_keras", "tensorflow"}


def say(message: str, *, shown: bool) -> None:
    """Prints a line where Keras shows its progress, or logs it as information.

    Args:
        message: One line.
        shown: Whether to print it.
    """
    if shown:
        print(message, flush=True)
    else:
        logging.info("%s", message)


def rate_words(rates: Sequence[float], is_scheduled: bool, factor: float) -> str:
    """Returns what learning rate a phase trains at.

    Args:
        rates: Those of the optimizers, unscaled.
        is_scheduled: Whether one is computed from the step.
        factor: What the phase multiplies them by.
    """
    if is_scheduled:
        times = "" if factor == 1.0 else f"{factor:g} times "
        return f"learning rate: {times}what its schedule says"
    return f"learning rate {', '.join(f'{rate * factor:.6g}' for rate in dict.fromkeys(rates))}"


def warn_user(message: str) -> None:
    """Warns at the line that called Keras, each time: not only in the first run of a process."""
    frame: Any = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _ON_THE_WAY:
        frame = frame.f_back
    place = (frame.f_code.co_filename, frame.f_lineno)
    warnings.warn_explicit(message, UserWarning, *place, module=__name__, registry={})
