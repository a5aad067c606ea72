"""Criteria of gradients, and weights that regrow in part or decay, against transcriptions."""

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.algorithm.patterns import NM
from tests.unit.engine.fake_adapter import FakeModel, fit

D1, D2, S1, S2 = dsd.DensePhase(1), dsd.DensePhase(2), dsd.SparsePhase(1), dsd.SparsePhase(2)
MOVEMENT, TAYLOR = (dsd.SparsePhase(2, criterion=name) for name in ("movement", "taylor"))
HALF = dsd.DensePhase(2, regrow_fraction=0.5)
DECAY = dsd.DensePhase(2, lr=0.5, regrow_decay=0.3)
WAYS = {
    "movement": [D2, MOVEMENT, D1],
    "taylor": [D1, TAYLOR, D1],
    "ramp": [D1, dsd.SparsePhase(4, criterion="movement", ramp=3), D1],
    "again": [D1, MOVEMENT, D1, TAYLOR, D1],
    "after sparse": [D1, dsd.SparsePhase(1, sparsity=0.25), MOVEMENT, D1],
    "fraction": [D1, S2, HALF, D1],
    "decay": [D1, S2, DECAY],
    "all": [D1, MOVEMENT, dsd.DensePhase(3, regrow_fraction=0.5, regrow_decay=0.3, ema=0.8)],
    "twice": [S1, DECAY, TAYLOR, dsd.DensePhase(2, regrow_fraction=0.25, regrow_decay=0.2)],
}


class Seen:
    """Values of a model's first kernel before and after each step and each epoch."""

    def __init__(self, model):
        self.steps, self.epochs, step = [], [], model.train_step
        kernel = model.kernels[0]

        def train_step(masked):
            before = kernel.values.copy()
            gradient = np.cos(3 * before + model.iterations + 1)
            step(masked)
            self.steps.append((before, gradient, kernel.values.copy(), kernel.momentum.copy()))

        model.train_step = train_step
        self.kernel = kernel

    def after(self, epoch):
        mask = self.kernel.mask
        self.epochs.append((self.kernel.values.copy(), None if mask is None else mask.copy()))

    def sums(self, epoch, is_movement):
        """Of an epoch, which takes two steps; in float32, as they are kept."""
        found = np.zeros(self.kernel.shape, np.float32)
        for before, gradient, *_ in self.steps[2 * epoch : 2 * epoch + 2]:
            found += -gradient * before if is_movement else gradient
        return found


def run(phases, model=None, **options):
    model = model or FakeModel()
    seen = Seen(model)
    schedule = dsd.DSDSchedule(phases=list(phases), **options)
    logs = fit(model, schedule, schedule.timeline.epochs, after=seen.after)
    return seen, logs, model


def lowest(scores, count):
    mask = np.ones(scores.size, bool)
    mask[np.argsort(scores.ravel(), kind="stable")[:count]] = False
    return mask.reshape(scores.shape)


def test_movement_prunes_what_moved_towards_zero_in_the_epoch_before():
    seen, _, _ = run(WAYS["movement"])
    assert np.array_equal(seen.epochs[2][1], lowest(seen.sums(1, True), 12))
    assert np.array_equal(seen.epochs[2][1], seen.epochs[3][1])
    assert not np.array_equal(seen.epochs[2][1], lowest(np.abs(seen.epochs[1][0]), 12))


def test_taylor_prunes_what_the_loss_depends_on_least():
    seen, _, _ = run(WAYS["taylor"])
    scores = np.abs(seen.sums(0, False) * seen.epochs[0][0])
    assert np.array_equal(seen.epochs[1][1], lowest(scores, 12))


def test_a_ramp_sums_over_each_epoch_before_it_prunes():
    seen, _, _ = run(WAYS["ramp"])
    assert np.array_equal(seen.epochs[1][1], lowest(seen.sums(0, True), 8))
    for epoch, count in ((2, 12), (3, 12)):
        (_, before), (_, mask) = seen.epochs[epoch - 1 : epoch + 1]
        scores = np.where(before, seen.sums(epoch - 1, True), -np.inf)
        assert np.array_equal(mask, lowest(scores, count))


def test_sums_are_made_in_the_last_epoch_before_alone():
    model = FakeModel()
    used = []
    make = model.adapter.make_step
    model.adapter.make_step = lambda masked, extras: (
        used.append((masked, extras.sums)) or make(masked, extras)
    )
    run([D2, MOVEMENT, D2], model)
    assert used == [(False, None), (False, "movement"), (True, None)]
    used.clear()
    until = dsd.DensePhase(2, until=dsd.Plateau("loss"))
    with pytest.warns(UserWarning, match="in the logs of none"):
        run([until, MOVEMENT, D1], FakeModel() if False else model)
    assert used == [(False, "movement"), (True, None), (False, None)]


def test_a_fraction_regrows_those_with_the_largest_gradients():
    seen, logs, model = run(WAYS["fraction"])
    (_, before), (values, mask) = seen.epochs[2:4]
    assert not (before & ~mask).any() and np.count_nonzero(~mask) == 6
    scores = np.where(before, np.inf, np.abs(seen.sums(2, False)))
    assert np.array_equal(mask, lowest(scores, 6))
    assert np.array_equal(values != 0, mask)
    assert [each["dsd_sparsity"] for each in logs] == [0, 22 / 44, 22 / 44, 11 / 44, 11 / 44, 0]
    start, _, _, momentum = seen.steps[6]
    assert not start[~before].any()  # from zero, with reset state
    assert np.array_equal(momentum[~before], np.cos(0 * momentum + 7)[~before])
    assert seen.epochs[5][1] is None and model.kernels[0].values.all()


def test_only_regrown_weights_decay_before_each_update():
    seen, _, model = run(WAYS["decay"])
    regrown = ~seen.epochs[2][1]
    for before, _, after, momentum in seen.steps[6:]:
        share = np.where(regrown, 1 - 0.1 * 0.5 * 0.3, 1)
        assert np.array_equal(after, before * share - 0.1 * 0.5 * momentum)
    plain, _, _ = run([D1, S2, dsd.DensePhase(2, lr=0.5)])
    assert np.abs(seen.epochs[4][0] - plain.epochs[4][0])[regrown].all()
    assert model.adapter.step_state.kept


def test_one_ranking_over_all_tensors():
    model = FakeModel(scope="global")
    _, logs, _ = run(WAYS["fraction"], model)
    assert [each["dsd_sparsity"] for each in logs] == [0, 22 / 44, 22 / 44, 11 / 44, 11 / 44, 0]


@pytest.mark.filterwarnings("ignore:Training ended")
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("name", WAYS)
def test_a_run_that_was_killed_resumes_from_its_folder(name, scope, tmp_path):
    phases, copies, whole = WAYS[name], [], FakeModel(scope=scope)
    schedule = dsd.DSDSchedule(phases=phases)
    num_epochs = schedule.timeline.epochs
    fit(whole, schedule, num_epochs, after=lambda e: copies.append(whole.copy(with_masks=False)))
    for epoch in range(1, num_epochs):
        folder = tmp_path / str(epoch)

        def stop(number, epoch=epoch):
            if number == epoch - 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            killed = FakeModel(scope=scope)
            fit(killed, dsd.DSDSchedule(phases=phases, backup_dir=folder), num_epochs, after=stop)
        model, again = copies[epoch - 1], dsd.DSDSchedule(phases=phases, backup_dir=folder)
        fit(model, again, num_epochs, initial_epoch=epoch)
        assert all(map(np.array_equal, model.state(), whole.state())), epoch


@pytest.mark.filterwarnings("ignore:Training ended")
@pytest.mark.parametrize("name", WAYS)
def test_a_fit_for_each_epoch(name):
    phases, whole, model = WAYS[name], FakeModel(), FakeModel()
    num_epochs = dsd.DSDSchedule(phases=phases).timeline.epochs
    fit(whole, dsd.DSDSchedule(phases=phases), num_epochs)
    for epoch in range(num_epochs):
        fit(model, dsd.DSDSchedule(phases=phases), epoch + 1, initial_epoch=epoch)
    assert all(map(np.array_equal, model.state(), whole.state()))


def test_a_run_that_ends_with_a_part_pruned_is_complete():
    _, _, model = run([D1, S1, HALF])  # no warning
    assert sum(np.count_nonzero(~kernel.mask) for kernel in model.kernels) == 11


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([MOVEMENT, D1], "follow a phase that is counted in epochs.*'movement' in the first phase"),
        ([dsd.DensePhase(steps=4), TAYLOR, D1], "counted in epochs.*'taylor' after dense for 4 st"),
        ([dsd.SparsePhase(steps=4), HALF], "counted in epochs.*regrow_fraction=0.5 after sparse"),
        ([D1, HALF], "in a phase after a SparsePhase.*regrow_fraction=0.5 after dense"),
        ([DECAY], "in a phase after a SparsePhase.*regrow_decay=0.3 in the first phase"),
    ],
)
def test_phases_that_make_no_sense_are_refused(phases, message):
    with pytest.raises(ValueError, match=message):
        dsd.DSDSchedule(phases=phases)


def test_arguments_are_checked_and_shown():
    with pytest.raises(ValueError, match=r"in \(0, 1\].*regrow_fraction=1.5"):
        dsd.DensePhase(1, regrow_fraction=1.5)
    with pytest.raises(ValueError, match="regrow_decay=-1"):
        dsd.DensePhase(1, regrow_decay=-1)
    assert str(HALF) == "dense for 2 epochs, 50% of pruned weights regrow"
    assert str(DECAY) == (
        "dense for 2 epochs at 0.5 times the learning rate, regrown weights decay by 0.3"
    )
    assert str(MOVEMENT) == "sparse for 2 epochs by movement"


def test_n_of_m_regrows_at_once():
    model = FakeModel()
    for kernel in model.kernels:
        kernel.pattern = NM(2, 4)
    with pytest.raises(ValueError, match="without `regrow_fraction`: the pattern 2:4"):
        run([D1, S1, HALF], model)


def test_what_is_needed_and_unknown_is_refused_and_nothing_changed():
    for name, epoch in (("movement", 2), ("fraction", 3), ("decay", 4)):
        copies, whole = [], FakeModel()
        schedule = dsd.DSDSchedule(phases=WAYS[name])
        num_epochs = schedule.timeline.epochs
        fit(whole, schedule, num_epochs, after=lambda e, c=copies, w=whole: c.append(w.copy()))
        model, before = copies[epoch - 1], copies[epoch - 1].state()
        with pytest.raises(ValueError, match="Expected what the training steps of the previous"):
            fit(model, dsd.DSDSchedule(phases=WAYS[name]), num_epochs, initial_epoch=epoch)
        assert all(map(np.array_equal, model.state(), before)), name


def test_other_weights_than_those_of_a_phase_that_regrows_in_part_are_refused():
    model = FakeModel()
    with pytest.raises(ValueError, match="dense phase that the run resumes within.*=0.5"):
        fit(model, dsd.DSDSchedule(phases=WAYS["fraction"]), 6, initial_epoch=4)


def test_an_epoch_without_gradients_prunes_nothing():
    model = FakeModel()
    model.adapter.step_state.before_update = lambda kernel, gradient: None
    with pytest.raises(ValueError, match="Expected gradients in the epoch before.*use another"):
        run([D1, MOVEMENT, D1], model)
    assert all(kernel.values.all() for kernel in model.kernels)
