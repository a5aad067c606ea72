"""The learning rate of a phase, over whatever else drives it."""

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_dsd.adapters.base.optimizers import divide, multiply
from keras_dsd.protocols import Tensor
from keras_dsd.utils.patches import Patch, put

# The `_learning_rate` of an optimizer.
Rate: TypeAlias = (
    keras.Variable | keras.optimizers.schedules.LearningRateSchedule | Callable[..., Tensor | float]
)


class LearningRates:
    """Multiplies the rates of a model's optimizers, for the step and for all to see.

    A rate that is scaled stands on its optimizer in place of the original, which keeps its value
    and stays what the optimizer saves: in every file and checkpoint the rate is unscaled.
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def scale(self, optimizers: list[keras.optimizers.Optimizer], factor: float) -> None:
        """Multiplies the rates, which are unscaled, by `factor`."""
        for each in optimizers:
            original = vars(each)["_learning_rate"]
            kind = ScaledVariable if isinstance(original, keras.Variable) else ScaledSchedule
            self._undo.append(put(_patches(each, original, kind(original, factor))))

    def unscale(self) -> None:
        """Puts the original rates back."""
        while self._undo:
            self._undo.pop()()


class AssignedRates:
    """Multiplies rates by setting them, for steps that others have compiled."""

    def __init__(self) -> None:
        self._undo: list[_KerasRate | _GroupRate] = []

    def scale(self, optimizers: list[keras.optimizers.Optimizer], factor: float) -> None:
        """Multiplies the rates, which are unscaled, by `factor`."""
        for each in optimizers:
            if factor != 1.0:
                groups = getattr(each, "param_groups", None)  # of torch.optim
                self._undo += map(_KerasRate, [each]) if groups is None else map(_GroupRate, groups)
        for rate in self._undo:
            rate.scale(factor)

    def unscale(self) -> None:
        """Takes that back."""
        while self._undo:
            self._undo.pop().unscale()


class _KerasRate:
    """The rate of an optimizer of Keras's."""

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self._optimizer = optimizer

    def scale(self, factor: float) -> None:
        self._factor, self._unscaled = factor, self._get()
        self._optimizer.learning_rate = multiply(self._unscaled, factor)
        self._scaled = self._get()

    def unscale(self) -> None:
        rate = self._get()
        same = rate == self._scaled
        self._optimizer.learning_rate = self._unscaled if same else divide(rate, self._factor)

    def _get(self) -> np.float32:
        return np.float32(keras.ops.convert_to_numpy(self._optimizer.learning_rate))


class _GroupRate:
    """The rate of a parameter group of torch.optim, a float or a tensor."""

    def __init__(self, group: dict[str, Any]) -> None:
        self._group = group

    def scale(self, factor: float) -> None:
        self._factor, self._unscaled = factor, self._group["lr"]
        self._group["lr"] = self._scaled = self._unscaled * factor

    def unscale(self) -> None:
        rate = self._group["lr"]
        self._group["lr"] = self._unscaled if rate == self._scaled else rate / self._factor


def _patches(
    optimizer: keras.optimizers.Optimizer, original: Rate, scaled: "ScaledVariable | ScaledSchedule"
) -> list[Patch]:
    place = vars(optimizer)

    def get_config() -> dict[str, Any]:
        restore = put([Patch(place, "_learning_rate", original)])
        try:
            return type(optimizer).get_config(optimizer)
        finally:
            restore()

    return [Patch(place, "_learning_rate", scaled), Patch(place, "get_config", get_config)]


class ScaledVariable(keras.Variable):
    """A learning rate that reads as a multiple of another variable, and writes through to it."""

    def __init__(self, original: Rate, factor: float) -> None:
        # Not the base's: it would make storage of its own, of which there is none.
        self.__dict__.update({**vars(original), "_original": original, "_factor": factor})

    @property
    def value(self) -> Tensor:
        """The learning rate in use."""
        return self._original.value * self._factor

    def numpy(self) -> np.ndarray:
        """Returns the learning rate in use."""
        return np.array(keras.ops.convert_to_numpy(self.value))

    def assign(self, value: Tensor | float) -> Tensor | float:
        """Sets the learning rate in use."""
        number = keras.ops.convert_to_numpy(value)
        self._original.assign(divide(np.float32(number), self._factor))
        return value


class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is computed, multiplied.

    Args:
        original: A schedule, or a callable without arguments.
        factor: Its multiplier.
    """

    def __init__(self, original: Rate, factor: float) -> None:
        self.original = original
        self.factor = factor

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the learning rate in use at `step`."""
        takes_step = isinstance(self.original, keras.optimizers.schedules.LearningRateSchedule)
        rate = self.original(step) if takes_step else self.original()
        return keras.ops.convert_to_tensor(rate) * self.factor

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {"original": self.original, "factor": self.factor}
