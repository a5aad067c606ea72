"""MirroredStrategy on two logical devices, which only a fresh process can set up."""

import os
import subprocess
import sys

PROGRAM = """
import numpy as np, tensorflow as tf, tf_keras
from sklearn.datasets import load_digits
import keras_dsd as dsd

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
x, y = load_digits(return_X_y=True)
x, y = (x[:320] / 16).astype("float32"), y[:320]
layers = tf_keras.layers


def train(strategy):
    tf_keras.utils.set_random_seed(1)
    with strategy.scope():
        model = tf_keras.Sequential([
            layers.Input((64,)), layers.Dense(16, "tanh"), layers.LayerNormalization(),
            layers.Dense(10)])
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(tf_keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True), loss)
    model = dsd.apply(model, 0.4)
    masks = []

    class Look(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for weight in dsd.weights(model):
                if weight.mask is not None:
                    masks.append(weight.mask)
                    for value in strategy.experimental_local_results(weight.variable):
                        assert not value.numpy()[~weight.mask].any()
                        assert np.sum(value.numpy() == 0) == round(weight.mask.size * 0.4)

    model.fit(x, y, batch_size=64, epochs=6, shuffle=False, verbose=0,
              callbacks=[dsd.DSDSchedule(2, 2, 2), Look()])
    assert len(masks) == 2 * 2 * 5
    model = dsd.strip(model)
    return [w.numpy() for w in model.weights], masks


one = train(tf.distribute.get_strategy())
two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
for a, b in zip(one[0], two[0], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
assert all(np.array_equal(a, b) for a, b in zip(one[1], two[1], strict=True))
print("equal")
"""


def test_two_replicas_train_as_one_device_does():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("equal")
