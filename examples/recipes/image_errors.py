"""The errors that ImageNet's networks are compared by."""

from typing import Any

import tensorflow as tf

from recipes.chosen_keras import keras


def metrics(num_classes: int) -> list[Any]:
    """Returns what `compile` is to be given."""
    top5 = keras.metrics.SparseTopKCategoricalAccuracy(min(5, num_classes), name="top5")
    return ["accuracy", top5]


def errors(model: Any, validation: tf.data.Dataset) -> dict[str, float]:
    """Returns the share of images whose class is not the first, or not among the first five.

    Args:
        model: Compiled with `metrics`.
        validation: Batches of images and labels.
    """
    measured = model.evaluate(validation, verbose=0, return_dict=True)
    names = {"top-1 error": "accuracy", "top-5 error": "top5"}
    return {error: 100 * (1 - measured[accuracy]) for error, accuracy in names.items()}
