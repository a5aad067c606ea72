"""Masks on TensorFlow: variables, one copy on each replica, read by the compiled step."""

import platform
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_dsd.keras3.backends.stateful import around as around
from keras_dsd.keras3.backends.stateful import feed as feed
from keras_dsd.patches import Patch

# From here on a tensor outgrows a core's cache, and a pass of its own over weight and mask would
# cost up to a tenth of a step: the update and the mask are compiled into one pass.
COMPILED_SIZE = 2**18


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


def apply_mask(variable: Any, mask: Any) -> None:
    """Sets a variable to zero where `mask` is False, on each replica by itself."""
    variable = variable.value if isinstance(variable, keras.Variable) else variable

    def on_all(strategy: Any, variable: Any, mask: Any) -> None:
        strategy.extended.update(variable, _zero, args=(mask,), group=False)

    # A loop of the user's own may be outside of the scope that the variable was made in.
    strategy = getattr(variable, "distribute_strategy", None) or tf.distribute.get_strategy()
    tf.__internal__.distribute.interim.maybe_merge_call(on_all, strategy, variable, mask)


def update_patches(optimizer: Any, held: Any) -> list[Patch]:
    """Returns what makes the mask part of each update of a weight without a constraint."""
    plain = optimizer.update_step

    @tf.function(jit_compile=True)
    def compiled(gradient: Any, variable: Any, learning_rate: Any, mask: Any, key: Any) -> None:
        del key  # a trace for each variable
        plain(gradient, variable, learning_rate)
        _zero(variable, mask)

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        key = optimizer._var_key(variable)
        mask = held.mask_in_update(optimizer, key)
        if mask is None:
            plain(gradient, variable, learning_rate)
        elif _is_compiled(optimizer, variable):
            rate = tf.convert_to_tensor(learning_rate)
            compiled(gradient, variable, rate, mask.value(), key)
        else:
            plain(gradient, variable, learning_rate)
            _zero(variable, mask)

    return [Patch(vars(optimizer), "update_step", update_step)]


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


def _is_compiled(optimizer: Any, variable: Any) -> bool:
    """Returns whether to compile the update: XLA may not take an optimizer of the user's own."""
    known = type(optimizer).__module__.startswith("keras.") and platform.system() != "Darwin"
    return known and variable.shape.num_elements() >= COMPILED_SIZE
