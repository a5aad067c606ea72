"""The learning rate of a phase, over whatever else drives it."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_dsd.tfmot import optimizer

_TRACKED = "dsd_learning_rate_factor"


def tracked_factor(model: Any, initial: float = 1.0) -> Any:
    """Returns the variable that tells a restored checkpoint's learning rate from a plain one.

    It holds what the rate is multiplied by at the moment. The model tracks it beside its
    optimizer, whose rate it belongs to, and not among its weights: setting those does not set
    the rate.

    Args:
        model: The model in training.
        initial: What the variable begins with where the model has none yet.
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
        wrappers: The wrapped layers in it, whose config says in a file what the rate in that
            file is multiplied by.
    """

    def __init__(self, model: Any, wrappers: list[Any]) -> None:
        self._model = model
        self._wrappers = wrappers
        self._scaled: dict[int, tuple[np.floating, np.floating]] = {}
        self._factor: float | None = None

    def scale(self, factor: float) -> None:
        """Multiplies the rates, which are unscaled, by `factor`."""
        for each in self._settable():
            rate = optimizer.get_learning_rate(each)
            scaled = np.float32(rate * factor)
            self._scaled[id(each)] = (rate, scaled)
            optimizer.set_learning_rate(each, scaled)
        self._note(factor)

    def unscale(self) -> None:
        """Divides the rates by what they are multiplied by, in a restored checkpoint too."""
        factor = self._factor
        if factor is None:
            factor = float(tracked_factor(self._model, self._wrappers[0].lr).numpy())
        if factor != 1.0:
            for each in self._settable():
                rate = optimizer.get_learning_rate(each)
                unscaled, scaled = self._scaled.get(id(each), (rate, None))
                untouched = scaled == rate
                optimizer.set_learning_rate(each, unscaled if untouched else _divide(rate, factor))
            self._scaled.clear()
        self._note(1.0)

    def _settable(self) -> list[Any]:
        optimizers = optimizer.optimizers_of(self._model)
        return [each for each in optimizers if not optimizer.is_scheduled(each)]

    def _note(self, factor: float) -> None:
        if factor != self._factor:
            self._factor = factor
            tracked_factor(self._model).assign(factor)
            for wrapper in self._wrappers:
                wrapper.lr = factor


def _divide(rate: np.floating, factor: float) -> np.floating:
    """Returns the float32 that, multiplied by `factor`, gives `rate` again where there is one."""
    near = np.float32(rate / factor)
    candidates = [near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))]
    return next((c for c in candidates if np.float32(c * factor) == rate), near)
