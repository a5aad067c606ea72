"""The model trained on several devices, and its measurements, for separate programs."""

import keras
import numpy as np

import keras_dsd as dsd
from tests.helpers import digits

layers = keras.layers
BATCH = 64
EPOCHS = 6


def data():
    """Returns 320 digits, five batches, and their labels."""
    return digits.rows()


def compiled(use_ema=True):
    """Makes a model with the same initial weights each time."""
    keras.utils.set_random_seed(1)
    # On JAX a batch is one tensor, whatever devices it is on.
    norm = layers.BatchNormalization(synchronized=keras.backend.backend() == "tensorflow")
    body = [layers.Dense(16, "tanh", name="a"), norm, layers.Dense(12, name="b")]
    model = keras.Sequential([layers.Input((64,)), *body])
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, use_ema=use_ema)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer.build(model.trainable_variables)
    return dsd.apply(model, 0.4)


def schedule():
    """Returns phases of two epochs; pruning is followed by an estimate of statistics."""
    x, _ = data()
    return dsd.DSDSchedule(2, 2, 2, batch_norm_data=[x[:100], x[100:200]])


class Seen:
    """The pruned weights at every batch end, and the masks at those of the sparse phase.

    Args:
        model: What trains.
        parts_of: Returns the values of a weight and of its mask as lists: for each device that
            has a copy.
    """

    def __init__(self, model, parts_of):
        self._model = model
        self._parts_of = parts_of
        self.values, self.masks = [], []

    def note(self, batch=None, logs=None):
        values, masks = zip(*map(self._parts_of, dsd.weights(self._model)), strict=True)
        self.values.append(_by_device(values))
        if masks[0] is not None:
            self.masks.append(_by_device(masks))

    def write(self, path):
        """Writes what was seen, and the weights that training ended with."""
        weights = [np.array(each) for each in dsd.strip(self._model).get_weights()]
        np.savez(path, *weights, values=self.values, masks=self.masks)


def _by_device(by_weight):
    return [np.concatenate([np.ravel(e) for e in each]) for each in zip(*by_weight, strict=True)]


def fit(model, note):
    """Trains by `fit`, and notes what there is at every batch end."""
    callbacks = [schedule(), keras.callbacks.LambdaCallback(on_train_batch_end=note)]
    x, y = data()
    model.fit(x, y, BATCH, EPOCHS, verbose=0, callbacks=callbacks, shuffle=False)


def random_masks(model, parts_of, path):
    """Prunes random weights, and writes the masks of each device."""
    seen, (x, y) = Seen(model, parts_of), data()
    phases = [dsd.SparsePhase(1, criterion="random", seed=2), dsd.DensePhase(1)]
    callbacks = [dsd.DSDSchedule(phases=phases)]
    callbacks.append(keras.callbacks.LambdaCallback(on_train_batch_end=seen.note))
    model.fit(x, y, BATCH, 2, verbose=0, callbacks=callbacks)
    np.save(path, seen.masks)


def ways(model, path):
    """Prunes by sums of gradients, regrows in part, with decay and averages; writes weights.

    The learning rate changes in each step of the last phase.
    """
    last = dsd.DensePhase(2, lr="cosine", regrow_fraction=0.5, regrow_decay=2.0, ema=0.8)
    phases = [dsd.DensePhase(1), dsd.SparsePhase(3, criterion="movement", ramp=2), last]
    x, y = data()
    callbacks = [dsd.DSDSchedule(phases=phases)]
    model.fit(x, y, BATCH, 6, verbose=0, callbacks=callbacks, shuffle=False)
    np.savez(path, *map(np.array, dsd.strip(model).get_weights()))
