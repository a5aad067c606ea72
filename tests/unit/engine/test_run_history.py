"""Files of a run with `until`: written completely, read back, and refused where they are broken."""

import json

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.engine.run_history import RunHistory
from keras_dsd.protocols import WeightCopies
from tests.unit.engine.fake_adapter import FakeModel, copies_of, fit

UNTIL = dsd.Plateau("loss", patience=2, restore_best=True)
PHASES = [dsd.DensePhase(6, until=UNTIL), dsd.SparsePhase(2), dsd.DensePhase(2)]
LOSSES = [3.0, 2.0, 2.5, 2.6, 9.0, 8.0, 7.0, 7.5, 5.0, 4.0]


def log(epoch):
    return {"loss": LOSSES[epoch], "other": 1.0}


def schedule(folder=None, phases=PHASES, **options):
    return dsd.DSDSchedule(phases=phases, backup_dir=folder, **options)


class KilledError(Exception):
    pass


def stop_after(epoch):
    def stop(now):
        if now == epoch:
            raise KilledError

    return stop


@pytest.fixture
def killed(tmp_path):
    """A model after 3 epochs of a run that was killed, and the folder that it left."""
    model = FakeModel()
    with pytest.raises(KilledError):
        fit(model, schedule(tmp_path), 10, log=log, after=stop_after(2))
    return model.copy(), tmp_path


def test_what_is_written(killed):
    _, folder = killed
    assert sorted(path.name for path in folder.iterdir()) == [
        "dsd_best_000000.npz", "dsd_best_000001.npz", "dsd_history.json",
    ]  # fmt: skip
    data = json.loads((folder / "dsd_history.json").read_text())
    assert data == {
        "timeline": str(schedule().timeline), "history": [{"loss": x} for x in LOSSES[:3]],
    }  # fmt: skip


def test_two_best_weights_are_kept(tmp_path):
    folder = tmp_path / "made" / "anew"
    fit(FakeModel(), schedule(folder), 10, log=lambda epoch: {"loss": -epoch})
    names = sorted(path.name for path in folder.glob("*.npz"))
    assert names == ["dsd_best_000004.npz", "dsd_best_000005.npz"]
    (folder / "dsd_best_000004.npz").unlink()
    phases = [dsd.DensePhase(3, until=UNTIL), dsd.SparsePhase(1), dsd.DensePhase(1)]
    again = schedule(folder, phases)  # what an earlier, longer run left does not count
    fit(FakeModel(), again, 5, log=lambda epoch: {"loss": -epoch})
    names = sorted(path.name for path in folder.glob("*.npz"))
    assert names == [f"dsd_best_{epoch:06d}.npz" for epoch in (1, 2, 5)]


def test_nothing_is_written_without_until(tmp_path):
    plain = [dsd.DensePhase(1), dsd.SparsePhase(1), dsd.DensePhase(1)]
    fit(FakeModel(), schedule(tmp_path / "none", plain), 3, log=log)
    assert not (tmp_path / "none").exists()


def test_the_best_weights_come_back_as_a_phase_ends():
    model, ends = FakeModel(), []
    seen = {}

    def keep(epoch):
        ends.append(model.get_weights())

    callback = schedule()
    enter = callback.on_epoch_begin

    def begin(epoch):
        enter(epoch)
        seen[epoch] = (model.get_weights(), [kernel.mask for kernel in model.kernels])

    callback.on_epoch_begin = begin
    fit(model, callback, 10, log=log, after=keep)
    now, masks = seen[4]  # epoch 1 was the best of the phase that took 4
    for before, value, mask in zip(ends[1], now, [*masks, np.ones(5, bool)], strict=True):
        assert np.array_equal(value, before * mask)
    for before, value in zip(ends[5], seen[6][0], strict=True):  # this phase restores nothing
        assert np.array_equal(value, before)


@pytest.mark.parametrize(("losses", "best"), [([1.0, 2.0, 3.0], 0), ([3.0, 2.0, 1.0], None)])
def test_the_best_weights_come_back_as_the_run_ends(losses, best):
    model, ends = FakeModel(), []
    phases = [dsd.SparsePhase(1), dsd.DensePhase(3, until=UNTIL)]
    fit(model, schedule(phases=phases), 4, log=lambda epoch: {"loss": [9.0, *losses][epoch]},
        after=lambda epoch: ends.append(model.get_weights()))  # fmt: skip
    expected = ends[-1 if best is None else best + 1]
    assert all(map(np.array_equal, model.get_weights(), expected))


def test_they_are_copies_of_what_the_model_returns(model):
    model.get_weights = lambda: [*(kernel.values for kernel in model.kernels), model.bias]
    ends = []

    def spoil(epoch):
        ends.append([value.copy() for value in model.get_weights()])
        for value in model.get_weights():
            value *= 2

    phases = [dsd.DensePhase(2, until=UNTIL)]
    fit(model, schedule(phases=phases), 2, log=lambda epoch: {"loss": epoch}, after=spoil)
    assert all(map(np.array_equal, model.get_weights(), ends[0]))


def test_they_do_not_come_back_where_training_stopped_in_an_earlier_phase():
    model, ends = FakeModel(), []

    def stop(epoch):
        ends.append(model.get_weights())
        model.stop_training = epoch == 2

    fit(model, schedule(), 10, log=log, after=stop)
    assert all(map(np.array_equal, model.get_weights(), ends[-1]))


@pytest.mark.parametrize("at", [2, 3])
def test_resumed_from_its_folder(killed, at):
    model, folder = killed
    reference = FakeModel()
    fit(reference, schedule(), 10, log=log)
    if at == 3:
        fit(model, schedule(folder), 10, initial_epoch=3, log=log)
        assert all(map(np.array_equal, model.state(), reference.state()))
    else:  # an epoch earlier than the files, which hold it too
        history = RunHistory(schedule().timeline, folder)
        assert history.resume(2, lambda: copies_of(model))
        assert history.epochs == [{"loss": 3.0}, {"loss": 2.0}]
        assert history.epoch_to_restore() is None


def copies(*arrays):
    return WeightCopies({f"arr_{index}": each for index, each in enumerate(arrays)})


def unchanged(model, before):
    return all(map(np.array_equal, model.state(), before))


@pytest.mark.parametrize(("text", "message"), [
    (None, "which holds none. Pass the backup_dir of the interrupted run"),
    ("{", r"where dsd_history.json is incomplete \(JSONDecodeError"),
    ("[]", "where dsd_history.json is incomplete"),
    ('{"history": [{"loss": "x"}], "timeline": ""}', "where dsd_history.json is incomplete"),
    ('{"history": [], "timeline": "x"}', "from other phases: x, instead of dense"),
    (json.dumps({"history": [{}], "timeline": str(schedule().timeline)}), "which holds 1 epochs"),
])  # fmt: skip
def test_a_history_that_is_broken_or_foreign_is_refused(killed, text, message):
    model, folder = killed
    path = folder / "dsd_history.json"
    path.unlink() if text is None else path.write_text(text)
    before = model.state()
    with pytest.raises(ValueError, match=f"monitored values of the previous 3 epochs.*{message}"):
        fit(model, schedule(folder), 10, initial_epoch=3, log=log)
    assert unchanged(model, before)


def test_without_a_folder_there_is_no_history_to_resume_from(killed):
    model, _ = killed
    before = model.state()
    with pytest.raises(ValueError, match="backup_dir=None, which holds none"):
        fit(model, schedule(), 10, initial_epoch=3, log=log)
    assert unchanged(model, before)


def remove(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:40])


def other_model(path):
    np.savez(path.open("wb"), np.zeros((6, 4)), np.zeros(3))


def other_dtype(path):
    np.savez(path.open("wb"), *(value.astype("float32") for value in FakeModel().get_weights()))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize(("spoil", "message"), [
    (remove, "no file of those of epoch 2, backup_dir="),
    (cut, "dsd_best_000001.npz', which is incomplete or another file"),
    (other_model, "from another model, with weights .*instead of"),
    (other_dtype, "from another model, with weights .*float32.*float64"),
])  # fmt: skip
def test_best_weights_that_are_broken_or_foreign_are_refused(killed, spoil, message):
    model, folder = killed
    spoil(folder / "dsd_best_000001.npz")
    before = model.state()
    with pytest.raises(ValueError, match=f"Expected the best weights of the phase.*{message}"):
        fit(model, schedule(folder), 10, initial_epoch=3, log=log)
    assert unchanged(model, before)


def test_best_weights_in_memory_need_no_folder():
    history = RunHistory(schedule().timeline, None)
    for epoch in range(3):
        assert history.resume(epoch, copies)
        history.add(log(epoch), lambda epoch=epoch: copies(np.full(2, epoch)))
    assert history.epoch_to_restore() == 1
    assert np.array_equal(history.best_weights(1).arrays["arr_0"], [1, 1])
    with pytest.raises(TypeError, match=r"logs\['loss'\]"):
        history.add({"loss": "bad"}, copies)
    assert len(history.epochs) == 3  # nothing was added


def test_the_weights_of_the_last_epoch_are_taken_where_it_was_the_best(tmp_path):
    timeline = schedule().timeline
    before = RunHistory(timeline, tmp_path)
    before.add(log(0), lambda: copies(np.zeros(2)))
    before.add(log(1), lambda: copies(np.ones(2)))
    (tmp_path / "dsd_best_000001.npz").unlink()
    after = RunHistory(timeline, tmp_path)
    assert after.resume(2, lambda: copies(np.full(2, 7.0)))
    assert np.array_equal(after.best_weights(1).arrays["arr_0"], [7, 7])


def test_bfloat16_is_read_back(tmp_path):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    timeline, values = schedule().timeline, copies(np.arange(3).astype(bfloat16))
    before = RunHistory(timeline, tmp_path)
    before.add(log(1), lambda: values)
    before.add(log(2), lambda: values)
    after = RunHistory(timeline, tmp_path)
    assert after.resume(2, lambda: copies(np.zeros(3, bfloat16)))
    found = after.best_weights(0).arrays["arr_0"]
    assert found.dtype == bfloat16
    assert np.array_equal(found, values.arrays["arr_0"])


def parts(process, *values):
    """Returns what copies the part of a weight that one of two processes has."""
    name = f"arr_0[{2 * process}:{2 * process + 2}]"
    return lambda: WeightCopies({name: np.array(values)}, (process, 2))


def test_processes_that_share_a_folder_keep_their_own_parts(tmp_path):
    timeline = schedule().timeline
    for process in range(2):
        history = RunHistory(timeline, tmp_path)
        for value, loss in enumerate((5.0, 4.0, 3.0, 9.0)):
            history.add({"loss": loss}, parts(process, process, value))
    names = [f"dsd_best_00000{epoch}_process_{i}_of_2.npz" for epoch in (1, 2) for i in (0, 1)]
    assert [path.name for path in sorted(tmp_path.glob("*.npz"))] == names
    for process in range(2):
        after = RunHistory(timeline, tmp_path)
        assert after.resume(4, parts(process, -1, -1))
        (found,) = after.best_weights(2).arrays.values()
        assert found.tolist() == [process, 2]
    (tmp_path / names[-1]).replace(tmp_path / names[-2])
    with pytest.raises(ValueError, match=r"another model.*\[2:4\].*instead of.*\[0:2\]"):
        RunHistory(timeline, tmp_path).resume(4, parts(0, -1, -1))


def test_a_folder_that_is_not_writable_is_refused_before_anything_changes(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    model = FakeModel()
    before = model.state()
    with pytest.raises(ValueError, match=r"`backup_dir` to be a writable folder.*"):
        fit(model, schedule(tmp_path / "file"), 10)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ValueError, match="it is not writable. Pass another"):
        fit(model, schedule(tmp_path / "made" / "anew"), 10)
    assert unchanged(model, before)
    assert "make_train_function" not in vars(model)
