"""A last phase with moving averages: they start with it, and the run ends with them."""

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.protocols import StepExtras
from tests.unit.engine.fake_adapter import FakeModel, fit

ONE, HALF, LAST = dsd.DensePhase(1), dsd.SparsePhase(1), dsd.DensePhase(3, lr=0.1, ema=0.8)
PHASES = [ONE, HALF, LAST]


def watched(model):
    """Records the values of weights after every step."""
    seen, step = [], model.train_step

    def train_step(masked):
        step(masked)
        seen.append([each.copy() for each in model.get_weights()])

    model.train_step = train_step
    return seen


def expected(seen):
    """The average of the steps of the last phase, from the weights that it starts with."""
    averages = seen[3]
    for values in seen[4:]:
        averages = [0.8 * a + (1 - 0.8) * v for a, v in zip(averages, values, strict=True)]
    return averages


def test_the_run_ends_with_averages_from_the_start_of_the_last_phase():
    model = FakeModel()
    seen, ends = watched(model), []
    fit(model, dsd.DSDSchedule(phases=PHASES), 5, after=lambda e: ends.append(model.get_weights()))
    assert len(seen) == 10
    for epoch, weights in enumerate(ends):  # in it, weights are what steps made of them
        assert all(map(np.array_equal, weights, seen[2 * epoch + 1]))
    assert all(map(np.array_equal, model.get_weights(), expected(seen)))
    assert model.adapter.extras == [StepExtras(ema=0.8)]  # what was checked


@pytest.mark.parametrize("epoch", range(1, 5))
def test_a_run_that_resumes_elsewhere_ends_with_the_same_averages(epoch, tmp_path):
    whole, copies = FakeModel(), []
    schedule = dsd.DSDSchedule(phases=PHASES, backup_dir=tmp_path / "whole")
    fit(whole, schedule, 5, after=lambda e: copies.append(whole.copy()))
    model = copies[epoch - 1]
    again = dsd.DSDSchedule(phases=PHASES, backup_dir=tmp_path / "whole")
    if epoch < 4:  # the last two epochs' are kept; for earlier ones a run that was killed
        killed = FakeModel()
        first = dsd.DSDSchedule(phases=PHASES, backup_dir=tmp_path / "killed")

        def stop(number):
            if number == epoch - 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(killed, first, 5, after=stop)
        again = dsd.DSDSchedule(phases=PHASES, backup_dir=tmp_path / "killed")
    fit(model, again, 5, initial_epoch=epoch)
    assert all(map(np.array_equal, model.get_weights(), whole.get_weights()))


@pytest.mark.filterwarnings("ignore:Training ended")
def test_a_fit_for_each_epoch_keeps_averages_without_a_folder():
    whole, model = FakeModel(), FakeModel()
    fit(whole, dsd.DSDSchedule(phases=PHASES), 5)
    seen = watched(model)
    for epoch in range(5):
        fit(model, dsd.DSDSchedule(phases=PHASES), epoch + 1, initial_epoch=epoch)
        last = expected(seen) if epoch == 4 else seen[-1]
        assert all(map(np.array_equal, model.get_weights(), last)), epoch
    assert all(map(np.array_equal, model.get_weights(), whole.get_weights()))


def test_a_run_without_its_record_is_refused_and_nothing_changed():
    copies, whole = [], FakeModel()
    fit(whole, dsd.DSDSchedule(phases=PHASES), 5, after=lambda e: copies.append(whole.copy()))
    model = copies[2]
    before = model.get_weights()
    message = "Expected what the training steps.*no file.*backup_dir=None.*before BackupAndRestore"
    with pytest.raises(ValueError, match=message):
        fit(model, dsd.DSDSchedule(phases=PHASES), 5, initial_epoch=3)
    assert all(map(np.array_equal, model.get_weights(), before))


def test_what_is_not_averaged():
    with pytest.raises(ValueError, match=r"in the last phase.*ema=0.9 in a phase dense for 1"):
        dsd.DSDSchedule(phases=[dsd.DensePhase(1, ema=0.9), ONE])
    until = dsd.Plateau("loss", restore_best=True)
    with pytest.raises(ValueError, match="restores no best weights.*ema=0.9 with until"):
        dsd.DensePhase(1, ema=0.9, until=until)
    for ema in (0.0, 1.0, 2):
        with pytest.raises(ValueError, match=f"ema={ema}"):
            dsd.DensePhase(1, ema=ema)
    model = FakeModel()
    loop = dsd.DSDLoop(model, object(), dsd.DSDSchedule(phases=PHASES))
    with pytest.raises(ValueError, match="without ema.*custom training loop.*Train by fit"):
        loop.begin_epoch(0)
    assert str(LAST) == "dense for 3 epochs at 0.1 times the learning rate, averaged by 0.8"
