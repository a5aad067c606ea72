"""Batches of every epoch, in an order that depends only on the epoch."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from recipes.chosen_keras import IS_LEGACY, keras


class Epoch(keras.callbacks.Callback):
    """Sets the random seed of dropout by the current epoch.

    Backups do not hold the state of random numbers. tf_keras can't set the seed of dropout.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self.number = 0

    @property
    def seed(self) -> int:
        """The epoch's own."""
        return self._seed * 1_000_003 + self.number

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Comes before the epoch's first batch is read."""
        self.number = epoch
        if not IS_LEGACY:
            states = [v for v in self.model.variables if v.path.endswith("seed_generator_state")]
            for index, state in enumerate(states):
                state.assign([index, self.seed])


def every_epoch(
    batches: Callable[[tf.Tensor], tf.data.Dataset], epoch: Epoch, steps: int
) -> tf.data.Dataset:
    """Returns a dataset that yields the batches of another epoch in each iteration.

    Args:
        batches: Returns an epoch's, from its seed, a scalar int64 tensor.
        epoch: The current epoch.
        steps: Number of batches of an epoch; 0: all.
    """
    most = steps or -1

    def batches_of(_: tf.Tensor) -> tf.data.Dataset:
        of_epoch = tf.numpy_function(lambda: epoch.seed, [], tf.int64, stateful=True)
        return batches(tf.ensure_shape(of_epoch, ())).take(most)

    every = tf.data.Dataset.range(1).flat_map(batches_of)
    number = number_of(batches(tf.constant(0, tf.int64)).take(most))
    return every.apply(tf.data.experimental.assert_cardinality(number)).prefetch(tf.data.AUTOTUNE)


def number_of(batches: tf.data.Dataset) -> int:
    """Returns the number of batches.

    For data of unknown length, Keras 3 on TensorFlow starts an extra step, which counts in the
    iterations of the optimizer and applies weight decay.
    """
    number = int(batches.cardinality())
    if number <= 0:
        raise ValueError(
            f"Expected a known number of batches, at least one. Received: cardinality={number}. "
            f"Apply tf.data.experimental.assert_cardinality to what counts them."
        )
    return number
