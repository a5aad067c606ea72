"""Notifications of observers match the run, on every path."""

import pytest

import keras_dsd as dsd
from keras_dsd.engine.observers import Observer
from tests.helpers.paths import classifier, compiled

pytestmark = pytest.mark.once_per_keras

DENSE, SPARSE = dsd.DensePhase(1), dsd.SparsePhase(1)


class Seen(Observer):
    """Keeps all that it is notified of."""

    def __init__(self):
        self.calls, self.values, self.masks = [], {}, {}

    def on_begin(self, timeline):
        self.calls.append(("begin", len(timeline.phases)))

    def on_phase(self, index, phase, epoch, changed):
        self.calls.append(("phase", index, epoch, changed.partition(", opt")[0]))

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
        ("phase", 0, 0, "all weights train, learning rate 0.001"),
        ("epoch", 0, 0, True, 2),
        ("before pruning", 1, 1),
        ("after pruning", 1, 1),
        ("phase", 1, 1, "30.0% sparsity (355 of 1,184 weights in 2 tensors)"),
        ("epoch", 1, 1, True, 2),
        ("end of sparse", 2, 1),
        ("phase", 2, 2, "355 weights regrow from zero"),
        ("first re-dense epoch", 3, 2),
        ("epoch", 2, 2, True, 2),
        ("epoch", 3, 2, True, 2),
        ("last re-dense epoch", 4, 2),
        ("end",),
    ]


@pytest.mark.parametrize("bad", [Seen(), [Seen], "abc", 3, None])
def test_other_than_a_list_of_observers_is_refused(bad):
    with pytest.raises(TypeError, match=r"Expected .*observers.*Received: observers.*\."):
        dsd.DSDSchedule(1, 1, 1, observers=bad)


@pytest.mark.parametrize("make", [Seen, dsd.WeightHistory])
def test_an_observer_given_to_fit_says_where_it_belongs(make, digits):
    model = compiled(dsd.apply(classifier()), "adam")
    with pytest.raises(
        AttributeError, match=r"not a callback: pass it to DSDSchedule\(.*observers=\["
    ):
        model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), make()])
