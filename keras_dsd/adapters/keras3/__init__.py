"""Adapter of Keras 3, on every backend that trains. Models are unchanged."""

from collections.abc import Mapping

import keras

from keras_dsd.adapters.keras3 import selection, training

apply, strip = selection.apply, selection.strip
weights, skipped = selection.weights, selection.skipped
layers_of_kernels = selection.layers_of_kernels
is_applied, mask_bytes = selection.is_applied, selection.mask_bytes
training_adapter, training_state = selection.training_adapter, training.training_state


def load_model(path: str, safe_mode: bool, compiled: bool) -> keras.Model:
    """Loads a model from a file; `safe_mode` refuses to deserialize code."""
    return keras.saving.load_model(path, compile=compiled, safe_mode=safe_mode)


def is_compiled(model: keras.Model) -> bool:
    """Returns whether `model` has a loss, so that it can be evaluated."""
    return bool(model.compiled)


def register(objects: Mapping[str, object]) -> frozenset[str]:
    """Registers custom objects for loading, and returns the names by which files refer to them."""
    known = {
        **objects,
        **{keras.saving.get_registered_name(each): each for each in objects.values()},
    }
    keras.saving.get_custom_objects().update(known)
    return frozenset(known)
