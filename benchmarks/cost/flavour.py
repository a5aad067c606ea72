"""Flags of the programs of this folder: Keras, device and number of replicas."""

import contextlib
import functools
import importlib
from typing import Any

from absl import flags

_KERAS = flags.DEFINE_enum("keras", "keras", ["tf_keras", "keras"], "Whose model to train.")
_REPLICAS = flags.DEFINE_integer("replicas", 1, "Logical CPU devices under MirroredStrategy.")
NETWORK = flags.DEFINE_string("network", "mlp", "What to train; see networks.py.")


def keras_module() -> Any:
    """Returns `keras` or `tf_keras`."""
    return importlib.import_module(_KERAS.value)


def backend_of(keras: Any) -> str:
    """Returns what computes: `"tensorflow"`, `"jax"` or `"torch"`."""
    return "tensorflow" if keras.__name__ == "tf_keras" else keras.backend.backend()


def scope() -> Any:
    """Returns the scope of a strategy, for several devices."""
    return contextlib.nullcontext() if _REPLICAS.value == 1 else _strategy().scope()


@functools.cache
def _strategy() -> Any:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * _REPLICAS.value
    tf.config.set_logical_device_configuration(cpu, logical)
    names = [f"CPU:{index}" for index in range(_REPLICAS.value)]
    return tf.distribute.MirroredStrategy(names)
