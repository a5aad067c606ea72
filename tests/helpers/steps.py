"""The training loops of examples/custom_loop.py, a batch at a time."""

import importlib.util
import pathlib

from tests.helpers.paths import keras

BACKEND = keras.backend.backend()
EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "custom_loop.py"


_spec = importlib.util.spec_from_file_location("custom_loop", EXAMPLE)
custom_loop = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(custom_loop)


def trainer(model, optimizer, loop):
    """Returns what trains on batches of digits."""
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return custom_loop.MAKERS[BACKEND](model, optimizer, loss_of, loop)


def run(loop, train, data, epochs, first=0, look=lambda epoch: None, logs=None, size=32):
    """Runs a loop as its docstring has it, and returns what its epochs' ends said.

    Args:
        loop: The loop.
        train: What `trainer` returned.
        data: Inputs and labels.
        epochs: The epoch to end before.
        first: The first epoch.
        look: Called after every batch.
        logs: Returns what an epoch measured.
        size: Of a batch.
    """
    said = []
    for epoch in range(first, epochs):
        loop.begin_epoch(epoch)
        for start in range(0, len(data[0]), size):
            train([tuple(part[start : start + size] for part in data)])
            look(epoch)
        said.append(loop.end_epoch(logs and logs(epoch)))
        if loop.is_over:
            break
    return said
