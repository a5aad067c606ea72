"""Updates that a framework asks for one by one, made together when the last one is asked for."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any


class Together:
    """Holds updates back, where a list of them is known to come, until its last one.

    Args:
        make: Makes the updates that waited, given as a list of what `wait` was given.
    """

    def __init__(self, make: Callable[[list[Any]], None]) -> None:
        self._make = make
        self._last: Any = None
        self._waiting: list[Any] = []

    @property
    def is_open(self) -> bool:
        """Whether updates may wait: they come as a list, whose last one is still to come."""
        return self._last is not None

    @contextlib.contextmanager
    def up_to(self, last: Any) -> Iterator[None]:
        """Lets updates wait within the block, up to that of the variable with the key `last`."""
        self._last, self._waiting = last, []
        try:
            yield
            self._make_waiting()  # the last one may have been left out
        finally:
            self._last = None

    def wait(self, update: Any) -> None:
        """Keeps an update until the last one."""
        self._waiting.append(update)

    def passed(self, key: Any) -> None:
        """Notes that an update was made or waits; after the last one, makes those that wait."""
        if self.is_open and key == self._last:
            self._last = None
            self._make_waiting()

    def _make_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._make(waiting)
