"""Updates that a framework requests one by one, compiled together at the last one."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

# A separate pass over weight and mask takes up to a tenth of a step: from this size on, update and
# mask are compiled into one pass, all tensors in one program. Smaller tensors take less time than
# their compilation.
JOINED_SIZE = 2**13
# From this size on, each tensor has its own program, and several run concurrently.
COMPILED_SIZE = 2**18


Update = TypeVar("Update")


class Together(Generic[Update]):
    """Delays the updates of a list until its last one.

    Args:
        make: Compiles and runs a list of updates, the arguments of `add`.
    """

    def __init__(self, make: Callable[[list[Update]], None]) -> None:
        self._make = make
        self._last: object = None
        self._waiting: list[Update] = []

    @property
    def is_open(self) -> bool:
        """True if updates may be delayed: the last one of their list is still to come."""
        return self._last is not None

    @contextlib.contextmanager
    def up_to(self, last: object) -> Iterator[None]:
        """Delays updates within the block, up to that of the variable with the key `last`."""
        self._last, self._waiting = last, []
        try:
            yield
            self._make_waiting()  # the last one may have been skipped
        finally:
            self._last = None

    def takes(self, size: int, is_whole: bool) -> bool:
        """Returns whether compiling an update pays off: with others it does so at smaller sizes.

        Args:
            size: Number of values of the tensor.
            is_whole: True if all values are updated; False for some rows, whose number depends on
                the batch, so that each number would be compiled separately.
        """
        return size >= (JOINED_SIZE if self.is_open and is_whole else COMPILED_SIZE)

    def add(self, size: int, update: Update) -> None:
        """Delays an update until the last one, or runs that of a large tensor immediately."""
        if size < COMPILED_SIZE:
            self._waiting.append(update)
        else:
            self._make([update])

    def passed(self, key: object) -> None:
        """Records that an update was run or delayed; after the last one, runs the delayed ones."""
        if self.is_open and key == self._last:
            self._last = None
            self._make_waiting()

    def _make_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._make(waiting)
