"""A model whose every gradient is 1: with SGD each weight moves by the learning rate in use."""

import numpy as np

from tests.helpers.paths import keras, rate

# Four batches of 8.
DATA = np.ones((32, 4), np.float32), np.zeros((32, 1), np.float32)
# Options of compile, by how the training step runs.
WAYS = {"jit": {"jit_compile": True}, "eager": {"run_eagerly": True}}
if keras.backend.backend() != "torch":
    WAYS["several steps at once"] = {"steps_per_execution": 2}


def total(_, outputs):
    """The loss: the sum of the outputs."""
    return outputs[:, 0] + outputs[:, 1]


def net(optimizer=None, kind=keras.Sequential, **options):
    """Returns the model, compiled where there is an optimizer."""
    model = kind([keras.layers.Input((4,)), keras.layers.Dense(2)])
    if optimizer is not None:
        model.compile(optimizer, total, **options)
    return model


class Moves(keras.callbacks.Callback):
    """Records the learning rate that each batch trained with, and the one that it shows."""

    def __init__(self):
        super().__init__()
        self.used, self.shown = [], []

    def bias(self):
        return np.array(self.model.get_weights()[1], np.float64)

    def on_train_batch_begin(self, batch, logs=None):
        self.before = self.bias()

    def on_train_batch_end(self, batch, logs=None):
        moved = self.before - self.bias()
        assert moved[0] == moved[1]
        self.used.append(moved[0])
        self.shown.append(rate(self.model))

    def of_epochs(self):
        """Returns the learning rate of each epoch, in whose batches it is the same."""
        epochs = np.reshape(self.used, (-1, 4))
        np.testing.assert_allclose(epochs, epochs[:, :1].repeat(4, 1), rtol=1e-3)
        return epochs[:, 0]


def fit(model, *callbacks, epochs=3, **options):
    """Trains on all batches, and returns the history's logs and the moves."""
    moves = Moves()
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    history = model.fit(*DATA, epochs=epochs, callbacks=[*callbacks, moves], **options)
    return history.history, moves


def members_of_optimizers():
    """Returns what the classes of optimizers have, to see whether something hooks them."""
    return [
        (kind, name, member)
        for kind in keras.optimizers.Adam.__mro__
        for name, member in vars(kind).items()
        if callable(member) or isinstance(member, property)
    ]
