"""Keras 3 and tf_keras side by side in a process: they are distinguished by name."""

import keras
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras

import keras_dsd as dsd


class Holder(tf_keras.layers.Layer):
    """Holds a layer where Keras does not look."""

    def __init__(self, inner):
        super().__init__(name="holder")
        vars(self)["inner"] = inner

    def call(self, x):
        return x


@pytest.mark.parametrize("held", [lambda x: x, lambda x: [x], lambda x: {"a": [x]}])
def test_a_keras_3_layer_inside_a_tf_keras_model_is_refused_by_name(held):
    layers = tf_keras.layers
    inner = held(keras.layers.Dense(3))
    model = tf_keras.Sequential([layers.Input((4,)), Holder(inner), layers.Dense(2)])
    with pytest.raises(TypeError, match=r"holder\.inner is a Keras 3 layer \(keras\..*Dense\)"):
        dsd.apply(model)


def test_a_tf_keras_layer_inside_a_keras_3_model_is_refused_by_name():
    class Model(keras.Model):
        def __init__(self):
            super().__init__(name="outer")
            self.hidden = keras.layers.Dense(3)
            self.others = [tf_keras.layers.Dense(3)]

    with pytest.raises(TypeError, match=r"outer\.others is a tf_keras layer \(tf_keras\..*Dense"):
        dsd.apply(Model())


def test_tfmot_refuses_a_keras_3_model_by_its_type_and_we_take_it():
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="You passed an object of type: Sequential"):
        tfmot.sparsity.keras.prune_low_magnitude(model)
    assert dsd.apply(model) is model
    assert [weight.path for weight in dsd.weights(model)] == [model.layers[0].kernel.path]


def test_a_model_that_tfmot_wrapped_is_refused():
    layers = tf_keras.layers
    plain = tf_keras.Sequential([layers.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"are not wrapped.*strip_pruning"):
        dsd.apply(tfmot.sparsity.keras.prune_low_magnitude(plain))
