"""Ends each update of a held weight in `weight * mask`, as part of the optimizer's own update."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tf_keras.src.utils import tf_utils

from keras_dsd.patches import Patch
from keras_dsd.tfmot import optimizer
from keras_dsd.tfmot.weight import Weight

# From here on a tensor outgrows a core's cache, and a pass of its own over weight and mask would
# cost up to a tenth of a step: the update and the mask are compiled into one pass.
COMPILED_SIZE = 2**18


class MaskedUpdates:
    """What the optimizers of one model do while its weights are held.

    An optimizer with Keras's update step masks within it. What no such step updates (legacy
    optimizers, optimizers that the model hides), and what has a constraint of the user's, which
    comes first, is masked at the end of the training step.

    Args:
        weights: The weights to hold, with their masks set.
        optimizers: The model's optimizers.
    """

    def __init__(self, weights: list[Weight], optimizers: list[Any]) -> None:
        self._weights = weights
        self._optimizers = optimizers
        free = [weight for weight in weights if weight.variable.constraint is None]
        self._by_key = {_key(weight.variable): weight for weight in free}
        self._masked: set[Any] = set()

    def patches(self) -> list[Patch]:
        """Returns what has to stand on the optimizers while a step is traced or run."""
        found = []
        for each in self._optimizers:
            if hasattr(each, "_update_step"):
                masking = self._masking(each)
                found += [
                    Patch(vars(each), "_update_step", masking(each._update_step)),
                    Patch(vars(each), "_update_step_xla", masking(each._update_step_xla)),
                ]
        return found

    def around(self, train_step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns `train_step`, with the masking that the optimizers have left to do."""

        def step(data: Any) -> Any:
            logs = train_step(data)
            self.mask_rest()
            return logs

        return step

    def mask_rest(self) -> None:
        """Sets weights to zero that no optimizer has masked, and the averages of all."""
        for weight in self._weights:
            if _key(weight.variable) not in self._masked:
                _mask(weight.variable, weight.mask_variable)
            for each in self._optimizers:  # not every average is updated after the mask
                average = optimizer.average_of(each, weight.variable)
                if average is not None:
                    _mask(average, weight.mask_variable)

    def _masking(self, each: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
        plain = each._update_step

        @tf.function(jit_compile=True)
        def compiled(gradient: Any, variable: Any, mask: Any, key: Any) -> None:
            plain(gradient, variable)
            variable.assign(variable * mask)

        def masking(otherwise: Callable[..., None]) -> Callable[..., None]:
            def update(gradient: Any, variable: Any, *key: Any) -> None:
                weight = self._by_key.get(_key(variable))
                if weight is None:
                    otherwise(gradient, variable, *key)
                    return
                self._masked.add(_key(variable))
                mask = weight.mask_variable.value()
                if _is_compiled(each, weight):
                    compiled(gradient, variable, mask, _key(variable))
                else:
                    plain(gradient, variable)
                    variable.assign(variable * mask)

            return update

        return masking


def _is_compiled(each: Any, weight: Weight) -> bool:
    """Returns whether to compile the update: XLA may not take an optimizer of the user's own."""
    known = type(each).__module__.startswith("tf_keras.") and tf_utils.can_jit_compile()
    return known and int(np.prod(weight.shape)) >= COMPILED_SIZE


def _mask(variable: Any, mask: Any) -> None:
    """Sets a variable to zero where `mask` is 0, on each replica by itself."""

    def on_all(strategy: Any, variable: Any, mask: Any) -> None:
        strategy.extended.update(variable, _multiply, args=(mask,), group=False)

    # A loop of the user's own may be outside of the scope that the variable was made in.
    strategy = getattr(variable, "distribute_strategy", None) or tf.distribute.get_strategy()
    tf.__internal__.distribute.interim.maybe_merge_call(on_all, strategy, variable, mask)


def _multiply(variable: Any, mask: Any) -> None:
    variable.assign(variable * mask)


def _key(variable: Any) -> Any:
    """Returns what names a variable and each of its replicas, whose handles know the whole."""
    if not isinstance(variable, tf.distribute.DistributedValues):
        container = getattr(variable.handle, "_distributed_container", None)
        variable = variable if container is None else container()
    return variable._unique_id
