"""Files of DSDTensorBoard, read back, on every path."""

import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import keras_dsd as dsd
from keras_dsd.engine.observers import Observer
from tests.helpers import paths
from tests.helpers.paths import classifier, compiled, keras

pytestmark = pytest.mark.once_per_keras

PHASES = [dsd.DensePhase(1), dsd.SparsePhase(2), dsd.DensePhase(1, lr=0.1)]
MOMENTS = {
    "1 before pruning": 1,
    "2 after pruning": 1,
    "3 end of sparse": 3,
    "4 first re-dense epoch": 4,
    "5 last re-dense epoch": 4,
}
WEIGHTS = {"dense/kernel": 64 * 16, "dense_1/kernel": 16 * 10}


class Seen(Observer):
    """Keeps what a run shows, from the weights themselves."""

    def __init__(self):
        self.sparsity, self.values = [], {}

    def on_moment(self, moment, weights):
        for weight in weights:
            self.values[weight.short_path, moment.name] = weight.numpy()

    def on_epoch_end(self, epoch, logs, weights):
        del epoch, logs
        self.sparsity.append([np.mean(weight.numpy() == 0) for weight in weights])


def fit(digits, folder, phases=PHASES, model=None, further=(), **options):
    seen = Seen()
    model = model or compiled(dsd.apply(classifier()), "adam")
    schedule = dsd.DSDSchedule(phases=phases, observers=[dsd.DSDTensorBoard(folder), seen])
    options = {"epochs": schedule.timeline.epochs, "verbose": 0, **options}
    history = model.fit(*digits, callbacks=[schedule, *further], **options).history
    return model, history, seen


def read(folder):
    everything = {"scalars": 0, "tensors": 0, "images": 0, "histograms": 0}
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


def series(run, tag):
    """Returns what was written under a tag, as {step: array}."""
    events = run.Tensors(tag)
    values = {event.step: make_ndarray(event.tensor_proto) for event in events}
    assert len(values) == len(events)
    return values


@pytest.fixture(scope="module")
def written(digits, tmp_path_factory):
    paths.fresh()
    paths.seed(1)
    folder = tmp_path_factory.mktemp("logs")
    model, history, seen = fit(digits, folder, further=[keras.callbacks.TensorBoard(folder)])
    return folder, history, seen, model


def test_each_epoch_has_the_sparsity_of_each_weight_and_the_phase(written):
    folder, history, seen, _ = written
    run = read(folder / "dsd")
    assert series(run, "dsd_phase") == {0: 0, 1: 1, 2: 1, 3: 2}
    total = dict(enumerate(np.float32(history["dsd_sparsity"])))
    assert series(run, "dsd_sparsity") == total
    assert total[1] == np.float32(355 / 1184)
    for index, path in enumerate(WEIGHTS):
        measured = {epoch: np.float32(each[index]) for epoch, each in enumerate(seen.sparsity)}
        assert series(run, f"dsd_sparsity/{path}") == measured
        assert measured[2] == np.float32(round(0.3 * WEIGHTS[path]) / WEIGHTS[path])


def test_keras_writes_its_logs_at_the_same_steps_beside_it(written):
    folder, history, *_ = written
    of_keras, ours = read(folder / "train"), read(folder / "dsd")
    for name in ("dsd_phase", "dsd_sparsity"):
        assert series(of_keras, f"epoch_{name}") == series(ours, name)
    left = {epoch: np.float32(each) for epoch, each in enumerate(history["dsd_epochs_left"])}
    assert series(of_keras, "epoch_dsd_epochs_left") == left


def test_each_moment_has_a_histogram_of_the_magnitudes_of_each_weight(written):
    folder, _, seen, _ = written
    run = read(folder / "dsd")
    for path, size in WEIGHTS.items():
        for name, epoch in MOMENTS.items():
            found = series(run, f"dsd_magnitude/{path}/{name}")
            assert list(found) == [epoch]
            left, right, counts = found[epoch].T
            values = seen.values[path, name[2:]]
            assert counts.sum() == size == values.size
            assert left[0] == 0 and np.array_equal(left[1:], right[:-1])
            below, above = np.split(np.histogram(values, [*-right[::-1], 0, *right])[0], 2)
            assert np.array_equal(counts, below[::-1] + above)
            assert counts[-1] > 0


def test_each_phase_says_what_changed(written):
    folder, *_ = written
    found = series(read(folder / "dsd"), "dsd_phases/text")
    assert list(found) == [0, 1, 3]
    lines = {step: text.item().decode().splitlines() for step, text in found.items()}
    assert lines[1][:2] == ["**Phase 2 of 3**, from epoch 2: sparse for 2 epochs", ""]
    assert lines[1][2].startswith("30.0% sparsity (355 of 1,184 weights in 2 tensors), ")
    assert lines[3][2].endswith(", learning rate 0.0001")


def test_phases_are_drawn_in_their_colours_up_to_now(written):
    folder, *_ = written
    found = series(read(folder / "dsd"), "dsd_phases/spans")
    assert list(found) == [1, 3, 4]
    names = ("blue", "orange", "green")
    colours = [1 - 0.3 * (1 - np.array(to_rgb(f"tab:{name}"))) for name in names]
    for step, (width, height, png) in found.items():
        pixels = imread(io.BytesIO(png))[..., :3]
        assert pixels.shape[:2] == (int(height), int(width))
        dense, *others = (
            np.count_nonzero(np.any(np.all(abs(pixels - colour) < 0.01, axis=2), axis=0))
            for colour in colours
        )
        shares = {1: (0, 0), 3: (2, 0), 4: (2, 1)}  # epochs sparse and re-dense for each one dense
        assert others == [pytest.approx(share * dense, rel=0.05) for share in shares[step]]


def test_a_run_that_resumes_adds_to_the_folder(written, digits, tmp_path):
    folder, _, _, model = written
    shutil.copytree(folder / "dsd", tmp_path / "dsd")
    fit(digits, tmp_path, model=model, initial_epoch=4, epochs=5)
    run = read(tmp_path / "dsd")
    assert len(list((tmp_path / "dsd").iterdir())) == 2
    assert series(run, "dsd_phase") == {0: 0, 1: 1, 2: 1, 3: 2, 4: 2}
    last = series(run, "dsd_magnitude/dense/kernel/5 last re-dense epoch")
    assert list(last) == [4, 5]
    assert list(series(run, "dsd_phases/text")) == [0, 1, 3, 4]


class Fails(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise RuntimeError("stopped on purpose")


def test_what_was_written_stands_when_fit_fails(digits, tmp_path):
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(digits, tmp_path, further=[Fails()])
    run = read(tmp_path / "dsd")
    assert series(run, "dsd_phase") == {0: 0, 1: 1}
    assert list(series(run, "dsd_phases/spans")) == [1]


def unscaled(board):
    """Returns a schedule of a sparse and a dense epoch at the same learning rate."""
    return dsd.DSDSchedule(0, 1, 1, redense_lr=1.0, observers=[board])


def run_loop(model, schedule, values):
    """Sets both weights to values, an epoch after the other, and trains nothing."""
    with dsd.DSDLoop(model, model.optimizer, schedule) as loop:
        for epoch, both in enumerate(values):
            loop.begin_epoch(epoch)
            loop.apply_masks()
            for weight, value in zip(dsd.weights(model), both, strict=True):
                weight.assign(np.broadcast_to(value, weight.shape))
            loop.end_epoch()


def test_a_loop_of_ones_own_writes_too_whatever_the_weights_are(tmp_path):
    model = compiled(dsd.apply(classifier()), "adam")
    schedule = unscaled(dsd.DSDTensorBoard(str(tmp_path)))
    spoilt = np.array([np.nan, np.inf, *[-2.0] * 14])
    # What a mask keeps may be zero by itself, and is not pruned then.
    run_loop(model, schedule, [(0.0, 0.0), (spoilt, 1e-45)])
    run = read(tmp_path / "dsd")
    assert series(run, "dsd_phase") == {0: 0, 1: 1}
    for path, size in WEIGHTS.items():
        pruned = np.float32(round(0.3 * size) / size)
        assert series(run, f"dsd_sparsity/{path}") == {0: pruned, 1: 0}
    last = {
        path: series(run, f"dsd_magnitude/{path}/5 last re-dense epoch")[2].T for path in WEIGHTS
    }
    finite = last["dense/kernel"]
    assert (finite[1][-1], finite[2][-1], finite[2].sum()) == (2, 14 * 64, 14 * 64)
    assert last["dense_1/kernel"][2].sum() == 160


def test_one_serves_several_runs(tmp_path):
    model = compiled(dsd.apply(classifier()), "adam")
    schedule = unscaled(dsd.DSDTensorBoard(tmp_path))
    for _ in range(2):
        run_loop(model, schedule, [(0.0, 0.0), (1.0, 1.0)])
    assert len(list((tmp_path / "dsd").iterdir())) == 2
    drawn = read(tmp_path / "dsd").Tensors("dsd_phases/spans")
    assert [each.step for each in drawn] == [1, 2, 1, 2]


def test_a_folder_that_can_not_be_is_refused_before_training(digits, tmp_path):
    (tmp_path / "dsd").write_text("a file")
    model = compiled(dsd.apply(classifier()), "adam")
    before = paths.arrays(model)
    with pytest.raises(
        ValueError, match=r"Expected `log_dir` to be a writable folder.*Received.*dsd"
    ):
        fit(digits, tmp_path, model=model)
    assert all(map(np.array_equal, before, paths.arrays(model)))
    assert not paths.left_behind(model)


def test_a_missing_folder_is_reported(tmp_path):
    board = dsd.DSDTensorBoard(tmp_path)
    timeline = dsd.DSDSchedule(1, 1, 1).timeline
    board.on_begin(timeline)
    shutil.rmtree(tmp_path / "dsd")
    with pytest.raises(
        OSError, match=r"Expected a writable .*Received: path=.*tfevents.* Free disk space"
    ):
        board.on_phase(0, timeline.phases[0], 0, "all weights train")


@pytest.mark.parametrize("bad", [None, 3, ["logs"]])
def test_other_than_a_path_is_refused(bad):
    with pytest.raises(TypeError, match=r"Expected `log_dir` to be the path.*Received: log_dir="):
        dsd.DSDTensorBoard(bad)


@pytest.mark.parametrize("missing", ["tensorboard", "matplotlib"])
def test_a_missing_package_is_reported(missing, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"Expected {missing}.*pip install"):
        dsd.DSDTensorBoard("logs")


def test_it_imports_no_tensorflow(tmp_path):
    code = (
        "import sys, numpy as np, keras_dsd as dsd\n"
        "from keras_dsd.engine.observers import Moment\n"
        "board = dsd.DSDTensorBoard(sys.argv[1])\n"
        "schedule = dsd.DSDSchedule(1, 1, 1, observers=[board])\n"
        "from tests.helpers.ranked_weight import RankedWeight\n"
        "weight = RankedWeight(np.ones(2), None)\n"
        "board.on_begin(schedule.timeline)\n"
        "board.on_phase(0, schedule.timeline.phases[0], 0, 'all weights train')\n"
        "board.on_moment(Moment('before pruning', 0, 0), [weight])\n"
        "board.on_epoch_end(0, {'dsd_phase': 0, 'dsd_sparsity': 0.0}, [weight])\n"
        "board.on_end()\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env={**os.environ},
                          capture_output=True, text=True, check=True)  # fmt: skip
    loaded = set(done.stdout.split())
    assert {"tensorboard", "matplotlib"} <= loaded
    assert not loaded & {"tensorflow", "keras", "tf_keras", "jax", "torch"}
    assert read(tmp_path / "dsd").Tags()["tensors"]
