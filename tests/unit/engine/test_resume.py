"""A run that resumes at any epoch, from weights alone, ends as the uninterrupted one, exactly."""

import gc
import json
import shutil
import warnings
import weakref

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.engine.observers import Observer
from keras_dsd.engine.run_history import RunHistory
from tests.unit.engine.fake_adapter import FakeModel, fit

D1, D2, S1, S2 = dsd.DensePhase(1), dsd.DensePhase(2), dsd.SparsePhase(1), dsd.SparsePhase(2)
LOW = dsd.DensePhase(2, lr=0.1)
SPARSER, GENTLER = dsd.SparsePhase(2, sparsity=0.75), dsd.SparsePhase(2, sparsity=0.25)


def by_order(weight):
    """Scores that depend on values: those of a pruned weight are others."""
    return np.cumsum(weight.numpy()).reshape(weight.shape)


RANDOM = dsd.SparsePhase(2, criterion="random", seed=1)
CALLABLE = dsd.SparsePhase(2, sparsity=0.4, criterion=by_order)
TIMELINES = {
    "DSD": [D2, S2, LOW],
    "dense=0": [S2, LOW],
    "DSDSD": [D1, S2, D1, S2, LOW],
    "AC/DC": [D1, *[S2, D2] * 3],
    "gentler": [D1, SPARSER, GENTLER, LOW],
    "harder": [GENTLER, SPARSER, D1],
    "dense, dense": [D2, LOW, S1, D1],
    "ends sparse": [D1, S2],
    "random": [D1, RANDOM, LOW],
    "callable": [D1, CALLABLE, LOW],
    "random, gentler": [D1, SPARSER, RANDOM, LOW],
    "callable, gentler": [D1, SPARSER, CALLABLE, LOW],
    "ramp": [D1, dsd.SparsePhase(4, ramp=3), LOW],
    "ramp, random": [D1, dsd.SparsePhase(3, ramp=2, criterion="random"), LOW],
    "ramp, callable": [dsd.SparsePhase(4, ramp=2, criterion=by_order), LOW],
}


def uninterrupted(phases, log=None, after=None, **options):
    """Trains through all phases, and returns the model, and copies of it at each epoch's end."""
    model, copies = FakeModel(), []

    def keep(epoch):
        copies.append(model.copy())
        if after:
            after(epoch)

    schedule = dsd.DSDSchedule(phases=phases, **options)
    return model, copies, fit(model, schedule, schedule.timeline.epochs, log=log, after=keep)


@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
@pytest.mark.parametrize("with_masks", [True, False], ids=["masks", "no masks"])
@pytest.mark.parametrize("reset", ["pruned", "all", "none"])
@pytest.mark.parametrize("name", TIMELINES)
def test_at_every_epoch(name, reset, with_masks):
    phases = TIMELINES[name]
    whole, copies, logs = uninterrupted(phases, reset=reset)
    for epoch in range(1, len(copies)):
        model = copies[epoch - 1].copy(with_masks)
        schedule = dsd.DSDSchedule(phases=phases, reset=reset)
        rest = fit(model, schedule, len(copies), initial_epoch=epoch)
        assert all(map(np.array_equal, model.state(), whole.state())), epoch
        for one, two in zip(model.kernels, whole.kernels, strict=True):
            assert np.array_equal(one.mask, two.mask)
        measured = [{k: v for k, v in each.items() if k.startswith("dsd")} for each in logs]
        assert rest == measured[epoch:]


@pytest.mark.filterwarnings("ignore:Training ended")
@pytest.mark.parametrize("is_one", [True, False], ids=["one schedule", "a new one each"])
@pytest.mark.parametrize("name", TIMELINES)
def test_a_fit_for_each_epoch(name, is_one):
    phases = TIMELINES[name]
    whole, copies, _ = uninterrupted(phases)
    model, schedule = FakeModel(), dsd.DSDSchedule(phases=phases)
    for epoch in range(len(copies)):
        each = schedule if is_one else dsd.DSDSchedule(phases=phases)
        fit(model, each, epoch + 1, initial_epoch=epoch)
        assert all(map(np.array_equal, model.state(), copies[epoch].state())), epoch
    assert all(map(np.array_equal, model.state(), whole.state()))


LOSSES = [3.0, 2.0, 2.5, 2.6, 9.0, 8.0, 7.0, 7.5, 5.0, 4.0, 4.5, 4.6]


def log(epoch):
    return {"loss": LOSSES[epoch]}


@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
@pytest.mark.parametrize("restore_best", [True, False])
@pytest.mark.parametrize("with_masks", [True, False], ids=["masks", "no masks"])
def test_at_every_epoch_of_phases_that_end_early(restore_best, with_masks, tmp_path):
    until = dsd.Plateau("loss", patience=2, restore_best=restore_best)
    phases = [
        dsd.DensePhase(6, until=until), dsd.SparsePhase(3, until=until),
        dsd.DensePhase(3, until=until),
    ]  # fmt: skip

    def keep(epoch):
        shutil.copytree(tmp_path / "run", tmp_path / f"{epoch}")

    whole, copies, logs = uninterrupted(phases, log, keep, backup_dir=tmp_path / "run")
    assert [each["dsd_phase"] for each in logs] == [0] * 4 + [1] * 3 + [2] * 5
    for epoch in range(1, 12):
        model = copies[epoch - 1].copy(with_masks)
        schedule = dsd.DSDSchedule(phases=phases, backup_dir=tmp_path / f"{epoch - 1}")
        rest = fit(model, schedule, 12, initial_epoch=epoch, log=log)
        assert rest == logs[epoch:]
        assert all(map(np.array_equal, model.state(), whole.state())), epoch
    # and from the files that the complete run left, at any epoch whose best weights are there
    for epoch in range(9, 12):
        model = copies[epoch - 1].copy(with_masks)
        schedule = dsd.DSDSchedule(phases=phases, backup_dir=tmp_path / "run")
        fit(model, schedule, 12, initial_epoch=epoch, log=log)
        assert all(map(np.array_equal, model.state(), whole.state())), epoch


UNTIL = dsd.Plateau("loss", patience=2, restore_best=True)
CONVERGING = [
    dsd.DensePhase(6, until=UNTIL), dsd.SparsePhase(3, until=UNTIL), dsd.DensePhase(3, until=UNTIL),
]  # fmt: skip


class Seen(Observer):
    """Keeps the moments, with what weights were."""

    def __init__(self):
        self.moments = []

    def on_moment(self, moment, weights):
        self.moments.append((moment, [(weight.numpy(), weight.mask) for weight in weights]))

    def __eq__(self, other):
        return str(self.moments) == str(other.moments)


@pytest.mark.filterwarnings("ignore:Training ended")
@pytest.mark.parametrize("is_one", [True, False], ids=["one schedule", "a new one each"])
@pytest.mark.parametrize("ends", [range(1, 13), (2, 5, 9, 12), (4, 7, 12), (12,)])
@pytest.mark.parametrize("phases", [CONVERGING, [D1, S2, D2, S1, dsd.DensePhase(6, lr=0.1)]])
def test_short_fits_end_as_one_that_is_not_short(phases, ends, is_one):
    """Their history is that of the model, and only the last of them ends the last phase."""
    one, several = Seen(), Seen()
    whole, copies, logs = uninterrupted(phases, log, observers=[one])
    model, schedule, rest = FakeModel(), dsd.DSDSchedule(phases=phases, observers=[several]), []
    for first, end in zip([0, *ends], ends, strict=False):
        if not is_one:
            schedule = dsd.DSDSchedule(phases=phases, observers=[several])
        rest += fit(model, schedule, end, initial_epoch=first, log=log)
        if end < 12:
            assert same_state(model, copies[end - 1]), end
    assert same_state(model, whole) and one == several
    rest = [{**each, "dsd_epochs_left": 0} for each in rest]  # of the last phase: what fit has left
    assert rest == [{**each, "dsd_epochs_left": 0} for each in logs]


def test_a_run_of_other_phases_or_another_folder_is_not_resumed(tmp_path):
    model = FakeModel()
    others = [*CONVERGING[:2], dsd.DensePhase(2, until=UNTIL)]
    with pytest.warns(UserWarning, match="Training ended in DSD phase 1"):
        fit(model, dsd.DSDSchedule(phases=CONVERGING), 2, log=log)
    for options in ({"phases": others}, {"phases": CONVERGING, "backup_dir": tmp_path}):
        with pytest.raises(ValueError, match="monitored values of the previous 2 epochs"):
            fit(model, dsd.DSDSchedule(**options), 12, initial_epoch=2, log=log)
    with pytest.raises(ValueError, match="monitored values of the previous 2 epochs"):
        fit(model.copy(), dsd.DSDSchedule(phases=CONVERGING), 12, initial_epoch=2, log=log)


def test_short_fits_warn_once_of_each_kind_in_a_run():
    model, phases = FakeModel(), [D2, S2, D2, S2, D2]

    def run():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for epoch in range(10):
                schedule = dsd.DSDSchedule(phases=phases)
                fit(model, schedule, epoch + 1, initial_epoch=epoch)
        return [str(each.message)[:31] for each in caught]

    once = ["Training ended in DSD phase 1 o", "Training ended with pruned weig"]
    assert run() == once
    assert run() == once  # another run


def test_a_fit_that_ends_the_run_frees_the_best_weights():
    model = FakeModel()
    whole, *_ = uninterrupted(CONVERGING, log)
    history = RunHistory(dsd.DSDSchedule(phases=CONVERGING).timeline, None).last_of(model)
    fit(model, dsd.DSDSchedule(phases=CONVERGING), 12, log=log)
    assert same_state(model, whole) and not history._best
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def same_state(one, two):
    return all(map(np.array_equal, one.state(), two.state()))


@pytest.mark.parametrize("with_masks", [True, False])
def test_at_another_sparsity_is_refused_and_changes_nothing(with_masks):
    _, copies, _ = uninterrupted([D1, S2, LOW])
    for sparsity in (0.6, 0.75):
        phases = [D1, dsd.SparsePhase(2, sparsity=sparsity), LOW]
        model = copies[1].copy(with_masks)
        message = r"net/a/kernel with 12 of 24 values zero, of which this phase prunes (14|18)"
        with pytest.raises(ValueError, match=message):
            fit(model, dsd.DSDSchedule(phases=phases), 5, initial_epoch=2)
        assert same_state(model, copies[1])
        masks = [kernel.mask for kernel in model.kernels]
        assert all(map(np.array_equal, masks, [k.mask for k in copies[1].copy(with_masks).kernels]))


def test_dense_weights_are_pruned_where_a_run_resumes_within_a_sparse_phase():
    logs = fit(FakeModel(), dsd.DSDSchedule(1, 2, 1), 4, initial_epoch=2)
    assert [each["dsd_sparsity"] for each in logs] == [0.5, 0.0]


def test_more_zeros_than_masks_prune_are_warned_of():
    model = FakeModel()
    for kernel in model.kernels:
        kernel.values.flat[: kernel.values.size // 2 + 2] = 0
    with pytest.warns(UserWarning, match="with 4 more zeros than its masks prune"):
        logs = fit(model, dsd.DSDSchedule(1, 2, 1), 4, initial_epoch=2)
    assert logs[0]["dsd_sparsity"] == 0.5
    masked = FakeModel()
    for kernel in masked.kernels:
        kernel.values.flat[: kernel.values.size // 2 + 2] = 0
        kernel.mask = np.arange(kernel.values.size).reshape(kernel.shape) >= kernel.values.size // 2
    fit(masked, dsd.DSDSchedule(1, 2, 1), 4, initial_epoch=2)  # masks tell them apart


def test_right_after_a_sparse_phase_other_zeros_are_not_taken_for_its_masks():
    """Only weights that are zero wherever the phase prunes get its mask back."""
    model, seen = FakeModel(), []

    class Look(Observer):
        def on_moment(self, moment, weights):
            seen.append([weight.mask is not None for weight in weights])

    order = np.argsort(np.abs(model.kernels[1].values), axis=None)
    model.kernels[1].values.flat[order[:10]] = 0
    fit(model, dsd.DSDSchedule(0, 1, 1, observers=[Look()]), 2, initial_epoch=1)
    assert seen[0] == [False, True]


def test_the_moments_of_a_resumed_run():
    _, copies, _ = uninterrupted([D1, S2, LOW])
    expected = {
        1: ["before pruning", "after pruning"],
        2: [],
        3: ["end of sparse", "first re-dense epoch"],
        4: [],
    }
    for epoch, first in expected.items():
        seen = []

        class Look(Observer):
            def on_moment(self, moment, weights, seen=seen):
                seen.append(moment.name)

        schedule = dsd.DSDSchedule(phases=[D1, S2, LOW], observers=[Look()])
        fit(copies[epoch - 1].copy(), schedule, 5, initial_epoch=epoch)
        later = ["end of sparse", "first re-dense epoch"] if epoch < 3 else []
        assert seen == [*first, *later, "last re-dense epoch"]


def test_the_message_of_a_run_that_resumes(capsys):
    _, copies, _ = uninterrupted([D1, S2, LOW])
    capsys.readouterr()
    fit(copies[1].copy(), dsd.DSDSchedule(phases=[D1, S2, LOW]), 5, initial_epoch=2, verbose=1)
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "Epoch 3: DSD phase 2/3 (sparse, 2 epochs, resumed): 50.0% sparsity (22 of 44 weights in "
        "2 tensors), learning rate 0.1"
    )
    assert second.startswith("Epoch 4: DSD phase 3/3 (re-dense, 2 epochs): 22 weights regrow")


def test_a_kill_between_a_checkpoint_and_the_history_is_warned_of(tmp_path):
    until = dsd.Plateau("loss", patience=2)
    phases = [dsd.DensePhase(4, until=until), S1, D1]
    falling = {"log": lambda epoch: {"loss": -epoch}}
    _, copies, _ = uninterrupted(phases, **falling, backup_dir=tmp_path)
    schedule = dsd.DSDSchedule(phases=phases, backup_dir=tmp_path)
    history = tmp_path / "dsd_history.json"
    data = json.loads(history.read_text())
    history.write_text(json.dumps({**data, "history": data["history"][:2]}))
    with pytest.warns(UserWarning, match="The monitored values of epoch 3 are missing"):
        logs = fit(copies[2].copy(), schedule, 6, initial_epoch=3, **falling)
    assert [each["dsd_phase"] for each in logs] == [0, 1, 2]
    assert json.loads(history.read_text())["history"][:4] == [
        {"loss": 0.0}, {"loss": -1.0}, {}, {"loss": -3.0},
    ]  # fmt: skip
