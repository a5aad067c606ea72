"""Arrays of a run by epoch, in files of its backup folder."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from keras_dsd.protocols import WeightCopies
from keras_dsd.utils.checks import shown
from keras_dsd.utils.files import replace


class ArrayFiles:
    """Files with copies of weights, each written atomically; the last two epochs are kept.

    If a weight is sharded over processes, each writes its own file.

    Args:
        folder: Their folder, or None.
        name: Prefix of their names.
        expected: Description of their content, for errors.
        advice: Advice for a missing file.
    """

    def __init__(self, folder: pathlib.Path | None, name: str, expected: str, advice: str) -> None:
        self._folder = folder
        self._name = name
        self._missing = f"Expected {expected}. Received: "
        self._advice = advice

    def write(self, epoch: int, copies: WeightCopies) -> None:
        """Writes the copies of an epoch, if there is a folder."""
        if self._folder is None:
            return
        arrays: dict[str, Any] = dict(copies.arrays)
        path = self._path(self._folder, epoch, copies)
        replace(path, lambda file: np.savez(file, **arrays))
        # The previous file stays: a run may resume from before this epoch. Files of later epochs
        # are of an earlier run.
        files = sorted(self._folder.glob(self._file("??????", copies)))
        for each in [file for file in files if file <= path][:-2]:
            each.unlink(missing_ok=True)  # another worker may share the folder

    def has(self, epoch: int, like: WeightCopies) -> bool:
        """Returns whether there is a file with copies of an epoch, which are like `like`."""
        return self._folder is not None and self._path(self._folder, epoch, like).exists()

    def read(self, epoch: int, like: WeightCopies) -> WeightCopies:
        """Returns the copies of an epoch that an earlier run wrote, which are like `like`.

        Raises:
            ValueError: There is no such file, or it holds something else.
        """
        path = None
        if self._folder is not None:
            path = self._path(self._folder, epoch, like)
        if path is None or not path.exists():
            folder = "None" if self._folder is None else repr(str(self._folder))
            raise ValueError(
                f"{self._missing}no file of those of epoch {epoch + 1}, backup_dir={folder}. "
                f"{self._advice}"
            )
        try:
            # NumPy does not close a file that it opened and can't read.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except Exception as error:  # a truncated or foreign file may raise anything
            raise ValueError(
                f"{self._missing}path={str(path)!r}, which is incomplete or another file "
                f"({shown(error)}). {self._advice}"
            ) from error
        # NumPy writes bfloat16 as bytes without a dtype name.
        for name, each in like.arrays.items():
            if name in arrays and arrays[name].dtype == f"V{each.itemsize}":
                arrays[name] = arrays[name].view(each.dtype)
        found, expected = (
            {name: f"{a.dtype}{a.shape}" for name, a in each.items()}
            for each in (arrays, like.arrays)
        )
        if found != expected:
            raise ValueError(
                f"{self._missing}path={str(path)!r}, from another model, with weights "
                f"{shown(found)} instead of {shown(expected)}. {self._advice}"
            )
        return dataclasses.replace(like, arrays={name: arrays[name] for name in like.arrays})

    def _path(self, folder: pathlib.Path, epoch: int, copies: WeightCopies) -> pathlib.Path:
        return folder / self._file(f"{epoch:06d}", copies)

    def _file(self, epoch: str, copies: WeightCopies) -> str:
        """Returns the name of the file for an epoch; for the parts of a process its own."""
        of_process = ""
        if copies.process is not None:
            index, number = copies.process
            of_process = f"_process_{index}_of_{number}"
        return f"{self._name}_{epoch}{of_process}.npz"
