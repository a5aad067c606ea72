"""Data to evaluate a model on, from an .npz file."""

import contextlib
import pathlib
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile

from keras_dsd.cli.command import CommandError, one_line

# Those that a model was not trained on come first.
_PAIRS = (("x_val", "y_val"), ("x_test", "y_test"), ("x", "y"))


class Data(NamedTuple):
    """Inputs and as many targets, one for each example, and their names in the file."""

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, str]


def load(path: str) -> Data:
    """Returns the data in a file to evaluate a model on."""
    with _opened(path) as arrays:
        held = list(arrays.files)
        names = next((pair for pair in _PAIRS if {*pair} <= {*held}), None)
        if names is None:
            raise CommandError(
                f"{path} holds {', '.join(held) or 'nothing'}. Expected arrays x and y, or "
                f"x_val and y_val, or x_test and y_test."
            )
        return _pair(path, arrays, names)


def load_parts(path: str, share: float) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], str]:
    """Returns the training, validation and test data in a file, and a description.

    Where there are no validation data, a share of the training rows is held out, the same rows each
    time.
    """
    with _opened(path) as arrays:
        held = list(arrays.files)
        needed = [f"{axis}_{name}" for name in ("train", "test") for axis in "xy"]
        missing = [name for name in needed if name not in held]
        if missing:
            raise CommandError(
                f"{path} holds {', '.join(held) or 'nothing'}. Expected arrays "
                f"{', '.join(needed)}, and x_val and y_val if there are. Missing: "
                f"{', '.join(missing)}."
            )
        has_validation = {"x_val", "y_val"} <= {*held}
        names = {"train": "train", "test": "test"}
        names |= {"validation": "val"} if has_validation else {}
        found = {
            part: _pair(path, arrays, (f"x_{name}", f"y_{name}"))[:2]
            for part, name in names.items()
        }
    words = "test: x_test and y_test; validation: x_val and y_val"
    if not has_validation:
        x, y = found["train"]
        number = round(share * len(x))
        if not 0 < number < len(x):
            raise CommandError(
                f"{path}: expected x_val and y_val, or a share of the {len(x)} training rows that "
                f"leaves some for both. Received: --validation_share={share:g}."
            )
        order = np.random.default_rng(0).permutation(len(x))
        found["validation"] = x[order[:number]], y[order[:number]]
        found["train"] = x[order[number:]], y[order[number:]]
        words = f"test: x_test and y_test; validation: {number:,} of the {len(x):,} training rows"
    return found, words


@contextlib.contextmanager
def _opened(path: str) -> Iterator[NpzFile]:
    """Opens an .npz file; objects, which would need pickle, are not read."""
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
            yield arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CommandError(f"{path} can't be read: {one_line(error)}") from error


def _pair(path: str, arrays: NpzFile, names: tuple[str, str]) -> Data:
    x, y = np.asarray(arrays[names[0]]), np.asarray(arrays[names[1]])
    if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
        raise CommandError(
            f"{path}: expected as many of {names[0]} as of {names[1]}, at least one. Received "
            f"the shapes {x.shape} and {y.shape}."
        )
    return Data(x, y, names)
