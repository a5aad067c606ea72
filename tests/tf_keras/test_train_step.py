"""Operations of a tf_keras step."""

import collections

import pytest
import tensorflow as tf
import tf_keras

import keras_dsd as dsd

pytestmark = pytest.mark.smoke

callbacks = tf_keras.callbacks


def test_dense_steps_hold_no_pruning_operation(digits, compiled, mlp):
    operations = {}
    plain = compiled(mlp())
    model = compiled(dsd.apply(mlp()))

    class Look(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            graph = self.model.train_tf_function.get_concrete_function(iterator).graph
            types = collections.Counter(op.type for op in graph.get_operations())
            operations.setdefault("plain" if self.model is plain else epoch, types)

    data = tf.data.Dataset.from_tensor_slices(digits).batch(32)
    iterator = iter(data)
    plain.fit(data, verbose=0, callbacks=[Look()])
    model.fit(data, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), Look()])
    # The factor of the learning rate, once for all variables.
    assert operations[0] - operations["plain"] == {"Placeholder": 1, "Mul": 1}
    assert operations[2] == operations[0]
    # For two weights, the zeros, constants, and one read of the count of updates.
    assert operations[1] - operations[0] == {
        "Placeholder": 2, "ReadVariableOp": 5, "SelectV2": 2, "AssignVariableOp": 2,
        "Const": 2,
    }  # fmt: skip
