"""Files that are cut, changed or of another run, folders that can't be written to, full disks."""

import contextlib
import json
import os
import pickle
import resource
import subprocess

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import PATH, arrays, classifier, compiled, keras, left_behind

pytestmark = pytest.mark.once_per_keras

callbacks = keras.callbacks
SPARSITY = 0.5
VALUES = [3.0, 1.0, 2.0, 2.5, 2.6, 0.9]
UNTIL = dsd.Plateau("quality", mode="min", patience=4, restore_best=True)


def train(model, data, *given, first=0, epochs=4):
    model.fit(*data, epochs=epochs, initial_epoch=first, verbose=0, shuffle=False,
              callbacks=list(given))  # fmt: skip


def same(some, others):
    return all(map(np.array_equal, some, others))


class Keep(callbacks.Callback):
    """Keeps measurements of each message, and all weights at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.ends = []

    def on_epoch_end(self, epoch, logs=None):
        logs["quality"] = VALUES[epoch]
        self.ends.append(arrays(self.model))


def until(folder):
    phases = [dsd.DensePhase(3, until=UNTIL), dsd.SparsePhase(2), dsd.DensePhase(1)]
    return dsd.DSDSchedule(phases=phases, backup_dir=folder)


@pytest.fixture
def make():
    """Makes a model whose training needs no slots, so that weights alone are enough to resume."""
    start = []

    def made():
        model = compiled(dsd.apply(classifier(), SPARSITY), "sgd", metrics=None)
        start.extend(start or arrays(model))
        model.set_weights(start[: len(model.get_weights())])
        return model

    return made


def object_array(path, trap):
    """Writes a file of arrays in which a pickle stands that would make the file `trap`."""

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(trap),)

    values = np.empty(1, object)
    values[0] = Trap()
    np.savez(path, values)
    return path.read_bytes()


def of_another_model(path):
    with path.open("wb") as file:
        np.savez(file, *(np.zeros((3, 3), "float32") for _ in range(2)))
    return path.read_bytes()


def test_the_record_of_a_run_is_read_or_refused(make, digits, tmp_path):
    whole, keep = make(), Keep()
    folder, trap = tmp_path / "run", tmp_path / "trap"
    train(whole, digits, keep, until(folder), epochs=6)
    again = make()
    best, history = folder / "dsd_best_000001.npz", folder / "dsd_history.json"
    good = {path: path.read_bytes() for path in (best, history)}
    cut = good[best]
    broken = [
        *((best, cut[:size]) for size in (0, 1, 30, len(cut) // 2, len(cut) - 1)),
        (best, cut[:200] + bytes(100) + cut[300:]), (best, pickle.dumps([1])),
        (best, object_array(tmp_path / "a.npz", trap)),
        (best, of_another_model(tmp_path / "b.npz")),
        *((history, good[history][:size]) for size in (0, 1, 40, len(good[history]) - 1)),
        *((history, text) for text in (b"[]", b"\xff", b"[" * 100_000, b'{"history": 3}')),
        (history, json.dumps({"timeline": "", "history": [{"a": 10**400}] * 9}).encode()),
    ]  # fmt: skip
    for path, content in broken:
        path.write_bytes(content)
        again.set_weights(keep.ends[2])
        with pytest.raises(
            ValueError, match="^Expected .*Received: .*backup_dir of the interrupted run"
        ):
            train(again, digits, Keep(), until(folder), first=3, epochs=6)
        assert same(arrays(again), keep.ends[2]) and not trap.exists()
        path.write_bytes(good[path])
    train(again, digits, Keep(), until(folder), first=3, epochs=6)
    assert same(arrays(again), arrays(whole)) and left_behind(again) == set()


SLOW = pytest.mark.slow
FILES = ["a.keras", *(["a.h5", "a"] if PATH == "tf_keras" else [])]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("name", ["a.weights.h5", *(pytest.param(f, marks=SLOW) for f in FILES)])
def test_a_checkpoint_that_is_cut_is_refused_and_the_one_before_resumes(
    name, make, digits, tmp_path
):
    only_weights = name == "a.weights.h5"
    save = callbacks.ModelCheckpoint(str(tmp_path / "{epoch}" / name),
                                     save_weights_only=only_weights)  # fmt: skip
    for epoch in range(1, 5):
        (tmp_path / str(epoch)).mkdir()
    whole, again = make(), make()
    train(whole, digits, dsd.DSDSchedule(1, 2, 1), save)
    last, before = tmp_path / "3" / name, tmp_path / "2" / name
    broken = last / "variables" / "variables.index" if name == "a" else last
    content = broken.read_bytes()
    state = arrays(again), dsd.report(again)
    for size in (0, len(content) // 3, len(content) - 100):
        broken.write_bytes(content[: max(size, 0)])
        with pytest.raises(Exception):  # noqa: B017  whatever Keras raises
            again.load_weights(last) if only_weights else keras.models.load_model(last)
        assert same(arrays(again), state[0]) and dsd.report(again) == state[1]
    if only_weights:
        again.load_weights(before)
    else:
        loaded = keras.models.load_model(before)
        again = loaded if PATH == "tf_keras" else dsd.apply(loaded, SPARSITY)
    train(again, digits, dsd.DSDSchedule(1, 2, 1), first=2)
    assert same(arrays(again), arrays(whole))


@SLOW
def test_weights_of_another_architecture_change_nothing(make, digits, tmp_path):
    other = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(3)])
    other.save_weights(tmp_path / "other.weights.h5")
    model, whole = make(), make()
    train(whole, digits, dsd.DSDSchedule(1, 2, 1))
    before = arrays(model)
    with pytest.raises(Exception):  # noqa: B017  whatever Keras raises
        model.load_weights(tmp_path / "other.weights.h5")
    assert same(arrays(model), before)
    train(model, digits, dsd.DSDSchedule(1, 2, 1))
    assert same(arrays(model), arrays(whole))


def test_a_sparse_phase_does_not_resume_with_weights_of_another_sparsity(make, digits, tmp_path):
    whole, again, keep = make(), make(), Keep()
    train(whole, digits, keep, dsd.DSDSchedule(1, 2, 1))
    again.set_weights(keep.ends[1])
    other = [dsd.DensePhase(1), dsd.SparsePhase(2, sparsity=0.7), dsd.DensePhase(1, lr=0.1)]
    with pytest.raises(ValueError, match="was pruned at another sparsity. Nothing is changed"):
        train(again, digits, dsd.DSDSchedule(phases=other), first=2)
    assert same(arrays(again), keep.ends[1])
    train(again, digits, dsd.DSDSchedule(1, 2, 1), first=2)
    assert same(arrays(again), arrays(whole))


@contextlib.contextmanager
def limited(folder):
    """Lets no file of this process grow over 100 bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def filled(folder):
    """Fills the disk that `folder` is on."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        (folder / "filler").unlink()


@contextlib.contextmanager
def mounted(folder, *options):
    """Puts a separate file system into the folder."""
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("mounting a file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=30)


@pytest.fixture(params=["limited", pytest.param("filled", marks=SLOW)])
def disk(request, tmp_path):
    """Returns a folder, and what stands around a time in which nothing can be written there."""
    if request.param == "limited":
        yield tmp_path, limited
        return
    with mounted(tmp_path, "size=1m"):
        yield tmp_path, filled


def test_a_full_disk_leaves_the_record_complete_and_the_run_resumes(make, digits, disk):
    folder, full = disk
    whole, again, keep = make(), make(), Keep()
    train(whole, digits, Keep(), until(None), epochs=6)
    with contextlib.ExitStack() as stack:
        fill = callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, *_: epoch == 2 and stack.enter_context(full(folder))
        )
        schedule = until(folder / "run")
        with pytest.raises(OSError, match="Expected a writable file. Received: path=.*dsd_history"):
            train(again, digits, fill, keep, schedule, epochs=6)
    files = sorted(path.name for path in (folder / "run").iterdir())
    assert files == ["dsd_best_000000.npz", "dsd_best_000001.npz", "dsd_history.json"]
    assert len(json.loads((folder / "run" / "dsd_history.json").read_text())["history"]) == 2
    again.set_weights(keep.ends[1])
    train(again, digits, Keep(), schedule, first=2, epochs=6)
    assert same(arrays(again), arrays(whole)) and left_behind(again) == set()


def test_a_full_disk_stops_a_scan_which_resumes(make, disk):
    folder, full = disk
    model = make()
    before, counted = arrays(model), []

    def evaluate(model):
        counted.append(sum(int(np.count_nonzero(w.numpy() == 0)) for w in dsd.weights(model)))
        if len(counted) == 4:
            stack.enter_context(full(folder))
        return counted[-1]

    def scan(**options):
        return dsd.sensitivity(model, evaluate, [0.2, 0.4, 0.6], progress=False, **options)

    with contextlib.ExitStack() as stack, pytest.raises(OSError, match="Expected a writable file"):
        scan(path=folder / "scan.json")
    assert same(arrays(model), before) and len(counted) == 4
    assert [path.name for path in folder.iterdir()] == ["scan.json"]
    found = scan(path=folder / "scan.json")
    assert len(counted) == 4 + 4 and found == scan()


@SLOW
@pytest.mark.parametrize("kind", ["checkpoint", "backup"])
def test_what_keras_saves_to_a_full_disk(kind, make, digits, tmp_path):
    folder = tmp_path
    if kind == "checkpoint":
        name = str(folder / "{epoch}.weights.h5")
        save = callbacks.ModelCheckpoint(name, save_weights_only=True)
    else:
        options = {} if PATH == "tf_keras" else {"double_checkpoint": True}
        save = callbacks.BackupAndRestore(str(folder / "run"), delete_checkpoint=False, **options)
    whole, again, keep, schedule = make(), make(), Keep(), dsd.DSDSchedule(1, 2, 1)
    train(whole, digits, schedule)
    with mounted(folder, "size=1m"):
        with contextlib.ExitStack() as stack:
            fill = callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, *_: epoch == 1 and stack.enter_context(filled(folder))
            )
            with pytest.raises(Exception):  # noqa: B017  whatever Keras raises
                train(again, digits, schedule, keep, fill, save)
            assert same(arrays(again), keep.ends[1])
        again = make()
        if kind == "checkpoint":
            again.load_weights(folder / "1.weights.h5")
            train(again, digits, schedule, first=1)
        else:
            train(again, digits, schedule, save)
        assert same(arrays(again), arrays(whole)) and left_behind(again) == set()


def test_other_than_a_folder_is_refused_before_training(make, digits, tmp_path):
    model = make()
    before = arrays(model)
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="`backup_dir` to be a writable folder"):
            train(model, digits, Keep(), until(folder), epochs=6)
        with pytest.raises(ValueError, match="`path` to be a file in a folder that exists"):
            dsd.sensitivity(model, pytest.fail, path=folder / "scan.json")
    assert same(arrays(model), before) and left_behind(model) == set()


def test_a_folder_that_is_read_only_is_refused_before_training(make, digits, tmp_path):
    model = make()
    before = arrays(model)
    with mounted(tmp_path, "ro"):
        for folder in (tmp_path, tmp_path / "run"):
            with pytest.raises(ValueError, match="writable folder.*Received: backup"):
                train(model, digits, Keep(), until(folder), epochs=6)
        with pytest.raises(OSError, match="Expected a writable file. Received: path="):
            dsd.sensitivity(model, lambda model: 0.0, path=tmp_path / "a.json", progress=False)
    assert same(arrays(model), before)
