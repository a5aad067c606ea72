"""Convergence of a phase, measured by a quantity in the logs."""

import dataclasses
from collections.abc import Mapping, Sequence

from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid_type

_LARGER_IS_BETTER = ("acc", "auc", "f1", "precision", "recall")


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Ends a phase when a monitored quantity has stopped improving.

    Args:
        monitor: Name of the quantity in the logs, such as `"val_loss"`.
        min_delta: Minimum change that counts as an improvement. Defaults to `0.0`.
        patience: Number of epochs without an improvement after which the phase ends. Epochs whose
            logs lack `monitor`, such as those without validation, do not count. Defaults to `3`.
        mode: `"min"` if smaller is better, `"max"` if larger is better; `"auto"` infers it from
            the name. Defaults to `"auto"`.
        restore_best: If `True`, the phase ends with the weights of its best epoch, as returned by
            `get_weights`; optimizer state is kept. The last phase ends with the last epoch of the
            run, not with a `fit` that is shorter than the timeline. Defaults to `False`.

    Raises:
        TypeError: `monitor` is not a str, `restore_best` is not a bool, or a number is of the
            wrong type.
        ValueError: `min_delta` is negative, `patience` below 1, or `mode` unknown.
    """

    monitor: str
    _: dataclasses.KW_ONLY
    min_delta: float = 0.0
    patience: int = 3
    mode: str = "auto"
    restore_best: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.monitor, str):
            hint = "Give a str, such as 'val_loss'."
            raise invalid_type("monitor", self.monitor, "to be a name in the logs", hint)
        checks.flag("restore_best", self.restore_best)
        advice = "Give 'min' for a loss, 'max' for an accuracy."
        checks.choice("mode", self.mode, ("auto", "min", "max"), advice)
        checks.normalise(
            self,
            min_delta=checks.not_negative("min_delta", self.min_delta),
            patience=checks.whole_number("patience", self.patience, least=1),
        )

    def values(self, history: Sequence[Mapping[str, float]]) -> list[float | None]:
        """Returns the values of `monitor` in the logs of a phase's epochs; None where absent."""
        return [logs.get(self.monitor) for logs in history]

    def length(self, values: Sequence[float | None]) -> int | None:
        """Returns the length of a phase in epochs; None if it is not over after these values."""
        best, waited = None, 0
        for index, value in enumerate(values):
            if value is None:
                continue
            waited += 1
            if self._is_better(value, best):
                best, waited = value, 0
            if waited >= self.patience:
                return index + 1
        return None

    def best(self, values: Sequence[float | None]) -> int | None:
        """Returns the index of the best value; None without values."""
        found, best = None, None
        for index, value in enumerate(values):
            if value is not None and self._is_better(value, best):
                found, best = index, value
        return found

    def _is_better(self, value: float, best: float | None) -> bool:
        larger = self.mode == "max" or (self.mode == "auto" and is_larger_better(self.monitor))
        if best is None:
            return value == value  # NaN is never better
        return value > best + self.min_delta if larger else value < best - self.min_delta

    def __str__(self) -> str:
        epochs = "an epoch" if self.patience == 1 else f"{self.patience} epochs"
        return f"until {self.monitor} has not improved for {epochs}"


def is_larger_better(name: str) -> bool:
    """Returns whether larger values of a metric are better, according to its name."""
    return any(part in name.lower() for part in _LARGER_IS_BETTER)
