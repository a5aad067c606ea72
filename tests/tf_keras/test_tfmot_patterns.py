"""Blocks and N:M groups are those of TF-MOT, on weights without ties, where TF-MOT has them."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

import keras_dsd as dsd


def masks_of_tfmot(kernel, sparsity, **how):
    variable, mask = tf.Variable(kernel), tf.Variable(tf.ones_like(kernel))
    how = {"block_size": [1, 1], "block_pooling_type": "AVG", **how}
    pruning = pruning_impl.Pruning(
        training_step_fn=lambda: 0, pruning_vars=[(variable, mask, tf.Variable(0.0))],
        pruning_schedule=lambda step: (True, sparsity), **how,
    )  # fmt: skip
    return pruning._maybe_update_block_mask(variable)[1].numpy() != 0


def our_mask(kernel, sparsity, pattern):
    if kernel.ndim == 2:
        layer, shape = tf_keras.layers.Dense(kernel.shape[-1]), kernel.shape[:1]
    else:
        layer = tf_keras.layers.Conv2D(kernel.shape[-1], kernel.shape[:2])
        shape = (8, 8, kernel.shape[2])
    model = tf_keras.Sequential([tf_keras.layers.Input(shape), layer])
    layer.set_weights([kernel, np.zeros(kernel.shape[-1], "float32")])
    asked = {} if isinstance(pattern, dsd.NM) else {"sparsity": sparsity}
    model = dsd.apply(model, **asked, pattern=pattern)
    model.compile("sgd", "mse")
    schedule = dsd.DSDSchedule(phases=[dsd.SparsePhase(1), dsd.DensePhase(1)])
    schedule.set_model(model)
    schedule.on_train_begin()
    schedule.on_epoch_begin(0)
    return dsd.weights(model)[0].mask


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.7])
@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("size", [(4, 2), (1, 8), (6, 1), (4, 4)])
def test_blocks(size, pooling, sparsity):
    kernel = np.random.default_rng(0).normal(size=(24, 16)).astype("float32")
    expected = masks_of_tfmot(
        kernel, sparsity, block_size=list(size), block_pooling_type=pooling.upper()
    )
    assert np.array_equal(our_mask(kernel, sparsity, dsd.Block(*size, pooling)), expected)


@pytest.mark.parametrize("shape", [(24, 16), (3, 3, 8, 6)], ids=str)
def test_two_of_four(shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = masks_of_tfmot(kernel, 0.5, sparsity_m_by_n=(2, 4))
    assert np.array_equal(our_mask(kernel, 0.5, dsd.NM(2, 4)), expected)


@pytest.mark.parametrize("pattern", [dsd.NM(2, 4), dsd.Block(2, 2)], ids=str)
@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_file_keeps_the_pattern(name, pattern, tmp_path):
    layers = tf_keras.layers
    model = dsd.apply(tf_keras.Sequential([layers.Input((8,)), layers.Dense(4)]), pattern=pattern)
    model.save(tmp_path / name)
    loaded = tf_keras.models.load_model(tmp_path / name)
    assert [weight.pattern for weight in dsd.weights(loaded)] == [pattern]
