"""Several processes: criteria that differ between them, and weights of which each has a part."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.unit.engine.fake_adapter import fit

D1, S1, S2 = dsd.DensePhase(1), dsd.SparsePhase(1), dsd.SparsePhase(2)


def norms(weight):
    return np.abs(weight.numpy())


def test_masks_of_a_function_are_compared_between_processes(model):
    phases = [D1, dsd.SparsePhase(3, criterion=norms, ramp=2), D1]
    fit(model, dsd.DSDSchedule(phases=phases), 5)
    first, second = model.adapter.digests
    assert first != second and len(first) == len(second) == 8


def test_other_masks_in_another_process_are_refused_and_nothing_changed(model):
    model.adapter.is_same_digest = False
    before = model.state()
    phases = [dsd.SparsePhase(1, criterion=norms), D1]
    with pytest.raises(ValueError, match="same weights in every process.*other masks.*a seed"):
        fit(model, dsd.DSDSchedule(phases=phases), 2)
    assert all(map(np.array_equal, model.state(), before))
    assert not any(kernel.is_masked for kernel in model.kernels)


@pytest.mark.parametrize("criterion", ["magnitude", "random", "movement"])
def test_nothing_is_compared_that_can_not_differ(criterion, model):
    fit(model, dsd.DSDSchedule(phases=[D1, dsd.SparsePhase(1, criterion=criterion), D1]), 3)
    assert not model.adapter.digests


@pytest.mark.parametrize(
    ("phases", "received"),
    [
        ([D1, dsd.SparsePhase(1, criterion="movement"), D1], r"phases\[1\] with .*'movement'"),
        ([D1, dsd.SparsePhase(1, criterion=norms), D1], r"phases\[1\] with criterion='norms'"),
        ([D1, S1, dsd.DensePhase(1, regrow_fraction=0.5)], r"phases\[2\] with regrow_fraction=0.5"),
        ([D1, dsd.SparsePhase(3, criterion="random", ramp=2)], r"'random', ramp=2"),
        ([S1, dsd.SparsePhase(1, criterion="random")], r"phases\[1\] with criterion='random'"),
    ],
)
def test_what_needs_complete_weights_is_refused_where_they_are_sharded(phases, received, model):
    model.adapter.divided = ["net/a/kernel"]
    with pytest.raises(ValueError, match=f"net/a/kernel is sharded over proc.*{received}.*within"):
        fit(model, dsd.DSDSchedule(phases=phases), 1)
    assert not model.iterations


def test_what_needs_none_trains(model):
    model.adapter.divided = ["net/a/kernel"]
    phases = [D1, dsd.SparsePhase(1, criterion="random"), D1, dsd.SparsePhase(3, ramp=2), D1]
    fit(model, dsd.DSDSchedule(phases=phases), 7)
