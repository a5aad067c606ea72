"""Masked updates: compiled for large tensors, at the step's end for what hides its optimizer."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_dsd as dsd
from keras_dsd.adapters.base import joined_updates
from tests.helpers import optimizers as optimizers_of_both

optimizers = tf_keras.optimizers
OPTIMIZERS = {
    **optimizers_of_both.OPTIMIZERS,
    "averages": lambda: optimizers.Adam(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "loss scaling": lambda: tf_keras.mixed_precision.LossScaleOptimizer(optimizers.Adam()),
    "own": lambda: Own(0.05),
}
# How many values a tensor has to have to be compiled with others, and by itself.
COMPILED_FROM = {"never": (2**60, 2**60), "together": (1, 2**60), "alone": (1, 1)}
# Whatever the optimizer, tensors are joined by the same lines: these show it.
JOINED = ("Adam", "averages", "loss scaling", "own")


class Own(optimizers.SGD):
    """An optimizer of the user's, which XLA may not take."""

    def update_step(self, gradient, variable):
        tf.numpy_function(lambda: np.float32(0), [], tf.float32)  # XLA has no such operation
        return super().update_step(gradient, variable)


def zeros_and_values(model, digits, schedule):
    zeros = []

    class Look(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            zeros.append([int(np.sum(w.numpy() == 0)) for w in dsd.weights(model)])

    x, y = digits[0] + 0.05, digits[1]
    model.fit(x, y, epochs=3, shuffle=False, verbose=0, callbacks=[schedule, Look()])
    return zeros, [w.numpy() for w in dsd.weights(model)]


@pytest.mark.parametrize("case", [
    pytest.param(case, marks=[] if case in ("Adam", "own") else pytest.mark.slow)
    for case in OPTIMIZERS
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
def test_compiled_updates_do_what_others_do(case, digits, compiled, mlp, monkeypatch):
    results = []
    ways = [way for way in COMPILED_FROM if way != "together" or case in JOINED]
    for joined, alone in map(COMPILED_FROM.get, ways):
        monkeypatch.setattr(joined_updates, "JOINED_SIZE", joined)
        monkeypatch.setattr(joined_updates, "COMPILED_SIZE", alone)
        tf_keras.utils.set_random_seed(3)
        model = compiled(dsd.apply(mlp(), 0.4), OPTIMIZERS[case]())
        sparse = dsd.DSDSchedule(phases=[dsd.DensePhase(1), dsd.SparsePhase(2)])
        results.append(zeros_and_values(model, digits, sparse))
    for zeros, values in results:
        assert zeros[10:] == [[410, 64]] * 20
        for a, b in zip(values, results[0][1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_compiled_update_takes_the_gradient_of_an_embedding(digits, compiled, monkeypatch):
    monkeypatch.setattr(joined_updates, "JOINED_SIZE", 1)
    monkeypatch.setattr(joined_updates, "COMPILED_SIZE", 1)
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [layers.Input((64,)), layers.Embedding(17, 6), layers.Flatten(), layers.Dense(10)]
    )
    model = compiled(dsd.apply(model, 0.3))
    x = (digits[0].reshape(-1, 64) * 16).astype("int32")
    zeros, _ = zeros_and_values(model, (x, digits[1]), dsd.DSDSchedule(1, 1, 1))
    assert zeros[10:20] == [[round(17 * 6 * 0.3), 1152]] * 10


def test_updates_that_keras_compiles_itself_are_masked_in_the_sparse_phase_only(
    digits, compiled, mlp
):
    """With a GPU, optimizers compile each update once and keep it: in the dense phase, unmasked."""
    model = compiled(dsd.apply(mlp(), 0.4))
    model.optimizer.jit_compile = True
    zeros, values = zeros_and_values(model, digits, dsd.DSDSchedule(1, 1, 1))
    assert zeros[0] == [0, 0] and zeros[10:20] == [[410, 64]] * 10
    assert all(np.mean(value == 0) < 0.1 for value in values)


class Hidden(tf_keras.Sequential):
    """Hides its optimizers, and updates manually as well."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        pairs = zip(
            tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True
        )
        self.optimizers["all"].apply_gradients(pairs)
        self.trainable_weights[0].assign_add(tf.ones_like(self.trainable_weights[0]) * 1e-3)
        return {"loss": loss}


def test_hidden_optimizers_and_manual_updates_are_masked(digits, compiled, mlp):
    model = compiled(dsd.apply(Hidden([tf_keras.layers.Input((8, 8, 1)), *mlp().layers]), 0.4))
    model.optimizers = {"all": optimizers.Adam()}
    zeros, _ = zeros_and_values(model, digits, dsd.DSDSchedule(1, 1, 1))
    assert zeros[10:20] == [[410, 64]] * 10
