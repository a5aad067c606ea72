"""Learning rates inside a phase: the learning rate in use at every step of a real fit."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import keras, rate
from tests.helpers.unit_gradient import fit, net

optimizers = keras.optimizers
schedules = optimizers.schedules
BASE, STEPS = 0.01, 4  # batches of an epoch


def at(shape, start, end, step, num_steps):
    """What the documentation says of a step, in NumPy."""
    t = min(step / num_steps, 1)
    if shape == "cosine":
        return end + (start - end) * (1 + np.cos(np.pi * t)) / 2
    return start + (end - start) * t


PHASES = [
    dsd.DensePhase(2, lr="cosine"),
    dsd.SparsePhase(1, lr=dsd.Decay("linear", start=0.5, end=0.1)),
    dsd.SparsePhase(1, lr=schedules.ExponentialDecay(0.4, 1, 0.5)),
    dsd.DensePhase(1, lr=0.3),
    dsd.DensePhase(2, lr=dsd.Decay("steps", start=0.2, boundaries=(0.5, 0.8), drop=0.5)),
]
FACTORS = [
    *(at("cosine", 1, 0, i, 8) for i in range(8)),
    *(at("linear", 0.5, 0.1, i, 4) for i in range(4)),
    *(0.4 * 0.5**i for i in range(4)),
    *[0.3] * 4,
    *[0.2] * 4, *[0.1] * 3, *[0.05],
]  # fmt: skip
RATES = BASE * np.array(FACTORS)


def trained(phases=PHASES, epochs=7, make=optimizers.SGD, **options):
    model = dsd.apply(net(make(BASE), **options), 0.5)
    return model, *fit(model, dsd.DSDSchedule(phases=phases), epochs=epochs)


def check(logs, moves, at_once=1):
    expected = RATES.reshape(-1, at_once).sum(1)
    assert moves.used == pytest.approx(expected, rel=1e-3, abs=1e-8)
    assert moves.shown == [np.float32(BASE)] * (28 // at_once), "the user's stays"
    assert logs["dsd_learning_rate"] == pytest.approx(RATES[STEPS - 1 :: STEPS], rel=1e-5)


def test_every_step_has_the_learning_rate_of_its_phase():
    model, logs, moves = trained()
    check(logs, moves)
    assert rate(model) == np.float32(BASE)


WAYS = {"jit": {"jit_compile": True}, "eager": {"run_eagerly": True}}
if keras.backend.backend() != "torch":
    WAYS["several steps at once"] = {"steps_per_execution": 2}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own modules
def test_ways_to_compile(way):
    _, logs, moves = trained(**WAYS[way])
    check(logs, moves, WAYS[way].get("steps_per_execution", 1))
