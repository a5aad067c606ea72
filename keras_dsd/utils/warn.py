"""Warnings that point to the user's line of code."""

import sys
import types
import warnings

# Packages whose frames a warning skips, up to the user's line of code.
_SKIPPED = {"keras_dsd", "keras", "tf_keras", "tensorflow"}


def warn(message: str) -> None:
    """Warns at the user's line that called Keras, in every run instead of once per process."""
    frame: types.FrameType = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _SKIPPED:
        frame = frame.f_back
    line = (frame.f_code.co_filename, frame.f_lineno)
    warnings.warn_explicit(message, UserWarning, *line, module=__name__, registry={})
