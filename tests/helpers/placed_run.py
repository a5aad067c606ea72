"""TensorFlow on two logical devices: layers placed on one each, and a mirrored, scaled loss.

python -m tests.helpers.placed_run
"""

import numpy as np
import tensorflow as tf

import keras_dsd as dsd
from tests.helpers.paths import PATH, keras
from tests.helpers.unit_gradient import DATA, fit, net, total

DEVICES = ["CPU:0", "CPU:1"]


def placed():
    """Returns a model whose layers, large enough for separate updates, are on different devices."""
    layers = [keras.layers.Dense(160), keras.layers.Dense(160)]
    for layer, device, size in zip(layers, DEVICES, (64, 160), strict=True):
        with tf.device(device):
            layer.build((None, size))
    return keras.Sequential([keras.layers.Input((64,)), *layers])


def main():
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    model = dsd.apply(placed(), 0.5)
    model.compile(keras.optimizers.Adam(), total)
    kernels = [weight.variable for weight in dsd.weights(model)]
    devices = [(v if PATH == "tf_keras" else v.value).device[-5:] for v in kernels]
    assert devices == DEVICES, devices
    logs = model.fit(np.ones((8, 64)), np.zeros((8, 1)), epochs=3, verbose=0,
                     callbacks=[dsd.DSDSchedule(1, 1, 1)]).history  # fmt: skip
    assert logs["dsd_sparsity"][1] == 0.5

    home = keras.mixed_precision if PATH == "tf_keras" else keras.optimizers
    with tf.distribute.MirroredStrategy(DEVICES).scope():
        model = dsd.apply(net(), 0.5)
        model.compile(home.LossScaleOptimizer(keras.optimizers.SGD(0.01)), total)
    _, moves = fit(model, dsd.DSDSchedule(1, 1, 1))
    np.testing.assert_allclose(moves.of_epochs(), [0.01, 0.01, 0.001], rtol=1e-3)
    assert len(moves.used) * 8 == 3 * len(DATA[0])


if __name__ == "__main__":
    main()
