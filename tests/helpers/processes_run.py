"""Keras 3 on JAX: trains with kernels cut into parts on the devices of several processes.

python -m tests.helpers.processes_run FILE [ADDRESS NUM_PROCESSES INDEX]
"""

import pathlib
import sys

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

import keras_dsd as dsd
from tests.helpers import digits

layers = keras.layers


def whole(value):
    """Returns an array whose parts are in several processes, in each of them."""
    return np.asarray(multihost_utils.process_allgather(value, tiled=True))


class Seen(keras.callbacks.Callback):
    """Keeps the weights at every batch end, the masks with them, and the sparsity."""

    def __init__(self):
        super().__init__()
        self.values, self.masks, self.sparsity = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        weights = dsd.weights(self.model)
        self.values.append(np.concatenate([whole(each.tensor()).ravel() for each in weights]))
        masks = [each.mask_tensor() for each in weights]
        if masks[0] is not None:
            for weight, mask in zip(weights, masks, strict=True):
                assert mask.sharding.is_equivalent_to(weight.tensor().sharding, mask.ndim)
            self.masks.append(np.concatenate([whole(each).ravel() for each in masks]))

    def on_epoch_end(self, epoch, logs=None):
        self.sparsity.append(logs["dsd_sparsity"])


def refuse(weight):
    """Asks for a copy of a weight, and of its mask, that no process has."""
    weight.apply_mask(weight.arrays.all_kept(weight.tensor()))
    for read in (weight.numpy, lambda: weight.mask):
        try:
            read()
        except ValueError as error:
            assert f"{weight.path}, which has parts on devices of 2 processes" in str(error)
        else:
            raise AssertionError("read")
    weight.remove_mask()


def main(file, address=None, num_processes=1, index=0):
    """Trains two epochs of each phase on two devices, and writes what was seen."""
    if address:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(address, int(num_processes), int(index))
    devices = keras.distribution.list_devices()
    assert len(devices) == 2, devices
    mesh = keras.distribution.DeviceMesh((1, 2), ("batch", "model"), devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*kernel"] = (None, "model")
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(
            layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False
        )
    )
    keras.utils.set_random_seed(1)
    model = keras.Sequential([layers.Input((64,)), layers.Dense(16, "tanh"), layers.Dense(10)])
    optimizer = keras.optimizers.Adam(1e-3)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model, seen = dsd.apply(model, 0.4), Seen()
    x, y = digits.rows()
    schedule = dsd.DSDSchedule(2, 2, 2)
    model.fit(x, y, 64, 6, verbose=0, callbacks=[schedule, seen], shuffle=False)
    if address:
        refuse(dsd.weights(model)[0])
    weights = [whole(each.value) for each in dsd.strip(model).weights]
    options = {"values": seen.values, "masks": seen.masks, "sparsity": seen.sparsity}
    np.savez(pathlib.Path(file), *weights, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
