"""Looks at the weights that DSD prunes, at every batch end."""

import keras
import numpy as np

import keras_dsd as dsd


def zeros(model):
    """Returns how many values of each weight are zero."""
    return [int(np.sum(weight.numpy() == 0)) for weight in dsd.weights(model)]


def pruned(model):
    """Returns how many are to be."""
    return [round(int(np.prod(w.shape)) * w.sparsity) for w in dsd.weights(model)]


class Zeros(keras.callbacks.Callback):
    """Counts the zeros at every batch end, by epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.seen[-1].append(zeros(self.model))


def run(model, x, y, batch_size=32, callbacks=(), redense_lr=1.0, **options):
    """Trains an epoch in each phase; checks the zeros of every batch; returns the history."""
    watch = Zeros()
    everything = [dsd.DSDSchedule(1, 1, 1, redense_lr=redense_lr), watch, *callbacks]
    history = model.fit(
        x, y, batch_size=batch_size, epochs=3, verbose=0, callbacks=everything, **options
    )
    steps = -(-len(y) // batch_size)
    assert watch.seen[1] == [pruned(model)] * steps
    assert sum(watch.seen[0][-1]) < sum(watch.seen[1][-1])
    assert sum(watch.seen[2][-1]) < sum(watch.seen[1][-1])
    return history.history
