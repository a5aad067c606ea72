"""Factors of the learning rates in the steps to come."""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import numpy as np

Values: TypeAlias = Sequence[float] | np.ndarray


class Factors(Protocol):
    """Factors of the learning rates of one model: one for each training step from now on."""

    def set(self, values: Values) -> None:
        """Sets the factors of the next steps, in order; the last one stays."""

    def now(self) -> object:
        """Returns the factor of the current step: a number, or a tensor of the step."""

    def count(self) -> None:
        """Advances to the next step."""

    def use(self, factor: object) -> AbstractContextManager[None]:
        """Multiplies by `factor`, an argument of a traced function, within a block."""


class HostFactors:
    """Factors that the host passes to each step.

    Attributes:
        values: Those that were set last, in a new list at each time.
    """

    def __init__(self, values: Values = (1.0,)) -> None:
        self._given: object = None
        self.set(values)

    def set(self, values: Values) -> None:
        """Sets the factors of the next steps, in order; the last one stays."""
        self.values: list[float] = np.asarray(values, np.float64).tolist()
        self._next = 0

    @property
    def are_constant(self) -> bool:
        """True if all steps have the same factor."""
        return len(self.values) == 1

    @property
    def value(self) -> float:
        """The factor of the current step."""
        return self.values[self._next]

    def now(self) -> object:
        """Returns the factor of the current step, or what a block uses in place of it."""
        return self.value if self._given is None else self._given

    def count(self) -> None:
        """Advances to the next step."""
        self._next = min(self._next + 1, len(self.values) - 1)

    @contextlib.contextmanager
    def use(self, factor: object) -> Iterator[None]:
        """Multiplies by `factor`, an argument of a traced function, within a block."""
        outer, self._given = self._given, factor
        try:
            yield
        finally:
            self._given = outer
