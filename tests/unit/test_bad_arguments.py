"""Arguments of what needs no model: whatever is given, it works or it is refused, and clearly."""

import inspect

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_dsd as dsd
from keras_dsd.algorithm import presets
from keras_dsd.algorithm.learning_rates import Decay, StepFunction
from keras_dsd.algorithm.selection import Selection
from tests.helpers.strange import is_refused, values

THREE = {"dense": 1, "sparse": 1, "redense": 1}
AGAIN = {"sparse_again": 1, "redense_again": 1, "sparsities": (0.5, 0.2)}
ARGUMENTS = {
    dsd.Block: {"height": 1, "width": 2, "pooling": "avg"},
    dsd.Decay: {"shape": "cosine", "start": 1.0, "end": 0.1, "boundaries": None, "drop": None},
    dsd.DensePhase: {
        "epochs": 1, "steps": None, "lr": 1.0, "until": None, "ema": 0.9,
        "regrow_fraction": 0.5, "regrow_decay": 0.1,
    },
    dsd.DSDSchedule: {
        **THREE, "redense_lr": 0.1, "reset": "pruned", "remaining_epochs": "stop",
        "backup_dir": None, "batch_norm_data": None, "batch_norm_batches": 1, "phases": None,
        "initial_step": None, "observers": (),
    },
    dsd.NM: {"n": 1, "m": 2},
    dsd.Plateau: {
        "monitor": "loss", "min_delta": 0.0, "patience": 1, "mode": "auto", "restore_best": False,
    },
    dsd.SparsePhase: {
        "epochs": 3, "steps": None, "sparsity": 0.5, "lr": 1.0, "until": None,
        "criterion": "random", "seed": 1, "ramp": 2,
    },
    presets.dsd: {**THREE, "redense_lr": 0.1},
    presets.dsdsd: {**THREE, **AGAIN, "redense_lr": 0.1},
    presets.iterated: {"epochs": 1, "sparsities": (0.5, 0.2), "redense_lr": 0.1},
    presets.for_epochs: {"epochs": 5, "decay": "cosine"},
    presets.one_run: {"epochs": 5, "decay": "cosine"},
    presets.paper: {"name": "resnet", "epochs": 5, "decay": "cosine"},
    presets.acdc: {
        "warmup": 1, "cycles": 1, "sparse": 1, "dense": 1, "sparsity": 0.5, "end": "dense",
        "last": 1,
    },
    Selection: {"sparsity": 0.3, "exclude": (), "pattern": None, "scope": "layer"},
}  # fmt: skip
CASES = [(make, name) for make, good in ARGUMENTS.items() for name in good]


def try_anything(data):
    make, name = data.draw(st.sampled_from(CASES))
    value = data.draw(values())
    made = []
    if not is_refused(lambda: made.append(make(**{**ARGUMENTS[make], name: value}))):
        of_plain_numbers(made[0])


def of_plain_numbers(made):
    """Accepted values can be shown, and added up, later."""
    assert str(made) and repr(made)
    phases = getattr(getattr(made, "timeline", None), "phases", made)
    if isinstance(phases, list | tuple):
        assert {type(phase.epochs or phase.steps) for phase in phases} == {int}
        assert all(isinstance(phase.lr, float | Decay | StepFunction) for phase in phases)


FEW = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(FEW, max_examples=600)
@given(st.data())
def test_whatever_is_given_is_used_or_refused(data):
    try_anything(data)


@pytest.mark.slow
@pytest.mark.exhaustive
@settings(FEW, max_examples=10_000)
@given(st.data())
def test_whatever_is_given_is_used_or_refused_at_length(data):
    try_anything(data)


@settings(FEW, max_examples=100)
@given(st.lists(values(), max_size=3))
def test_phases_hold_phases(given_):
    is_refused(lambda: dsd.DSDSchedule(phases=given_))
    is_refused(lambda: dsd.DSDSchedule(phases=[dsd.DensePhase(1), *given_]))


def test_no_argument_is_left_out():
    for make, good in ARGUMENTS.items():
        assert {*inspect.signature(make).parameters} == {*good}, make


def test_small_integers_of_numpy_add_up():
    phases = [dsd.DensePhase(np.int8(100)), dsd.SparsePhase(np.int8(100), sparsity=0.5)]
    assert dsd.DSDSchedule(phases=phases).timeline.epochs == 200
    assert dsd.NM(np.int8(1), np.int8(127)).sparsity == 1 - 1 / 127
