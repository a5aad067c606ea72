"""Runs a number of training steps of a model, past all that `fit` does around them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flavour import backend_of

Batch = tuple[np.ndarray, np.ndarray]


def runner(keras: Any, model: Any, batch: Batch) -> Callable[[int], None]:
    """Returns what runs a number of steps of the model's training function on one batch."""
    makers = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return makers[backend_of(keras)](model, batch)


def _tensorflow(model: Any, batch: Batch) -> Callable[[int], None]:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensors(batch).cache().repeat()
    iterator = iter(model.distribute_strategy.experimental_distribute_dataset(data))

    def run(steps: int) -> None:
        for _ in range(steps):
            logs = model.train_function(iterator)
        float(logs["loss"])

    return run


def _jax(model: Any, batch: Batch) -> Callable[[int], None]:
    import jax

    data = jax.device_put((*batch, None))
    parts = ("trainable_variables", "non_trainable_variables", "optimizer_variables",
             "metrics_variables")  # fmt: skip
    state = model._get_jax_state(**{part: True for part in parts})

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            logs, state = model.train_function(state, iter([data]))
        jax.block_until_ready((logs, state))

    return run


def _torch(model: Any, batch: Batch) -> Callable[[int], None]:
    import torch

    data = tuple(map(torch.from_numpy, batch))

    def run(steps: int) -> None:
        for _ in range(steps):
            logs = model.train_function([data])
        float(logs["loss"])

    return run
