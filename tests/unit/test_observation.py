"""Observations, and hooks into classes of frameworks: threads, nesting, exceptions."""

import threading

import pytest

from keras_dsd.adapters.base.factors import HostFactors
from keras_dsd.adapters.base.observation import (
    ClassHooks,
    Observation,
    current,
    observed_apply_gradients,
    scaled_rate,
)


class Base:
    """An optimizer: each update moves a variable by the learning rate."""

    rate = 0.5

    def apply_gradients(self, pairs):
        for gradient, variable in pairs:
            if gradient is not None:
                variable[0] -= self.read() * gradient

    def read(self):
        return self.rate


class Subclass(Base):
    def apply_gradients(self, pairs):
        super().apply_gradients(pairs)


class Around(Base):
    """Has another optimizer update, by a rate that it reads for it."""

    def __init__(self, inner):
        self.inner = inner

    def read(self):
        return self.inner.read()

    def apply_gradients(self, pairs):
        self.inner.apply_gradients(pairs)


class Scales(Around):
    """Scales the loss for another optimizer, which has the state."""


class Fails(Base):
    def apply_gradients(self, pairs):
        raise MemoryError


def _scaled(read):
    def scaled(self):
        return scaled_rate(self, lambda: read(self), lambda rate, factor: rate * factor)

    return scaled


@pytest.fixture
def hooks():
    return ClassHooks([Base], {"apply_gradients": observed_apply_gradients, "read": _scaled})


def members():
    return [vars(kind)[name] for kind in (Base, Subclass, Around, Fails)
            for name in ("apply_gradients", "read") if name in vars(kind)]  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_stays():
    before = members()
    yield
    assert members() == before and current() is None


@pytest.mark.parametrize("kind", [Base, Subclass])
def test_an_update_is_noted_and_its_rate_scaled(hooks, kind):
    observation, optimizer, moved, rest = Observation(HostFactors([0.1])), kind(), [1.0], [1.0]
    with hooks, observation.active():
        assert optimizer.read() == 0.5  # outside of an update
        optimizer.apply_gradients(iter([(1.0, moved), (None, rest)]))
    assert moved == [1 - 0.05] and optimizer.rate == 0.5
    assert observation.optimizers == observation.updating_optimizers == [optimizer]
    assert observation.has_updated(moved) and not observation.has_updated(rest)
    assert observation.scales(optimizer)
    observation.forget()
    assert observation.optimizers == [] and not observation.has_updated(moved)


def test_an_optimizer_in_another_is_scaled_once(hooks):
    observation, moved = Observation(HostFactors([0.1])), [1.0]
    inner = Base()
    outer = Around(inner)
    with hooks, observation.active():
        outer.apply_gradients([(1.0, moved)])
    assert moved == [1 - 0.05]
    assert observation.optimizers == [inner, outer]
    assert observation.updating_optimizers == [inner]


def test_what_scales_the_loss_is_known_by_its_class(hooks):
    observation, inner, moved = (
        Observation(HostFactors([0.1]), loss_scales=(Scales,)),
        Base(),
        [1.0],
    )
    looks_ahead = Around(inner)
    looks_ahead.inner_optimizer = inner
    with hooks, observation.active():
        Scales(inner).apply_gradients([(1.0, moved)])
        looks_ahead.apply_gradients([(1.0, moved)])
    assert observation.optimizers == [inner, looks_ahead]


class Schedules(Base):
    """Makes its own learning rate as each update starts."""

    def apply_gradients(self, pairs):
        self.rate *= 2
        super().apply_gradients(pairs)


def test_a_rate_is_scaled_once_for_each_update_and_graph():
    """Keras reads it for each variable; another update, graph or optimizer has its own."""
    graphs, products = [object(), object()], []

    def scaled(read):
        def multiply(rate, factor):
            products.append(rate)
            return rate * factor

        return lambda self: scaled_rate(self, lambda: read(self), multiply, self.graph)

    hooks = ClassHooks([Base], {"apply_gradients": observed_apply_gradients, "read": scaled})
    observation, moved = Observation(HostFactors([0.1])), [0.0]
    one, other = Schedules(), Schedules()
    one.graph, other.graph = graphs[0], None
    with hooks, observation.active():
        for each in (one, one, other):
            each.apply_gradients([(1.0, moved), (1.0, moved)])
        one.graph = graphs[1]
        assert one.read() == 2.0  # outside of an update
        one.apply_gradients([(1.0, moved)])
    assert products == [1.0, 2.0, 1.0, 1.0, 4.0]
    assert moved == [pytest.approx(-2 * (0.1 + 0.2 + 0.1) - 0.4)]


def test_others_are_passed_on(hooks):
    observation, ours, theirs, moved = (
        Observation(HostFactors([0.1]), only=[]),
        Base(),
        Base(),
        [1.0],
    )
    given = Observation(HostFactors([0.1]), only=[ours])
    with hooks:
        theirs.apply_gradients([(1.0, moved)])  # in no observed step
        with observation.active():
            theirs.apply_gradients([(1.0, moved)])
        with given.active():
            ours.apply_gradients([(1.0, moved)])
    assert moved == [1 - 0.5 - 0.5 - 0.05]
    assert given.optimizers == [ours] and not observation.optimizers


def test_what_follows_an_exception(hooks):
    observation, moved, seen = Observation(HostFactors([0.1])), [1.0], []

    class Note:
        def before(self, optimizer):
            seen.append("before")

        def after(self, optimizer, is_outermost):
            seen.append(is_outermost)

        def finish(self):
            seen.append("finish")

    with pytest.raises(MemoryError), hooks, observation.active(Note()):
        Around(Fails()).apply_gradients([(1.0, moved)])
    assert seen == ["before", "before", "finish"] and not observation.optimizers
    with hooks, observation.active(Note()):
        Around(Base()).apply_gradients([(1.0, moved)])
    assert seen[3:] == ["before", "before", False, True, "finish"]
    assert moved == [1 - 0.05]


def test_hooks_are_counted(hooks):
    before = members()
    with hooks:
        during = members()
        assert during != before
        with hooks:

            class Later(Base):
                """Made while the hooks stand: those of its base serve it."""

                def apply_gradients(self, pairs):
                    super().apply_gradients(pairs)

            with hooks:
                assert vars(Later)["apply_gradients"].__name__ == "observed"
        assert members() == during
    assert members() == before and vars(Later)["apply_gradients"].__name__ == "apply_gradients"


def test_what_others_put_in_place_meanwhile_stays(hooks):
    original = vars(Base)["read"]
    with hooks:
        Base.read = theirs = lambda self: 7.0
        with hooks:
            assert vars(Base)["read"] is not theirs  # hooked as well
    assert vars(Base)["read"] is theirs
    Base.read = original


def test_threads_are_observed_apart(hooks):
    """Each step has its own observation, and the last one to end takes the hooks away."""
    both_within, results = threading.Barrier(2, timeout=30), {}

    def train(factor, delay):
        observation, optimizer, moved = Observation(HostFactors([factor])), Base(), [1.0]
        with hooks, observation.active():
            both_within.wait()
            optimizer.apply_gradients([(1.0, moved)])
        delay.wait(30)
        results[factor] = moved, observation.optimizers == [optimizer]

    done = threading.Event()
    threads = [threading.Thread(target=train, args=(f, done)) for f in (0.1, 0.5)]
    for each in threads:
        each.start()
    done.set()
    for each in threads:
        each.join()
    assert results == {0.1: ([1 - 0.05], True), 0.5: ([1 - 0.25], True)}


def test_a_replicas_thread_works_for_the_model_of_its_strategy(hooks):
    strategy, moved = object(), [1.0]
    observation = Observation(HostFactors([0.1]), strategy)

    def update():
        threading.current_thread().distribution = strategy
        Base().apply_gradients([(1.0, moved)])

    with hooks, observation.active():
        replica = threading.Thread(target=update)
        replica.start()
        replica.join()
    assert moved == [1 - 0.05] and len(observation.optimizers) == 1
