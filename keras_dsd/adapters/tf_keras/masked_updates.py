"""Ends each update of a held weight in `weight * mask`, as part of the optimizer's own update."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from tf_keras.src.utils import tf_utils

from keras_dsd.adapters.base.joined_updates import Together
from keras_dsd.adapters.tf_keras import optimizer
from keras_dsd.adapters.tf_keras.weight import Weight
from keras_dsd.utils.patches import Patch


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
                updates = _Updates(each, self._by_key, self._masked)
                found += [
                    Patch(vars(each), "_update_step", updates.one),
                    Patch(vars(each), "_update_step_xla", updates.one_by_xla),
                    Patch(vars(each), "_internal_apply_gradients", updates.all),
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


class _Updates:
    """The updates of one optimizer, each with its mask.

    Args:
        optimizer: The optimizer.
        weights: The weights to mask, by key.
        masked: What is added to: the keys of those that it masks.
    """

    def __init__(self, optimizer: Any, weights: Mapping[Any, Weight], masked: set[Any]) -> None:
        self._optimizer = optimizer
        self._weights = weights
        self._masked = masked
        self._plain = optimizer._update_step
        self._plain_by_xla = optimizer._update_step_xla
        self._plain_all = optimizer._internal_apply_gradients
        self._compiled = tf.function(self._with_masks, jit_compile=True)
        self._together = Together(self._make)
        # XLA may not take an optimizer of the user's own.
        known = type(optimizer).__module__.startswith("tf_keras.")
        self._can_compile = known and tf_utils.can_jit_compile()

    def all(self, grads_and_vars: Any) -> Any:
        """Updates all variables; tf_keras calls `one` for each, then counts the step."""
        pairs = list(grads_and_vars)
        if tf.distribute.has_strategy():  # each device updates its copies by itself
            return self._plain_all(pairs)
        with self._together.up_to(_key(pairs[-1][1])):
            return self._plain_all(pairs)

    def one(self, gradient: Any, variable: Any) -> None:
        """Updates a variable."""
        self._update(self._plain, gradient, variable)

    def one_by_xla(self, gradient: Any, variable: Any, key: Any) -> None:
        """Updates a variable of an optimizer that compiles its updates."""
        self._update(self._plain_by_xla, gradient, variable, key)

    def _update(
        self, otherwise: Callable[..., None], gradient: Any, variable: Any, *rest: Any
    ) -> None:
        key = _key(variable)
        weight = self._weights.get(key)
        if weight is None:
            otherwise(gradient, variable, *rest)
        else:
            self._masked.add(key)
            self._masked_update(gradient, variable, weight.mask_variable, key)
        self._together.passed(key)

    def _masked_update(self, gradient: Any, variable: Any, mask: Any, key: Any) -> None:
        size, is_whole = variable.shape.num_elements(), isinstance(gradient, tf.Tensor)
        if self._can_compile and self._together.takes(size, is_whole):
            self._together.add(size, (gradient, variable, mask, key))
        else:
            self._plain(gradient, variable)
            variable.assign(variable * mask.value())

    def _make(self, updates: list[Any]) -> None:
        gradients, variables, masks, keys = zip(*updates, strict=True)
        self._compiled(gradients, variables, [mask.value() for mask in masks], keys)

    def _with_masks(self, gradients: Any, variables: Any, masks: Any, keys: Any) -> None:
        del keys  # a trace for each choice of variables
        for gradient, variable, mask in zip(gradients, variables, masks, strict=True):
            self._plain(gradient, variable)
            variable.assign(variable * mask)


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
