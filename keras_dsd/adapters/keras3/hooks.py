"""Hooks into Keras 3: optimizers are observed, their learning rates scaled, and `fit` watched."""

from collections.abc import Callable, Sequence

import keras

from keras_dsd.adapters.base import private_names
from keras_dsd.adapters.base.observation import (
    ClassHooks,
    bound,
    observed_apply_gradients,
    observing,
    scaled_rate,
)
from keras_dsd.adapters.base.plain_fits import PlainFits
from keras_dsd.adapters.keras3 import backends, kernels


def _observed_apply(apply: Callable[..., object]) -> Callable[..., object]:
    """Returns the observed `apply` of an optimizer, which updates variables."""

    def observed(
        self: keras.optimizers.Optimizer,
        grads: Sequence[object],
        trainable_variables: Sequence[object] | None = None,
    ) -> object:
        make = bound(apply, self)
        observation = observing(self)
        if observation is None:
            return make(grads, trainable_variables)
        grads = list(grads)
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
        built = private_names.variables_of(self)
        given = built if trainable_variables is None else trainable_variables
        pairs = [(v, grad) for v, grad in zip(given, grads, strict=False) if grad is not None]
        updated, found = [v for v, _ in pairs], [grad for _, grad in pairs]
        return observation.update(self, updated, found, lambda: make(grads, trainable_variables))

    return observed


def _scaled_rate(rate: Callable[[keras.optimizers.Optimizer], object]) -> Callable[..., object]:
    """Returns the scaled getter of an optimizer's learning rate."""

    def scaled(self: keras.optimizers.Optimizer) -> object:
        return scaled_rate(self, lambda: rate(self), backends.current().multiply)

    return scaled


HOOKS = ClassHooks(
    [kind for kind in keras.optimizers.Optimizer.__mro__ if "apply" in vars(kind)],
    {
        "apply": _observed_apply,
        "apply_gradients": observed_apply_gradients,
        private_names.READ_RATE: _scaled_rate,
    },
)
PLAIN_FITS = PlainFits(keras.Model, kernels.parts_of)
