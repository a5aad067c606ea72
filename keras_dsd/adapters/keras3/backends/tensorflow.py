"""Masks on TensorFlow: variables, one copy on each replica, read by the compiled step."""

import platform
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dsd.adapters.base.joined_updates import Together
from keras_dsd.adapters.keras3.backends.stateful import around as around
from keras_dsd.adapters.keras3.backends.stateful import feed as feed
from keras_dsd.utils.patches import Patch

# What may train a model besides optimizers of Keras's.
OPTIMIZERS = ()


def put_mask(mask: np.ndarray, variable: Any, model: Any, earlier: Any) -> Any:
    """Returns a variable that holds `mask`: `earlier`, which traced steps read, or a new one."""
    del variable
    if earlier is not None:
        earlier.assign(mask)
        return earlier
    with model.distribute_strategy.scope():
        shape = tf.TensorShape([None] * mask.ndim)
        return tf.Variable(mask, trainable=False, name="dsd_mask", shape=shape)


def drop_mask(mask: Any) -> Any:
    """Returns the variable, empty, for the next mask.

    Deleting it would not give the memory back: TensorFlow's registry of gradients keeps every
    step that was traced with it, as long as the process lasts.
    """
    mask.assign(np.zeros([0] * mask.shape.rank, bool))
    return mask


def mask_to_numpy(mask: Any) -> np.ndarray:
    """Returns the mask as a boolean array."""
    return mask.numpy()


def mask_to_tensor(mask: Any) -> Any:
    """Returns the mask as a boolean tensor."""
    return mask.value()


def is_tracing() -> bool:
    """Returns whether a `tf.function` is being traced."""
    return tf.inside_function()


def apply_masks(pairs: Sequence[tuple[Any, Any]]) -> None:
    """Sets each variable to zero where its mask is False, on each replica by itself."""

    def on_all(strategy: Any, variable: Any, mask: Any) -> None:
        strategy.extended.update(variable, _zero, args=(mask,), group=False)

    for given, mask in pairs:
        variable = given.value if isinstance(given, keras.Variable) else given
        # A loop of the user's own may be outside of the scope that the variable was made in.
        strategy = getattr(variable, "distribute_strategy", None) or tf.distribute.get_strategy()
        tf.__internal__.distribute.interim.maybe_merge_call(on_all, strategy, variable, mask)


def update_patches(optimizer: Any, held: Any) -> list[Patch]:
    """Returns what makes the mask part of each update of a weight without a constraint."""
    updates = _Updates(optimizer, held)
    return [
        Patch(vars(optimizer), "update_step", updates.one),
        Patch(vars(optimizer), "_backend_update_step", updates.all),
    ]


class _Updates:
    """The updates of one optimizer, each with its mask.

    Args:
        optimizer: The optimizer.
        held: The weights that are held.
    """

    def __init__(self, optimizer: Any, held: Any) -> None:
        self._optimizer = optimizer
        self._held = held
        self._plain = optimizer.update_step
        self._plain_all = optimizer._backend_update_step
        self._compiled = tf.function(self._with_masks, jit_compile=True)
        self._together = Together(self._make)
        # XLA may not take an optimizer of the user's own.
        known = type(optimizer).__module__.startswith("keras.")
        self._can_compile = known and platform.system() != "Darwin"

    def all(self, gradients: Any, variables: Any, learning_rate: Any) -> None:
        """Updates all variables; Keras calls `one` for each in turn."""
        if tf.distribute.has_strategy():  # each device updates its copies by itself
            self._plain_all(gradients, variables, learning_rate)
            return
        with self._together.up_to(self._optimizer._var_key(variables[-1])):
            self._plain_all(gradients, variables, learning_rate)

    def one(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable."""
        key = self._optimizer._var_key(variable)
        mask = self._held.mask_in_update(self._optimizer, key)
        size, is_whole = variable.shape.num_elements(), isinstance(gradient, tf.Tensor)
        if mask is None:
            self._plain(gradient, variable, learning_rate)
        elif self._can_compile and self._together.takes(size, is_whole):
            self._together.add(size, (gradient, variable, learning_rate, mask, key))
        else:
            self._plain(gradient, variable, learning_rate)
            _zero(variable, mask)
        self._together.passed(key)

    def _make(self, updates: list[Any]) -> None:
        gradients, variables, rates, masks, keys = zip(*updates, strict=True)
        rate = tf.convert_to_tensor(rates[0])
        self._compiled(gradients, variables, rate, [mask.value() for mask in masks], keys)

    def _with_masks(
        self, gradients: Any, variables: Any, learning_rate: Any, masks: Any, keys: Any
    ) -> None:
        del keys  # a trace for each choice of variables
        for gradient, variable, mask in zip(gradients, variables, masks, strict=True):
            self._plain(gradient, variable, learning_rate)
            _zero(variable, mask)


def num_workers(model: Any) -> int:
    """Returns how many workers mirror the variables of a model."""
    strategy = getattr(model, "distribute_strategy", None)  # of a model, not of a layer
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return int(strategy.extended._num_workers)
    return 1


def forward(model: Any, inputs: Any) -> None:
    """Runs a model as in training, on each replica."""
    strategy = model.distribute_strategy
    with strategy.scope():
        strategy.run(lambda each: model(each, training=True), args=(inputs,))


def _zero(variable: Any, mask: Any) -> None:
    value = tf.convert_to_tensor(variable)
    kept = tf.ensure_shape(mask, value.shape)
    variable.assign(tf.where(kept, value, tf.zeros_like(value)))
