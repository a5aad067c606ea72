"""A small model and digits for comparisons, which other processes can import too."""

import os

import numpy as np

import keras_dsd as dsd
from tests.helpers import digits
from tests.helpers.paths import OPTIMIZERS, classifier, compiled

PHASES = [dsd.DensePhase(2), dsd.SparsePhase(1, sparsity=0.5), dsd.DensePhase(1, lr=0.1)]
STEPS = 4  # in an epoch of batches of 40
FIT = {"batch_size": 40}


def build(optimizer="adam"):
    return compiled(classifier(), OPTIMIZERS[optimizer](), metrics=[])


def data():
    x, y = digits.images()
    places = {"train": slice(160), "validation": slice(160, 240), "test": slice(240, 320)}
    return {name: (x[place], y[place]) for name, place in places.items()}


def loss(model, part):
    return model.evaluate(*part, batch_size=40, verbose=0)


def trained(model):
    """Returns what a model trains, as bits."""
    return [np.array(variable).tobytes() for variable in model.trainable_variables]


def fail(model, part):
    raise RuntimeError("this can't be evaluated")


def die(model, part):
    os._exit(7)
