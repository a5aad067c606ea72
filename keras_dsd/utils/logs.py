"""Log values with readable formats in the progress bar of Keras: `0`, not `0.0000e+00`.

Keras averages a value over the steps of an epoch and formats the average by `.4f` or, below 1e-3,
by `.4e`. Values of these types are numbers, but their averages have a custom format. Copies and
pickles of them are plain numbers.
"""

from typing import Any


class _InBar(float):
    """Average of a logged value, as computed by both Kerases."""

    def __truediv__(self, other: Any) -> "_InBar":
        return _InBar(float(self) / other)

    def mean(self, **_: Any) -> "_InBar":
        """Returns the value itself, for `numpy.mean`."""
        return self

    def __format__(self, spec: str) -> str:
        return float.__format__(self, ".4g" if spec in (".4f", ".4e") else spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float(self),)


class LoggedFloat(float):
    """Float of the logs."""

    def __mul__(self, other: Any) -> Any:
        product = float(self) * other
        return LoggedFloat(product) if type(other) is int else product

    def __truediv__(self, other: Any) -> Any:
        return _InBar(float(self) / other) if type(other) is int else float(self) / other

    def __reduce__(self) -> tuple[Any, ...]:
        return float, (float(self),)


class LoggedInt(int):
    """Integer of the logs."""

    def __mul__(self, other: Any) -> Any:
        product = int(self) * other
        return LoggedInt(product) if type(other) is int else product

    def __truediv__(self, other: Any) -> Any:
        return _InBar(int(self) / other) if type(other) is int else int(self) / other

    def mean(self, **_: Any) -> _InBar:
        """Returns the average with a format, for `numpy.mean`."""
        return _InBar(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


def logged(values: dict[str, float]) -> dict[str, float]:
    """Returns the values with readable formats in the progress bar."""
    return {
        name: LoggedInt(value) if isinstance(value, int) else LoggedFloat(value)
        for name, value in values.items()
    }


def plain(value: Any) -> Any:
    """Returns a value of the logs as a plain number; other values unchanged."""
    if isinstance(value, LoggedInt):
        return int(value)
    return float(value) if isinstance(value, LoggedFloat) else value
