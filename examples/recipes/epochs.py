"""Batches of every epoch, in an order that follows from the epoch's number."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from recipes.chosen_keras import IS_LEGACY, keras


class Epoch(keras.callbacks.Callback):
    """Knows which epoch trains, and has what dropout draws follow from it.

    No backup has the state of random numbers. tf_keras offers no way to set what dropout draws.

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
    """Returns a dataset that is another epoch's each time that it is gone through.

    Args:
        batches: Returns an epoch's, from its seed, a scalar int64 tensor.
        epoch: Knows which epoch it is.
        steps: After how many batches an epoch ends; 0: after all.
    """
    most = steps or -1

    def batches_of(_: tf.Tensor) -> tf.data.Dataset:
        of_epoch = tf.numpy_function(lambda: epoch.seed, [], tf.int64, stateful=True)
        return batches(tf.ensure_shape(of_epoch, ())).take(most)

    every = tf.data.Dataset.range(1).flat_map(batches_of)
    number = number_of(batches(tf.constant(0, tf.int64)).take(most))
    return every.apply(tf.data.experimental.assert_cardinality(number)).prefetch(tf.data.AUTOTUNE)


def number_of(batches: tf.data.Dataset) -> int:
    """Returns how many batches there are.

    Of data whose end it does not foresee, Keras 3 on TensorFlow begins one step more: it counts in
    the optimizer's iterations, and weights decay in it.
    """
    number = int(batches.cardinality())
    if number <= 0:
        raise ValueError(
            f"Expected a known number of batches, at least one. Received: cardinality={number}. "
            f"Apply tf.data.experimental.assert_cardinality to what counts them."
        )
    return number
