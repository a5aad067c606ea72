"""Data to evaluate a model on, from an .npz file."""

import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from keras_dsd.cli.commands import CommandError, one_line

# Those that a model was not trained on come first.
_PAIRS = (("x_val", "y_val"), ("x_test", "y_test"), ("x", "y"))


class Data(NamedTuple):
    """Inputs and targets.

    Attributes:
        x: Array of inputs, one for each example.
        y: Array of targets, as many.
        names: What they are called in the file.
    """

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, str]


def load(path: str) -> Data:
    """Returns the data in a file; objects, which would need pickle, are not read.

    Raises:
        CommandError: The file is none, or lacks the arrays, or they don't belong together.
    """
    file = pathlib.Path(path)
    if not file.is_file():
        raise CommandError(f"{path}: there is no such file.")
    if not zipfile.is_zipfile(file):
        raise CommandError(
            f"{path} is not a whole .npz file. Write one by numpy.savez('{file.stem}.npz', x=x, "
            f"y=y)."
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            held = list(arrays.files)
            names = next((pair for pair in _PAIRS if {*pair} <= {*held}), None)
            if names is None:
                raise CommandError(
                    f"{path} holds {', '.join(held) or 'nothing'}. Expected arrays x and y, or "
                    f"x_val and y_val, or x_test and y_test."
                )
            x, y = np.asarray(arrays[names[0]]), np.asarray(arrays[names[1]])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CommandError(f"{path} can't be read: {one_line(error)}") from error
    if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
        raise CommandError(
            f"{path}: expected as many of {names[0]} as of {names[1]}, at least one. Received "
            f"the shapes {x.shape} and {y.shape}."
        )
    return Data(x, y, names)
