"""`in_last_phase`: which hooks a callback sees, in which epochs."""

import pickle

import pytest

import keras_dsd as dsd
from keras_dsd.callback import Hooks, InLastPhase


class Seen(Hooks):
    """Notes the hooks that reach it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, logs=None):
        self.seen.append("train begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(f"begin {epoch}")

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(f"in {batch}")

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(f"batch {batch}")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(f"end {epoch}: {logs}")

    def on_train_end(self, logs=None):
        self.seen.append("train end")


def run(model, callbacks, epochs, first=0, log=None):
    """Calls the hooks of callbacks in their order, as `fit` does."""
    for each in callbacks:
        each.set_model(model)
        each.set_params({"epochs": epochs})
    for each in callbacks:
        each.on_train_begin({})
    for epoch in range(first, epochs):
        for each in callbacks:
            each.on_epoch_begin(epoch, {})
        for each in callbacks:
            each.on_train_batch_begin(0, {})
        model.train_function()
        for each in callbacks:
            each.on_train_batch_end(0, {})
        logs = {} if log is None else {"loss": log[epoch]}
        for each in callbacks:
            each.on_epoch_end(epoch, logs)
    for each in callbacks:
        each.on_train_end({})


def hooks_of(*epochs):
    seen = [name for e in epochs for name in (f"begin {e}", "in 0", "batch 0", f"end {e}")]
    return ["train begin", *seen, "train end"]


def names(seen):
    return [each.partition(":")[0] for each in seen]


def test_a_callback_sees_the_epochs_of_the_last_phase_alone(model):
    schedule, seen = dsd.DSDSchedule(2, 1, 2), Seen()
    run(model, [schedule, schedule.in_last_phase(seen)], 6)
    assert names(seen.seen) == hooks_of(3, 4, 5) and seen.model is model
    assert "dsd_phase" in seen.seen[4] and seen.params == {"epochs": 6}
    again = Seen()
    run(model, [schedule, schedule.in_last_phase(again)], 6)  # a second fit starts with phase one
    assert again.seen == seen.seen


def test_it_is_the_last_one_of_a_timeline_however_phases_end(model):
    until = dsd.Plateau("loss", patience=1)
    phases = [dsd.DensePhase(5, until=until), dsd.SparsePhase(1), dsd.DensePhase(1),
              dsd.SparsePhase(1), dsd.DensePhase(1)]  # fmt: skip
    schedule, seen = dsd.DSDSchedule(phases=phases), Seen()
    run(model, [schedule, schedule.in_last_phase(seen)], 6, log=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert names(seen.seen) == hooks_of(5)


@pytest.mark.filterwarnings("ignore:Training ended")
@pytest.mark.parametrize("first", [2, 3, 4])
def test_a_run_that_resumes_sees_the_rest_of_the_last_phase(first, model):
    run(model, [dsd.DSDSchedule(1, 1, 3)], first)
    schedule, seen = dsd.DSDSchedule(1, 1, 3), Seen()
    run(model, [schedule, schedule.in_last_phase(seen)], 5, first=first)
    assert names(seen.seen) == hooks_of(*range(first, 5))


def test_before_the_schedule_in_the_list_it_sees_the_same_epochs(model):
    schedule, seen = dsd.DSDSchedule(1, 1, 2), Seen()
    run(model, [schedule.in_last_phase(seen), schedule], 4)
    # The phase starts after it was asked, so the start of that epoch comes with its first batch.
    assert names(seen.seen) == hooks_of(2, 3)


def test_of_an_epoch_in_which_the_last_phase_starts_it_sees_the_rest():
    seen, is_reached = Seen(), False
    found = InLastPhase(seen, lambda: is_reached)
    found.on_epoch_begin(3, {})
    found.on_train_batch_begin(0)
    found.on_train_batch_end(0)
    is_reached = True
    found.on_train_batch_end(1)
    found.on_epoch_end(3, {"loss": 1})
    found.on_epoch_begin(4)
    assert seen.seen == ["begin 3", "batch 1", "end 3: {'loss': 1}", "begin 4"]


def test_all_else_is_that_of_the_callback():
    schedule, seen = dsd.DSDSchedule(1, 1, 2), Seen()
    seen.best = 3
    found = schedule.in_last_phase(seen)
    assert found.best == 3 and found._supports_tf_logs is True
    assert found._implements_train_batch_hooks() is False
    assert not hasattr(found, "_chief_worker_only")
    assert pickle.loads(pickle.dumps(found)).best == 3


def test_best_weights_and_averages_of_the_last_phase_are_refused():
    phases = [dsd.DensePhase(1), dsd.SparsePhase(1), dsd.DensePhase(2, ema=0.9)]
    schedule, stop = dsd.DSDSchedule(phases=phases), Seen()
    assert schedule.in_last_phase(stop).seen == []
    stop.restore_best_weights = True
    with pytest.raises(ValueError, match=r"has ema=0.9.*Seen\(restore_best_weights=True\)"):
        schedule.in_last_phase(stop)
    assert dsd.DSDSchedule(1, 1, 2).in_last_phase(stop).seen == []


@pytest.mark.parametrize("given", [None, "best.keras", dsd.DSDSchedule(1, 1, 1), Seen, [Seen()]])
def test_other_than_a_callback_is_refused(given):
    with pytest.raises(TypeError, match="Expected `callback` to be a Keras callback. Received"):
        dsd.DSDSchedule(1, 1, 1).in_last_phase(given)
