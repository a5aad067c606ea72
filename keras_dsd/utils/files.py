"""Files that are there whole or not at all, whenever the process ends."""

import pathlib
import uuid
from collections.abc import Callable
from typing import Any


def replace(path: pathlib.Path, write: Callable[[Any], object]) -> None:
    """Replaces a file in one go, and makes its folder where there is none.

    Args:
        path: The file.
        write: Writes bytes into the open file that it is given.

    Raises:
        OSError: It can't be written; what was there is whole.
    """
    # Not by the process's id: containers that share a folder may each have the same one.
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                write(file)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"Expected to write a file. Received: path={str(path)!r}, where the system says: "
            f"{error.strerror or error}. What was there before is whole. Make room, or see that it "
            f"can be written to, and go on from there",
        ) from error
