"""Keras 3 on JAX: trains on one device, data parallel, and with kernels cut into parts.

python -m tests.helpers.sharded_run FOLDER
"""

import contextlib
import pathlib
import sys

import keras

import keras_dsd as dsd
from tests.helpers.devices_model import Seen, compiled, fit, random_masks, ways

DEVICES = keras.distribution.list_devices()


def data_parallel():
    """Returns what gives each of four devices a part of the batch."""
    return keras.distribution.DataParallel(devices=DEVICES, auto_shard_dataset=False)


def model_parallel():
    """Returns what cuts each kernel into four as well: halves of its inputs and its outputs."""
    mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), DEVICES)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*kernel"] = ("batch", "model")
    return keras.distribution.ModelParallel(
        layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False
    )


def train(path, distribution):
    """Trains under a distribution, and writes what was seen."""
    with distribution.scope() if distribution else contextlib.nullcontext():
        model = compiled()
        kernels = [weight.variable for weight in dsd.weights(model)]
        slots = [slot for slot in model.optimizer.variables if len(slot.shape) == 2]
        before = {each.path: each.value.sharding for each in (*kernels, *slots)}

        def parts_of(weight):
            values, mask = weight.numpy(), weight.mask  # of the whole tensor
            sharding = before[weight.path]
            for each in (weight.variable.value, weight.mask_on_device):
                assert each is None or each.sharding.is_equivalent_to(sharding, 2), weight.path
            return [values], None if mask is None else [mask]

        seen = Seen(model, parts_of)
        fit(model, seen.note)
        for each in (*kernels, *slots):
            assert each.value.sharding.is_equivalent_to(before[each.path], 2), each.path
        print(
            path.stem, len(before), "in parts of", *kernels[0].value.sharding.shard_shape((64, 16))
        )
        seen.write(path)
        model = compiled()
        before |= {each.path: each.variable.value.sharding for each in dsd.weights(model)}
        random_masks(model, parts_of, path.with_suffix(".npy"))
        ways(compiled(use_ema=False), path.with_name(f"ways_{path.name}"))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    assert len(DEVICES) == 4
    train(folder / "one.npz", None)
    train(folder / "data_parallel.npz", data_parallel())
    train(folder / "model_parallel.npz", model_parallel())
