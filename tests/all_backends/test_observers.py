"""What observers are told of a run, and that it is what happens, on every path."""

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.engine.observers import Observer
from tests.helpers.paths import classifier, compiled

pytestmark = pytest.mark.once_per_keras

DENSE, SPARSE = dsd.DensePhase(1), dsd.SparsePhase(1)


class Seen(Observer):
    """Notes what it is told."""

    def __init__(self):
        self.calls, self.values, self.masks = [], {}, {}

    def on_begin(self, timeline):
        self.calls.append(("begin", len(timeline.phases)))

    def on_phase(self, index, phase, epoch, changed):
        self.calls.append(("phase", index, epoch, changed.partition(";")[0].partition(",")[0]))

    def on_moment(self, moment, weights):
        self.calls.append((moment.name, moment.epoch, moment.phase))
        self.values[moment.name] = [weight.numpy() for weight in weights]
        self.masks[moment.name] = [weight.mask for weight in weights]

    def on_epoch_end(self, epoch, logs, weights):
        self.calls.append(("epoch", epoch, logs["dsd_phase"], "loss" in logs, len(weights)))

    def on_end(self):
        self.calls.append(("end",))


@pytest.fixture
def run(digits):
    def fit(phases, epochs=None, initial_epoch=0, model=None):
        seen = Seen()
        schedule = dsd.DSDSchedule(phases=phases, observers=[seen])
        model = model or compiled(dsd.apply(classifier()), "adam")
        epochs = epochs or schedule.timeline.epochs
        model.fit(*digits, epochs=epochs, initial_epoch=initial_epoch, verbose=0,
                  callbacks=[schedule])  # fmt: skip
        return seen, model

    return fit


def test_a_run_tells_of_all_that_happens(run):
    seen, _ = run([DENSE, SPARSE, dsd.DensePhase(2)])
    assert seen.calls == [
        ("begin", 3),
        ("phase", 0, 0, "all weights train"),
        ("epoch", 0, 0, True, 2),
        ("before pruning", 1, 1),
        ("after pruning", 1, 1),
        ("phase", 1, 1, "pruned 355 of 1"),
        ("epoch", 1, 1, True, 2),
        ("end of sparse", 2, 1),
        ("phase", 2, 2, "355 weights return from zero"),
        ("first re-dense epoch", 3, 2),
        ("epoch", 2, 2, True, 2),
        ("epoch", 3, 2, True, 2),
        ("last re-dense epoch", 4, 2),
        ("end",),
    ]


def test_weights_are_shown_as_they_are_at_each_moment(run):
    seen, model = run([DENSE, SPARSE, DENSE])
    before, after, sparse = (
        seen.values[name] for name in ("before pruning", "after pruning", "end of sparse")
    )
    masks = seen.masks["after pruning"]
    assert seen.masks["before pruning"] == [None, None]
    for was, now, late, mask, same in zip(
        before, after, sparse, masks, seen.masks["end of sparse"], strict=True
    ):
        assert np.all(was != 0)
        assert np.array_equal(now, was * mask)
        assert np.array_equal(mask, same)
        assert not late[~mask].any()
        assert (late != now)[mask].any()
    last = [weight.numpy() for weight in dsd.weights(model)]
    assert all(map(np.array_equal, seen.values["last re-dense epoch"], last))


def test_repeated_phases_tell_of_each_boundary(run):
    seen, _ = run([SPARSE, DENSE, SPARSE, DENSE])
    moments = [call for call in seen.calls if " " in call[0]]
    assert moments == [
        ("before pruning", 0, 0),
        ("after pruning", 0, 0),
        ("end of sparse", 1, 0),
        ("first re-dense epoch", 2, 1),
        ("last re-dense epoch", 2, 1),
        ("before pruning", 2, 2),
        ("after pruning", 2, 2),
        ("end of sparse", 3, 2),
        ("first re-dense epoch", 4, 3),
        ("last re-dense epoch", 4, 3),
    ]


def test_a_run_that_goes_on_tells_of_what_it_comes_to(run):
    phases = [DENSE, dsd.SparsePhase(2), DENSE]
    with pytest.warns(UserWarning, match="ended with pruned weights"):
        model = run(phases[:2])[1]
    seen, _ = run(phases, initial_epoch=2, model=model)
    moments = [call for call in seen.calls if " " in call[0]]
    assert [name for name, *_ in moments] == [
        "end of sparse", "first re-dense epoch", "last re-dense epoch",
    ]  # fmt: skip


def test_a_run_that_goes_on_within_a_phase_tells_of_no_beginning(run):
    phases = [SPARSE, dsd.DensePhase(2)]
    model = run(phases, epochs=3)[1]
    seen, _ = run(phases, initial_epoch=2, model=model)
    assert [name for name, *_ in seen.calls if " " in name] == ["last re-dense epoch"]


def test_a_loop_of_ones_own_tells_too(digits):
    model, seen = compiled(dsd.apply(classifier()), "adam"), Seen()
    schedule = dsd.DSDSchedule(1, 1, 1, observers=[seen])
    with dsd.DSDLoop(model, model.optimizer, schedule) as loop:
        for epoch in range(3):
            loop.begin_epoch(epoch)
            model.train_on_batch(*digits)
            loop.apply_masks()
            loop.end_epoch({"loss": 1.0})
    assert [call[0] for call in seen.calls if " " in call[0]] == [
        "before pruning", "after pruning", "end of sparse", "first re-dense epoch",
        "last re-dense epoch",
    ]  # fmt: skip


@pytest.mark.parametrize("bad", [Seen(), [Seen], "abc", 3, None])
def test_what_is_no_list_of_observers_is_refused(bad):
    with pytest.raises(TypeError, match=r"Expected .*observers.*Received: observers.*\."):
        dsd.DSDSchedule(1, 1, 1, observers=bad)


@pytest.mark.parametrize("make", [Seen, dsd.WeightHistory])
def test_an_observer_given_to_fit_says_where_it_belongs(make, digits):
    model = compiled(dsd.apply(classifier()), "adam")
    with pytest.raises(
        AttributeError, match=r"no callback: give it to DSDSchedule\(.*observers=\["
    ):
        model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), make()])
