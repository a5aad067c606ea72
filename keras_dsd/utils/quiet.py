"""Imports without the log messages of C++ code."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drops everything that is written to stderr, by C++ code too.

    TensorFlow logs as it is imported, whatever its environment variables are
    (tensorflow/tensorflow#100442).
    """
    stderr = os.dup(2)
    with pathlib.Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
