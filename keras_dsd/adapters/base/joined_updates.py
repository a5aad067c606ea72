"""Updates that a framework asks for one by one, compiled together when the last one is due."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

# A pass of its own over weight and mask costs up to a tenth of a step: from here on the update and
# the mask are compiled into one pass, all tensors in one program; what is smaller costs less than
# the time to compile it.
JOINED_SIZE = 2**13
# From here on each tensor has a program of its own, and several run at a time.
COMPILED_SIZE = 2**18


Update = TypeVar("Update")


class Together(Generic[Update]):
    """Holds updates back, where a list of them is known to come, until its last one.

    Args:
        make: Compiles and makes updates, given as a list of what `add` was given.
    """

    def __init__(self, make: Callable[[list[Update]], None]) -> None:
        self._make = make
        self._last: object = None
        self._waiting: list[Update] = []

    @property
    def is_open(self) -> bool:
        """Whether updates may wait: they come as a list, whose last one is still to come."""
        return self._last is not None

    @contextlib.contextmanager
    def up_to(self, last: object) -> Iterator[None]:
        """Lets updates wait within the block, up to that of the variable with the key `last`."""
        self._last, self._waiting = last, []
        try:
            yield
            self._make_waiting()  # the last one may have been left out
        finally:
            self._last = None

    def takes(self, size: int, is_whole: bool) -> bool:
        """Returns whether an update is worth compiling: with others sooner than by itself.

        Args:
            size: How many values the tensor has.
            is_whole: Whether all of it is updated, and not some rows: as many as a batch names,
                which is compiled anew for each number.
        """
        return size >= (JOINED_SIZE if self.is_open and is_whole else COMPILED_SIZE)

    def add(self, size: int, update: Update) -> None:
        """Keeps an update that it takes until the last one, or makes that of a large tensor now."""
        if size < COMPILED_SIZE:
            self._waiting.append(update)
        else:
            self._make([update])

    def passed(self, key: object) -> None:
        """Notes that an update was made or waits; after the last one, makes those that wait."""
        if self.is_open and key == self._last:
            self._last = None
            self._make_waiting()

    def _make_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._make(waiting)
