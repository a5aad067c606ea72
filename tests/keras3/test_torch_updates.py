"""Updates in parts, on a CPU with PyTorch: the same weights, to the last bit, as in one piece."""

import keras
import numpy as np
import pytest
import torch

import keras_dsd as dsd
from keras_dsd.adapters.keras3.backends import torch_updates
from keras_dsd.adapters.keras3.backends.torch import TorchBackend
from tests.helpers.watching import run

OPTIMIZERS = {
    "SGD": {"momentum": 0.9},
    "SGD, nesterov": {"momentum": 0.9, "nesterov": True},
    "Adam": {"amsgrad": True, "clipnorm": 1.0},
    "AdamW": {"weight_decay": 0.01, "use_ema": True, "ema_overwrite_frequency": 3},
    "Adagrad": {},
    "Adadelta": {},
    "Adamax": {"gradient_accumulation_steps": 2},
    "Lion": {},
    "Nadam": {},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Ftrl": {},
    "Lamb": {},
}


def network():
    # Of several parts, of one, of less than one; one has no mask, one a constraint.
    layers = [
        keras.layers.Flatten(),
        keras.layers.Dense(150, "relu"),
        keras.layers.Dense(30, "relu"),
        keras.layers.Dense(100, "relu", name="whole"),
        keras.layers.Dense(60, kernel_constraint="max_norm"),
        keras.layers.Dense(20, "relu"),
        keras.layers.Dense(10),
    ]
    return keras.Sequential([keras.layers.Input((8, 8, 1)), *layers])


@pytest.fixture
def parts(monkeypatch):
    """Has tensors updated in parts of 1,024 values, and tells of how many each was."""
    monkeypatch.setattr(torch_updates, "PART", 1024)
    found = []
    split = torch_updates._split

    def telling(tensor):
        found.append(len(split(tensor)))
        return split(tensor)

    monkeypatch.setattr(torch_updates, "_split", telling)
    return found


@pytest.fixture
def fused(monkeypatch):
    """Tells of how many weights each fused update was."""
    found, fused = [], torch_updates._fused

    def telling(weights, *arguments):
        found.append(len(weights))
        fused(weights, *arguments)

    assert torch_updates._fused_is_exact(0.9)
    monkeypatch.setattr(torch_updates, "_fused", telling)
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parts_change_no_bit(name, digits, compiled, parts, fused, monkeypatch):
    trained = []
    for in_parts in (True, False):
        if not in_parts:
            monkeypatch.setattr(TorchBackend, "update_patches", lambda *arguments: [])
        keras.utils.set_random_seed(2)
        model = dsd.apply(network(), {"whole": 0.0, "": 0.4})
        kind = getattr(keras.optimizers, name.split(",")[0])
        compiled(model, kind(0.01, **OPTIMIZERS[name]))
        logs = run(model, *digits)
        trained.append((logs["loss"], model.get_weights(), model.optimizer.variables))
        assert bool(parts) == (name not in ("Nadam", "Ftrl", "Lamb")) or not in_parts
    # 64 x 150 fills vector registers, 150 x 30 does not.
    assert set(fused) == ({1024, 9600 % 1024} if name == "SGD" else set())
    (loss, weights, slots), (loss_whole, weights_whole, slots_whole) = trained
    assert loss == loss_whole
    for ours, plain in zip([*weights, *slots], [*weights_whole, *slots_whole], strict=True):
        assert ours.shape == plain.shape
        assert np.array_equal(*map(keras.ops.convert_to_numpy, (ours, plain)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_masks_multiply_each_value(dtype, monkeypatch):
    """In one product, in parts that are cast in turn, and where parts would be no views."""
    monkeypatch.setattr(torch_updates, "_MASKED_WHOLE", 100)
    monkeypatch.setattr(torch_updates, "PART", 64)
    pairs, expected = [], []
    for shape, transposed in (
        ((10, 10), False),
        ((11, 17), False),
        ((64, 2), False),
        ((9, 20), True),
    ):
        variable = keras.Variable(keras.random.normal(shape), dtype=dtype)
        value, mask = variable.value.detach(), torch.rand(shape) > 0.3
        value.view(-1)[:4] = torch.tensor([float("inf"), float("nan"), -0.0, -1.0])
        if transposed:
            variable.value.data = value = value.t().contiguous().t()
        pairs.append((variable, mask.to(torch.int8)))
        expected.append(value * mask.to(value.dtype))
    torch_updates.apply_masks(pairs)
    for (variable, _), product in zip(pairs, expected, strict=True):
        found = variable.value.detach()
        assert found.dtype == product.dtype
        bits = [each.contiguous().view(torch.uint8) for each in (found, product)]
        assert torch.equal(*bits)


def test_the_largest_are_split(digits, compiled, parts):
    """64 x 150 into 10 parts; 150 x 30 into 5; 30 x 100 has no mask; 100 x 60 has a constraint."""
    adam = keras.optimizers.Adam()
    run(compiled(dsd.apply(network(), {"whole": 0.0, "": 0.4}), adam), *digits)
    assert set(parts) == {10, 5}


def test_tensors_are_whole_again_after_a_failure(digits, compiled, parts, monkeypatch):
    model = compiled(dsd.apply(network(), 0.4), keras.optimizers.Adam())
    shapes = [weight.shape for weight in model.get_weights()]
    update, calls = torch_updates._Updates._in_parts, []

    def failing(updates, *update_of_one):
        plain = updates._plain

        def fail(*args):
            calls.append(args)
            if len(calls) == 3:
                raise KeyboardInterrupt
            plain(*args)

        monkeypatch.setattr(updates, "_plain", fail)
        return update(updates, *update_of_one)

    monkeypatch.setattr(torch_updates._Updates, "_in_parts", failing)
    with pytest.raises(KeyboardInterrupt):
        run(model, *digits)
    assert [weight.shape for weight in model.get_weights()] == shapes
    slots = [tuple(each.value.shape) for each in model.optimizer.variables]
    assert slots == [tuple(each.shape) for each in model.optimizer.variables]
