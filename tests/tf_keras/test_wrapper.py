"""The wrapper looks like its layer, in the user's model; its weights do not include masks."""

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper

import keras_dsd as dsd
from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper

layers = tf_keras.layers


def every_kind():
    """Returns a model with layers that hold their kernels in all kinds of ways."""
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(1)
    inputs = layers.Input((8, 8))
    x, *state = layers.LSTM(4, return_sequences=True, return_state=True)(inputs)
    x = layers.GRU(4, return_sequences=True)(x, initial_state=state[0])
    x = layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(4))(x)
    x = layers.RNN([layers.LSTMCell(3), layers.LSTMCell(4)], return_sequences=True)(x)
    x = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.SeparableConv1D(4, 3)(layers.BatchNormalization()(x))
    return tf_keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def layout(model, path):
    """Returns the paths and shapes in a file of weights, and the rows of the summary."""
    found, rows = [], []
    model.save_weights(path)
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.append((name, getattr(item, "shape", None))))
    model.summary(print_fn=rows.append)
    return found, rows


@pytest.mark.parametrize("name", ["some.weights.h5", "some.h5"])
def test_files_of_weights_and_summaries_are_those_of_the_layers(name, tmp_path):
    model = every_kind()
    before = layout(model, tmp_path / name)
    applied = dsd.apply(model, 0.5)
    assert sum(isinstance(layer, DSDWrapper) for layer in applied.layers) == 8
    assert layout(applied, tmp_path / name) == before
    again = tf_keras.Model.from_config(applied.get_config())
    assert sum(isinstance(layer, DSDWrapper) for layer in again.layers) == 8
    again.load_weights(tmp_path / name)
    assert all(map(np.array_equal, again.get_weights(), applied.get_weights()))
    assert layout(again, tmp_path / name) == before
    assert layout(dsd.strip(again), tmp_path / name) == before


def test_checkpoints_are_those_of_a_plain_model(tmp_path):
    plain, applied = every_kind(), dsd.apply(every_kind())
    for one, other in ((plain, applied), (applied, plain)):
        path = tf.train.Checkpoint(model=one).save(str(tmp_path / "c"))
        other.set_weights([np.zeros(w.shape) for w in other.weights])
        tf.train.Checkpoint(model=other).restore(path).assert_consumed()
        assert all(map(np.array_equal, one.get_weights(), other.get_weights()))


def test_a_checkpoint_waits_for_layers_that_are_not_built(tmp_path):
    def make():
        return tf_keras.Sequential([layers.Dense(4), layers.Dense(3)])

    plain, applied = make(), dsd.apply(make())
    plain.build((None, 5))
    tf.train.Checkpoint(model=plain).write(str(tmp_path / "c"))
    status = tf.train.Checkpoint(model=applied).read(str(tmp_path / "c"))
    applied.build((None, 5))
    status.assert_existing_objects_matched()
    assert all(map(np.array_equal, plain.get_weights(), applied.get_weights()))


def test_a_wrapper_has_the_attributes_of_its_layer(mlp):
    model = mlp()
    layer = model.layers[1]
    wrapper = dsd.apply(model).layers[1]
    assert wrapper.layer is layer and type(wrapper).__name__ == "Dense"
    assert wrapper.kernel is layer.kernel and wrapper.units == 16
    wrapper.activation = tf_keras.activations.tanh
    assert layer.activation is tf_keras.activations.tanh
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = wrapper.no_such_thing
    assert wrapper.output is layer.output is model.layers[1].output


def test_models_of_the_same_layers_stay_as_they_are(digits, compiled):
    inputs = layers.Input((8, 8, 1))
    code = layers.Dense(6, name="code")(layers.Flatten()(inputs))
    encoder = tf_keras.Model(inputs, code)
    model = tf_keras.Model(inputs, layers.Dense(10, name="head")(code))
    encoder.head = model.get_layer("head")  # an attribute of the user's
    model.code, config = model.get_layer("code"), encoder.get_config()
    own, before = encoder.get_layer("code"), encoder.predict(digits[0], verbose=0)
    applied = compiled(dsd.apply(model, 0.5))
    assert encoder.get_layer("code") is own and encoder.get_config() == config
    assert np.array_equal(encoder.predict(digits[0], verbose=0), before)
    assert applied.code is applied.get_layer("code") and len(applied.layers) == 4
    longer = tf_keras.Model(applied.input, layers.Dense(3)(applied.get_layer("head").output))
    assert [weight.path for weight in dsd.weights(longer)] == ["code/kernel", "head/kernel"]
    assert dsd.strip(applied).code is own


def test_a_sequential_model_is_changed_as_before(mlp):
    model = dsd.apply(mlp(), 0.5)
    model.build((None, 8, 8, 1))
    model.pop()
    model.add(layers.Dense(7, name="last"))
    assert [weight.path for weight in dsd.weights(model)] == ["dense/kernel"]
    assert model.predict(np.ones((2, 8, 8, 1)), verbose=0).shape == (2, 7)
    assert [type(layer) for layer in dsd.strip(model).layers] == [
        layers.Flatten, layers.Dense, layers.Dense,
    ]  # fmt: skip


def test_masks_are_not_weights_and_take_no_memory_after_their_phase(digits, compiled, mlp):
    model = mlp()
    number = len(model.weights)
    model, masks, seen = compiled(dsd.apply(model, 0.5)), [], []

    class Look(tf_keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            masks.append([weight.mask_variable for weight in dsd.weights(self.model)])
            theirs = [
                mask.numpy().mean()
                for layer in pruning_wrapper.collect_prunable_layers(self.model)
                for _, mask, _ in layer.pruning_vars
            ]
            seen.append((len(self.model.weights), len(self.model.variables), theirs))

    model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), Look()])
    assert seen == [(number, number, [share] * 2) for share in (1.0, 0.5, 1.0)]
    assert masks[0] == masks[2] == [None, None]
    # TensorFlow keeps what a traced step has read, so a mask that has served is empty.
    assert [mask.numpy().size for mask in masks[1]] == [0, 0]


def test_strip_in_a_sparse_phase_frees_the_masks(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.5))
    with pytest.warns(UserWarning, match="ended with pruned weights"):
        model.fit(*digits, verbose=0, callbacks=[dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])])
    masks = [weight.mask_variable for weight in dsd.weights(model)]
    assert [mask.numpy().size for mask in masks] == [1024, 160]
    dsd.strip(model)
    assert [mask.numpy().size for mask in masks] == [0, 0]
