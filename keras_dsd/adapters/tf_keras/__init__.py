"""Adapter of tf_keras and TF-MOT. Importing it registers the wrapper for loading files."""

from collections.abc import Mapping

import tf_keras

from keras_dsd.adapters.tf_keras import selection, training
from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper as DSDWrapper

apply, strip = selection.apply, selection.strip
weights, skipped = selection.weights, selection.skipped
layers_of_kernels = selection.layers_of_kernels
is_applied, mask_bytes = selection.is_applied, selection.mask_bytes
training_adapter, training_state = selection.training_adapter, training.training_state


def is_compiled(model: tf_keras.Model) -> bool:
    """Returns whether `model` has a loss, so that it can be evaluated."""
    return bool(model._is_compiled)


def load_model(path: str, safe_mode: bool, compiled: bool) -> tf_keras.Model:
    """Loads a model from a file; `safe_mode` does not inspect HDF5."""
    return tf_keras.models.load_model(path, compile=compiled, safe_mode=safe_mode)


def register(objects: Mapping[str, object]) -> frozenset[str]:
    """Registers custom objects for loading, and returns the names by which files refer to them."""
    known = {
        **objects,
        **{tf_keras.saving.get_registered_name(each): each for each in objects.values()},
    }
    tf_keras.saving.get_custom_objects().update(known)
    return frozenset(known)
