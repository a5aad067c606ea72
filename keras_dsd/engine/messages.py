"""Messages of a run: the learning rate of a phase in words, and warnings."""

import sys
import types
import warnings
from collections.abc import Sequence

# Packages whose frames a warning skips, up to the user's own line.
_SKIPPED = {"keras_dsd", "keras", "tf_keras", "tensorflow"}


def learning_rate_text(learning_rates: Sequence[float], is_scheduled: bool, factor: float) -> str:
    """Describes the learning rate of a phase that multiplies `learning_rates` by `factor`."""
    if is_scheduled:
        times = "" if factor == 1.0 else f"{factor:g} times "
        return f"learning rate: {times}what its schedule says"
    scaled = (f"{rate * factor:.6g}" for rate in dict.fromkeys(learning_rates))
    return f"learning rate {', '.join(scaled)}"


def warn(message: str) -> None:
    """Warns at the user's line that called Keras, in every run and not once a process."""
    frame: types.FrameType = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _SKIPPED:
        frame = frame.f_back
    line = (frame.f_code.co_filename, frame.f_lineno)
    warnings.warn_explicit(message, UserWarning, *line, module=__name__, registry={})
