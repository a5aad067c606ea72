"""The optimizers that both Kerases have, with options that give them all of their slots."""

import pytest

from tests.helpers.paths import keras

optimizers = keras.optimizers
OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "Adam": lambda: optimizers.Adam(amsgrad=True),
    "AdamW": lambda: optimizers.AdamW(weight_decay=0.01),
    "RMSprop": lambda: optimizers.RMSprop(momentum=0.9, centered=True),
    "Adagrad": lambda: optimizers.Adagrad(0.05, initial_accumulator_value=0.2),
    "Adadelta": lambda: optimizers.Adadelta(0.5),
    "Adamax": lambda: optimizers.Adamax(),
    "Nadam": lambda: optimizers.Nadam(),
    "Ftrl": lambda: optimizers.Ftrl(0.05, initial_accumulator_value=0.2),
    "Lion": lambda: optimizers.Lion(1e-3),
    "Adafactor": lambda: optimizers.Adafactor(0.01),
}


def cases(names, *others):
    """Returns the names as parameters; slow but for three that differ most, and `others`.

    Adam has most slots, Ftrl computes weights from its own, Adafactor factorises them.
    """
    quick = ("Adam", "Ftrl", "Adafactor", *others)
    return [
        pytest.param(name, marks=[] if name in quick else pytest.mark.slow, id=name)
        for name in names
    ]
