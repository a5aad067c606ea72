"""Arrays of a run by epoch, in files of its backup folder."""

import pathlib
from collections.abc import Sequence

import numpy as np

from keras_dsd.utils.checks import shown
from keras_dsd.utils.files import replace


class ArrayFiles:
    """Files with lists of arrays, each written atomically; the last two epochs are kept.

    Args:
        folder: Where they are; None: nowhere.
        name: The start of their names.
        expected: What they hold, for errors.
        advice: What to do if one is missing.
    """

    def __init__(self, folder: pathlib.Path | None, name: str, expected: str, advice: str) -> None:
        self._folder = folder
        self._name = name
        self._missing = f"Expected {expected}. Received: "
        self._advice = advice

    def write(self, epoch: int, arrays: Sequence[np.ndarray]) -> None:
        """Writes the arrays of an epoch, if there is a folder."""
        if self._folder is None:
            return
        replace(self._path(self._folder, epoch), lambda file: np.savez(file, *arrays))
        # The previous file stays: a run may resume from before this epoch.
        for path in sorted(self._folder.glob(f"{self._name}_*.npz"))[:-2]:
            path.unlink(missing_ok=True)  # another worker may share the folder

    def has(self, epoch: int) -> bool:
        """Returns whether there is a file of an epoch."""
        return self._folder is not None and self._path(self._folder, epoch).exists()

    def read(self, epoch: int, like: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the arrays of an epoch that an earlier run wrote, as arrays like `like`.

        Raises:
            ValueError: There is no such file, or it holds something else.
        """
        path = None if self._folder is None else self._path(self._folder, epoch)
        if path is None or not path.exists():
            folder = "None" if self._folder is None else repr(str(self._folder))
            raise ValueError(
                f"{self._missing}no file of those of epoch {epoch + 1}, backup_dir={folder}. "
                f"{self._advice}"
            )
        try:
            # NumPy does not close a file that it opened and can't read.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = [stored[f"arr_{index}"] for index in range(len(stored.files))]
        except Exception as error:  # a truncated or foreign file may raise anything
            raise ValueError(
                f"{self._missing}path={str(path)!r}, which is incomplete or another file "
                f"({shown(error)}). {self._advice}"
            ) from error
        # NumPy writes bfloat16 as bytes without a dtype name.
        named = [
            a.view(b.dtype) if a.dtype == f"V{b.itemsize}" else a
            for a, b in zip(arrays, like, strict=False)
        ]
        found, expected = ([f"{a.dtype}{a.shape}" for a in each] for each in (named, like))
        if len(arrays) != len(like) or found != expected:
            raise ValueError(
                f"{self._missing}path={str(path)!r}, from another model, with weights "
                f"{shown(found)} instead of {shown(expected)}. {self._advice}"
            )
        return named

    def _path(self, folder: pathlib.Path, epoch: int) -> pathlib.Path:
        return folder / f"{self._name}_{epoch:06d}.npz"
