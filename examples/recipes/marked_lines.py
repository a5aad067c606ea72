"""Puts a mark before every line that a process prints."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def marked_lines(mark: str) -> Iterator[None]:
    """Puts `mark` before every line that this process prints, in Python or C++."""
    source, sink = os.pipe()
    kept = [os.dup(1), os.dup(2)]
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)

    def copy() -> None:
        with os.fdopen(source, "rb") as lines:
            for line in lines:
                os.write(kept[0], mark.encode() + line)

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        thread.join()
