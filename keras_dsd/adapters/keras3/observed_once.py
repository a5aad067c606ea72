"""Steps in Python that are observed once, and then masked and scaled without observing them again.

Observing an update tells which optimizer updates which weights, and takes 2 % of a step of a small
network. Where Keras's own step has one optimizer, the next steps tell the same.
"""

import threading
from collections.abc import Callable
from typing import Any, cast

import keras

from keras_dsd.adapters.base import private_names
from keras_dsd.adapters.base.factors import HostFactors
from keras_dsd.adapters.keras3 import backends
from keras_dsd.adapters.keras3.backends import ObservedStep
from keras_dsd.protocols import Step
from keras_dsd.utils.patches import Patch, patched


class ObservedOnce:
    """A step of Keras, observed when it first runs, and after each change of the factors.

    Args:
        plain: The step.
        observed: The same step, observed, masked and scaled.
        step: What is observed. The optimizer of its model is the only one.
    """

    def __init__(self, plain: Step, observed: Step, step: ObservedStep) -> None:
        self._plain, self._observed = plain, observed
        self._observation, self._masked = step.observation, step.masked
        self._factors = cast("HostFactors", step.observation.factors)
        self._optimizer = step.model.optimizer
        self._factors_when_observed: object = None
        self._later: Step | None = None

    def __call__(self, iterator: object) -> object:
        """Runs the step."""
        if self._later is not None and self._factors_when_observed is self._factors.values:
            return self._later(iterator)
        logs = self._observed(iterator)
        patches = self._patches()
        self._later = None if patches is None else patched(self._plain, patches)
        self._factors_when_observed = self._factors.values
        return logs

    def _patches(self) -> list[Patch] | None:
        """Returns what masks and scales later steps; None if these have to be observed too."""
        if self._observation.optimizers != [self._optimizer] or not self._factors.are_constant:
            return None
        patches = [] if self._masked is None else self._masked.patches_of(self._optimizer)
        if patches is None or self._factors.value == 1.0:
            return patches
        if not hasattr(self._optimizer, private_names.READ_RATE):
            return None
        return [*patches, *_Scaled(self._optimizer, self._factors.value).patches()]


class _Scaled:
    """The learning rate of an optimizer, times a factor where its update reads it."""

    def __init__(self, optimizer: keras.optimizers.Optimizer, factor: float) -> None:
        self._optimizer, self._factor = optimizer, factor
        self._apply = optimizer.apply
        self._rate: Callable[[], Any] = getattr(optimizer, private_names.READ_RATE)
        self._multiply = backends.current().multiply
        self._thread: int | None = None

    def patches(self) -> list[Patch]:
        """Returns the patches of the optimizer."""
        members = {"apply": self.apply, private_names.READ_RATE: self.rate}
        return [Patch(vars(self._optimizer), name, each) for name, each in members.items()]

    def apply(self, *args: Any, **kwargs: Any) -> object:
        """Runs the optimizer's `apply`."""
        self._thread = threading.get_ident()
        try:
            return self._apply(*args, **kwargs)
        finally:
            self._thread = None

    def rate(self) -> object:
        """Returns the learning rate, in the thread that updates times the factor."""
        is_update = self._thread == threading.get_ident()
        return self._multiply(self._rate(), self._factor) if is_update else self._rate()
