"""What a tf_keras step is made of, and what a file of a wrapped model says of its rate."""

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
    assert operations[0] == operations["plain"]
    assert operations[2] == operations["plain"]
    assert operations[1] - operations["plain"] == {  # for two weights
        "Placeholder": 2, "ReadVariableOp": 4, "Mul": 2, "AssignVariableOp": 2,
    }  # fmt: skip


def test_strip_gives_the_rate_of_a_file_back(digits, compiled, mlp, tmp_path):
    model = compiled(dsd.apply(mlp()), tf_keras.optimizers.Adam(0.002))
    path = tmp_path / "model.keras"
    save = callbacks.LambdaCallback(on_epoch_end=lambda *_: model.save(path))
    model.fit(*digits, epochs=2, verbose=0, callbacks=[dsd.DSDSchedule(0, 1, 1), save])
    loaded = tf_keras.models.load_model(path)
    assert float(loaded.optimizer.learning_rate) == pytest.approx(0.0002)
    assert float(dsd.strip(loaded).optimizer.learning_rate) == pytest.approx(0.002)
