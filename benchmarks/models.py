"""The networks that the benchmarks train, and one step of their training at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np


def build(keras: Any, name: str) -> tuple[Any, tuple[int, ...]]:
    """Returns a model with 10 outputs and the shape of one batch of its inputs.

    Args:
        keras: `keras` or `tf_keras`.
        name: `"mlp"`, `"wide_mlp"`, `"conv"` or `"lstm"`.
    """
    layers = keras.layers
    if name in ("mlp", "wide_mlp"):
        batch, width = {"mlp": (128, 512), "wide_mlp": (16, 2048)}[name]
        hidden = [layers.Dense(width, activation="relu") for _ in range(3)]
        stack, shape = [layers.Input((784,)), *hidden], (batch, 784)
    elif name == "conv":
        convs = [layers.Conv2D(64, 3, padding="same", activation="relu") for _ in range(4)]
        shape = (32, 32, 32, 3)
        stack = [layers.Input(shape[1:]), *convs, layers.GlobalAveragePooling2D()]
    else:
        shape = (32, 50, 64)
        stack = [layers.Input(shape[1:]), layers.LSTM(256)]
    return keras.Sequential([*stack, layers.Dense(10)]), shape


def batch_of(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns one batch, drawn at random: only the time counts here."""
    random = np.random.default_rng(0)
    return random.normal(size=shape).astype("float32"), random.integers(0, 10, shape[0])


def stepper(keras: Any, model: Any, shape: tuple[int, ...]) -> Callable[[int], None]:
    """Returns what runs a number of steps of the model's training function, to their end."""
    backend = "tensorflow" if keras.__name__ == "tf_keras" else keras.backend.backend()
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[backend](model, shape)


def _tensorflow(model: Any, shape: tuple[int, ...]) -> Callable[[int], None]:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensors(batch_of(shape)).cache().repeat()
    iterator = iter(model.distribute_strategy.experimental_distribute_dataset(data))

    def run(steps: int) -> None:
        for _ in range(steps):
            logs = model.train_function(iterator)
        float(logs["loss"])

    return run


def _jax(model: Any, shape: tuple[int, ...]) -> Callable[[int], None]:
    import jax

    batch = jax.device_put((*batch_of(shape), None))
    parts = ("trainable_variables", "non_trainable_variables", "optimizer_variables",
             "metrics_variables")  # fmt: skip
    state = model._get_jax_state(**{part: True for part in parts})

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            logs, state = model.train_function(state, iter([batch]))
        jax.block_until_ready((logs, state))

    return run


def _torch(model: Any, shape: tuple[int, ...]) -> Callable[[int], None]:
    import torch

    x, y = batch_of(shape)
    batch = (torch.from_numpy(x), torch.from_numpy(y))

    def run(steps: int) -> None:
        for _ in range(steps):
            logs = model.train_function([batch])
        float(logs["loss"])

    return run
