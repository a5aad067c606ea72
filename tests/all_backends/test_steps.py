"""Phases counted in steps, in real fits: within epochs, executions and streams, and resumed."""

import itertools

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import paths, restarted, steps
from tests.helpers.host_reads import HostReads
from tests.helpers.paths import PATH, Watch, keras

D, S = dsd.DensePhase, dsd.SparsePhase


def is_masked(model):
    return any(weight.mask is not None for weight in dsd.weights(model))


def zeros_hold(model):
    """Returns whether masks are active; asserts that weights are zero where these prune them."""
    found = dsd.weights(model)
    for weight in found:
        assert weight.mask is None or not weight.numpy()[~weight.mask].any()
    return found[0].mask is not None


@pytest.mark.slow
def test_a_phase_starts_within_an_epoch_and_the_first_one_is_plain(compiled, mlp, digits):
    """Bit for bit, with the optimizer's state: what is left on the model is that of its phase."""

    def train(model, *callbacks):
        paths.seed(1)
        watch = Watch(lambda model: [np.array(each) for each in (
            *model.get_weights(), *paths.optimizer_arrays(model))])  # fmt: skip
        compiled(model, keras.optimizers.SGD(0.01, momentum=0.9))
        history = model.fit(*digits, epochs=2, verbose=0, callbacks=[*callbacks, watch])
        return watch.seen, history.history

    paths.seed(1)
    plain, _ = train(mlp())
    paths.seed(1)
    paths.fresh()
    masks = Watch(zeros_hold)
    schedule = dsd.DSDSchedule(phases=[D(steps=3), S(steps=9), D(1)])
    seen, logs = train(dsd.apply(mlp(), 0.5), schedule, masks)
    for ours, theirs in zip(seen[:3], plain[:3], strict=True):
        assert all(map(np.array_equal, ours, theirs))
    assert masks.seen == [False] * 3 + [True] * 9 + [False] * 8
    assert logs["dsd_phase"] == [1, 2] and logs["dsd_steps"] == [10, 20]
    assert logs["dsd_sparsity"][0] == pytest.approx(0.5, abs=0.01)
    assert logs["dsd_sparsity"][1] < 0.2  # but for pixels that are always black


@pytest.mark.slow
def test_nothing_is_read_at_most_batches(compiled, mlp, digits, monkeypatch):
    """A read waits for the device: the count is read after the first batch, and at phases."""
    begin, reads, sizes = dsd.DSDSchedule.on_train_batch_begin, HostReads(), []

    def noted(schedule, *args, **kwargs):
        with reads.noting(monkeypatch):
            begin(schedule, *args, **kwargs)
        sizes.append([*reads.sizes])
        reads.sizes.clear()

    monkeypatch.setattr(dsd.DSDSchedule, "on_train_batch_begin", noted)
    schedule = dsd.DSDSchedule(phases=[D(steps=4), S(steps=11), D(1)])
    model = compiled(dsd.apply(mlp(), 0.5))
    model.fit(*digits, epochs=2, verbose=0, callbacks=[schedule])
    assert [batch for batch, each in enumerate(sizes) if each] == [1, 4, 15]
    assert [*map(len, sizes)][1] <= 2


@pytest.mark.only_on("tf_keras", "jax", "tensorflow")
def test_executions_of_several_batches(compiled, mlp, digits):
    model = compiled(dsd.apply(mlp(), 0.5), steps_per_execution=4)
    masks = Watch(zeros_hold)
    phases = [D(steps=4), S(steps=8), D(1)]
    history = model.fit(*digits, epochs=2, verbose=0,
                        callbacks=[dsd.DSDSchedule(phases=phases), masks]).history  # fmt: skip
    # Executions of 4, 4 and 2 batches: the phase of 8 steps ends with the first of the next epoch.
    assert masks.seen == [False, True, True, True, False, False]
    assert history["dsd_phase"] == [1, 2] and history["dsd_steps"] == [10, 20]


@pytest.mark.only_on("jax", "tensorflow", "torch")
def test_accumulated_gradients(compiled, mlp, digits):
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=3)
    model, masks = compiled(dsd.apply(mlp(), 0.5), optimizer), Watch(zeros_hold)
    schedule = dsd.DSDSchedule(phases=[D(steps=1), S(steps=2), D(1)])
    batches = {"batch_size": 26, "verbose": 0}  # thirteen
    history = model.fit(*digits, **batches, callbacks=[schedule, masks]).history
    assert masks.seen == [False] * 3 + [True] * 6 + [False] * 4
    assert history["dsd_steps"] == [4]


def test_a_stream_that_does_not_end(compiled, mlp, digits):
    """The one epoch of fit ends with the last step of the last phase."""
    x, y = digits
    stream = ((x[i : i + 32], y[i : i + 32]) for i in itertools.cycle(range(0, 320, 32)))
    model, masks = compiled(dsd.apply(mlp(), 0.5)), Watch(is_masked)
    schedule = dsd.DSDSchedule(
        phases=[D(steps=2), S(steps=3), D(steps=2, lr=0.1)], remaining_epochs="stop"
    )
    history = model.fit(stream, shuffle=False, verbose=0, callbacks=[schedule, masks]).history
    assert masks.seen == [False] * 2 + [True] * 3 + [False] * 2
    assert history["dsd_phase"] == [2] and history["dsd_steps"] == [7]


@pytest.mark.slow
@pytest.mark.parametrize("at", [6, 9])
def test_from_a_checkpoint_within_the_only_epoch(at, compiled, digits, tmp_path):
    """ModelCheckpoint(save_freq=...) wrote it; the stream continues."""
    x, y = digits
    options = {"phases": [D(steps=6), S(steps=5), D(steps=5, lr=0.1)], "remaining_epochs": "stop"}

    def train(model, first, *callbacks):
        starts = itertools.islice(itertools.cycle(range(0, 320, 32)), first, None)
        stream = ((x[i : i + 32], y[i : i + 32]) for i in starts)
        schedule = dsd.DSDSchedule(**options)
        model.fit(stream, shuffle=False, verbose=0, callbacks=[schedule, *callbacks])
        return [*paths.arrays(model), *paths.optimizer_arrays(model)]

    model = compiled(dsd.apply(paths.classifier(), 0.5), keras.optimizers.Adam(0.01))
    save = keras.callbacks.ModelCheckpoint(str(tmp_path / "{batch}.keras"), save_freq=1)
    whole = train(model, 0, save)
    file = tmp_path / f"{at}.keras"
    loaded = keras.saving.load_model(file)
    loaded = loaded if PATH == "tf_keras" else dsd.apply(loaded, 0.5)
    with pytest.warns(UserWarning, match=f"has made {at} steps, so the run resumes after"):
        again = train(loaded, at)
    assert len(whole) == len(again) and all(map(np.array_equal, whole, again))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [
    31, *(pytest.param(batch, marks=pytest.mark.exhaustive) for batch in (16, 39)),
])  # fmt: skip
def test_a_run_that_was_killed_within_an_epoch_ends_as_if_it_had_not_been(batch, tmp_path):
    """From BackupAndRestore(save_freq=3). Keras 3 restarts the epoch, tf_keras continues it."""
    given = {"kind": "steps", "save_freq": 3, "last": True}
    killed = {"name": "killed", "backup": "run", "kill": ("on_train_batch_end", batch, 0), **given}
    again = {"name": "again", "backup": "run", **given}
    exits = restarted.train(tmp_path, {"name": "whole", **given}, killed, again)
    assert exits == {"whole": 0, "killed": -9, "again": 0}
    assert [*restarted.results(tmp_path, "whole")["phases"]] == [0, 1, 1, 2, 2, 2]
    restarted.check(tmp_path, "whole", "again", same_epochs=PATH == "tf_keras")


@pytest.mark.slow
def test_a_custom_training_loop(mlp, digits):
    """As fit does: masks and learning rates change within the epoch."""
    (x, y), phases = digits, [D(steps=3), S(steps=4), D(steps=3, lr=0.1)]
    paths.seed(1)
    model, optimizer = dsd.apply(mlp(), 0.5), keras.optimizers.SGD(0.01, momentum=0.9)
    seen = []
    with dsd.DSDLoop(model, optimizer, dsd.DSDSchedule(phases=phases)) as loop:
        train = steps.trainer(model, optimizer, loop)
        loop.begin_epoch(0)
        for start in range(0, 320, 32):
            loop.begin_step()
            train([(x[start : start + 32], y[start : start + 32])])
            seen.append(zeros_hold(model))
        logs = loop.end_epoch()
    assert seen == [False] * 3 + [True] * 4 + [False] * 3
    assert logs["dsd_phase"] == 2 and logs["dsd_steps"] == 10
    paths.seed(1)
    paths.fresh()
    fitted = paths.compiled(dsd.apply(mlp(), 0.5), keras.optimizers.SGD(0.01, momentum=0.9))
    fitted.fit(x, y, shuffle=False, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases)])
    for ours, theirs in zip(paths.arrays(model), paths.arrays(fitted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
