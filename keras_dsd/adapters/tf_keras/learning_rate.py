"""The learning rate of a phase, over whatever else drives it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_dsd.adapters.base.optimizers import divide, multiply
from keras_dsd.adapters.tf_keras import optimizer
from keras_dsd.adapters.tf_keras.optimizer import Optimizer
from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper

_TRACKED = "dsd_learning_rate_factor"


def tracked_factor(model: tf_keras.Model, initial: float = 1.0) -> tf.Variable:
    """Returns the variable that tells a restored checkpoint's learning rate from a plain one.

    It holds the current multiplier. The model tracks it along with its
    optimizer, whose rate it belongs to, and not among its weights: setting those does not set
    the rate.

    Args:
        model: The model in training.
        initial: The initial value, where the model has no such variable yet.
    """
    factor = model._lookup_dependency(_TRACKED)
    if factor is None:
        with model.distribute_strategy.scope():
            factor = tf.Variable(initial, dtype=tf.float64, trainable=False)
        model._track_trackable(factor, _TRACKED)
    return factor


class LearningRate:
    """Multiplies the rates of a model's optimizers, and takes that back again.

    Rates that are computed from the step can't be set; see `optimizer.scaled`.

    Args:
        model: The model in training.
        wrappers: The wrapped layers in it. Their config says, in a file, what the rates in that
            file are multiplied by; Keras loads an optimizer that was named by a string, such as
            `"adam"`, with the rate it began with, so the rates stand there too.
        optimizers: Returns the optimizers.
    """

    def __init__(
        self,
        model: tf_keras.Model,
        wrappers: Sequence[DSDWrapper],
        optimizers: Callable[[], list[Optimizer]],
    ) -> None:
        self._model = model
        self._optimizers = optimizers
        self._wrappers = wrappers
        self._scaled: dict[int, tuple[np.floating, np.floating]] = {}
        self._factor: float | None = None
        for wrapper in wrappers:
            wrapper.__dict__["read_scaled"] = self._read

    def scale(self, factor: float) -> None:
        """Multiplies the rates, which are unscaled, by `factor`."""
        for each in self._settable():
            rate = optimizer.get_learning_rate(each)
            scaled = multiply(rate, factor)
            self._scaled[id(each)] = (rate, scaled)
            optimizer.set_learning_rate(each, scaled)
        self._note(factor)

    def unscale(self) -> None:
        """Divides the rates by what they are multiplied by, in a restored checkpoint too."""
        factor = self._restore() if self._factor is None else self._factor
        for each in self._settable():
            if id(each) in self._scaled:
                rate = optimizer.get_learning_rate(each)
                unscaled, scaled = self._scaled[id(each)]
                if rate != scaled:  # a callback drove it on
                    unscaled = divide(rate, factor)
                optimizer.set_learning_rate(each, unscaled)
        self._scaled.clear()
        self._note(1.0)

    def _restore(self) -> float:
        """Finds out whether the rates of a restored checkpoint or a loaded file are scaled."""
        written = self._wrappers[0].written_scaled or {"factor": 1.0, "rates": None}
        in_file = written["rates"] == [float(rate) for rate in self._rates()]
        restored = tracked_factor(self._model, written["factor"] if in_file else 1.0)
        factor = float(restored.numpy())
        if factor != 1.0:
            for each in self._settable():
                rate = optimizer.get_learning_rate(each)
                self._scaled[id(each)] = (divide(rate, factor), rate)
        return factor

    def _rates(self) -> list[np.floating]:
        return [optimizer.get_learning_rate(each) for each in self._settable()]

    def _read(self) -> dict[str, Any] | None:
        if self._factor in (None, 1.0):
            return None
        return {"factor": self._factor, "rates": [float(rate) for rate in self._rates()]}

    def _settable(self) -> list[Optimizer]:
        return [each for each in self._optimizers() if not optimizer.is_scheduled(each)]

    def _note(self, factor: float) -> None:
        if factor != self._factor:
            self._factor = factor
            tracked_factor(self._model).assign(factor)
