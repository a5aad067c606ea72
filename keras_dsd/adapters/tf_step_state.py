"""State of TensorFlow steps, for both Kerases: variables, mirrored on each replica."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_dsd.adapters import tf_graphs
from keras_dsd.adapters.base.step_state import StepState, averaged


class TensorFlowStepState(StepState[tf.Variable]):
    """Variables that traced steps read and assign; sums are local to each replica until read."""

    def _copy(self, variable: Any) -> tf.Variable:
        return _new(variable, _raw(variable))

    def _zeros(self, variable: Any) -> tf.Variable:
        raw = _raw(variable)
        return _new(
            variable,
            tf.zeros(raw.shape, tf.float32),
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )

    def _mask(self, weight: Any, mask: Any) -> tf.Variable:
        return _new(weight.variable, mask)

    def _read(self, held: tf.Variable) -> np.ndarray:
        return np.array(tf.convert_to_tensor(held))

    def _clear(self, held: tf.Variable) -> None:
        held.assign(tf.zeros(held.shape, held.dtype))

    def _write(self, held: tf.Variable, value: np.ndarray) -> None:
        held.assign(value)

    def _assign(self, variable: Any, held: tf.Variable) -> None:
        raw = _raw(variable)
        strategy = _strategy_of(raw)
        with strategy.scope():  # between steps no replica is in charge
            strategy.extended.update(raw, lambda each, value: each.assign(value), args=(held,))

    def _average(self, held: tf.Variable, value: Any, momentum: float) -> None:
        def move(average: tf.Variable, new: tf.Variable) -> None:
            average.assign(averaged(average, new, momentum))

        tf_graphs.update_replicas(held, move, _raw(value))

    def _add(self, variable: Any, held: tf.Variable, gradient: Any, is_movement: bool) -> None:
        gradient = tf.cast(tf.convert_to_tensor(gradient), tf.float32)
        if is_movement:
            gradient = -gradient * tf.cast(tf.convert_to_tensor(_raw(variable)), tf.float32)
        held.assign_add(gradient)

    def _decay(self, variable: Any, held: tf.Variable, learning_rate: Any, decay: float) -> None:
        def shrink(each: tf.Variable, kept: Any) -> None:
            value = tf.convert_to_tensor(each)
            share = tf.cast(learning_rate, value.dtype) * tf.cast(decay, value.dtype)
            each.assign(tf.where(tf.convert_to_tensor(kept), value, value - value * share))

        tf_graphs.update_replicas(_raw(variable), shrink, held)


def _raw(variable: Any) -> tf.Variable:
    """Returns the TensorFlow variable of a Keras 3 variable."""
    return getattr(variable, "_value", variable)


def _strategy_of(raw: tf.Variable) -> tf.distribute.Strategy:
    return getattr(raw, "distribute_strategy", None) or tf.distribute.get_strategy()


def _new(variable: Any, value: Any, **options: Any) -> tf.Variable:
    raw = _raw(variable)
    strategy = _strategy_of(raw)
    with strategy.scope(), strategy.extended.colocate_vars_with(raw):
        value = tf.convert_to_tensor(value)
        return tf.Variable(value, trainable=False, name="dsd_step_state", **options)
