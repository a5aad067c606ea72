"""The errors that ImageNet's networks are compared by."""

from typing import Any

import tensorflow as tf

from recipes.chosen_keras import keras

NAMES = {"top-1 error": "accuracy", "top-5 error": "top5"}


def names(num_classes: int) -> list[str]:
    """Returns the errors of so many classes: that of the best five means nothing of five."""
    return list(NAMES)[: 2 if num_classes > 5 else 1]


def metrics(num_classes: int) -> list[Any]:
    """Returns what `compile` is to be given."""
    top5 = keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5")
    return ["accuracy", top5][: len(names(num_classes))]


def errors(model: Any, validation: tf.data.Dataset) -> dict[str, float]:
    """Returns the share of images whose class is not the first, or not among the first five.

    Args:
        model: Compiled with `metrics`.
        validation: Batches of images and labels.
    """
    measured = model.evaluate(validation, verbose=0, return_dict=True)
    return {
        error: 100 * (1 - measured[accuracy])
        for error, accuracy in NAMES.items()
        if accuracy in measured
    }
