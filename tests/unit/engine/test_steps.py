"""Phases counted in steps: where they start, what the logs say, and runs that resume anywhere."""

import functools
import itertools

import numpy as np
import pytest

import keras_dsd as dsd
from tests.unit.engine.fake_adapter import FakeModel, fit

TIMELINES = {
    "within an epoch": [dsd.DensePhase(steps=3), dsd.SparsePhase(steps=5), dsd.DensePhase(1)],
    "at an epoch's end": [dsd.DensePhase(steps=4), dsd.SparsePhase(steps=4), dsd.DensePhase(1)],
    "several in an epoch": [dsd.DensePhase(steps=n) if n % 2 else dsd.SparsePhase(steps=n)
                            for n in (1, 2, 1, 4, 3, 2, 1)],
    "epochs, then steps": [dsd.DensePhase(1), dsd.SparsePhase(steps=6), dsd.DensePhase(1, lr=0.1)],
    "steps, then epochs": [dsd.DensePhase(steps=6), dsd.SparsePhase(1), dsd.DensePhase(steps=2)],
    "sparse first": [dsd.SparsePhase(steps=5, sparsity=0.25), *[dsd.DensePhase(1)] * 2],
}  # fmt: skip
STEPS, EPOCHS = 4, 4


def transcribed(phases, num_batches):
    """Returns the phase of each step, and of each epoch's end: what the documentation says."""
    of_steps, of_epochs, index, left = [], [], 0, [p.steps or p.epochs for p in phases]
    for epoch in range(EPOCHS):
        for _ in range(num_batches[epoch]):
            while left[index] == 0 and index + 1 < len(phases):
                index += 1
            of_steps.append(index)
            left[index] -= phases[index].steps is not None
        of_epochs.append(index)
        left[index] -= phases[index].steps is None
        left[index] = max(left[index], 0)
    return of_steps, of_epochs


def train(phases, schedule_options=None, **options):
    """Trains, and returns the model, the logs, the active masks at each batch end, and copies."""
    model, masked, copies = FakeModel(), [], {}

    def after_batch(epoch, batch):
        masked.append(model.kernels[0].mask is not None)
        copies[epoch, batch] = model.copy()

    schedule = dsd.DSDSchedule(phases=phases, **schedule_options or {})
    options = {"steps": STEPS, **options}
    logs = fit(model, schedule, EPOCHS, after_batch=after_batch, **options)
    return model, logs, masked, copies


pytestmark = pytest.mark.filterwarnings("ignore:Training ended with pruned weights")


@pytest.mark.parametrize("num_batches", [[4] * 4, [1, 5, 2, 7]], ids=["equal", "unequal"])
@pytest.mark.parametrize("name", TIMELINES)
def test_phases_start_where_the_documentation_says(name, num_batches):
    phases = TIMELINES[name]
    _, logs, masked, _ = train(phases, steps=num_batches, steps_known=False)
    of_steps, of_epochs = transcribed(phases, num_batches)
    assert masked == [isinstance(phases[index], dsd.SparsePhase) for index in of_steps]
    assert [each["dsd_phase"] for each in logs] == of_epochs
    assert [each["dsd_steps"] for each in logs] == [*itertools.accumulate(num_batches)]


def same_state(one, two):
    return all(map(np.array_equal, one.state(), two.state()))


@pytest.mark.parametrize("with_masks", [True, False], ids=["masks", "no masks"])
@pytest.mark.parametrize("reset", ["pruned", "all", "none"])
@pytest.mark.parametrize("name", TIMELINES)
def test_a_run_resumes_at_any_step(name, reset, with_masks):
    phases = TIMELINES[name]
    whole, logs, _, copies = train(phases, schedule_options={"reset": reset})
    for (epoch, batch), copy in copies.items():
        model = copy.copy(with_masks)
        first = (epoch, batch) if batch < STEPS else (epoch + 1, 0)
        if first == (EPOCHS, 0):
            continue
        fresh = FakeModel()
        schedule = dsd.DSDSchedule(phases=phases, reset=reset)
        rest = fit(
            fresh,
            schedule,
            EPOCHS,
            initial_epoch=first[0],
            initial_batch=first[1],
            steps=STEPS,
            restore=functools.partial(fresh.load, model),
        )
        assert same_state(fresh, whole), (epoch, batch)
        assert rest == logs[first[0] :]
