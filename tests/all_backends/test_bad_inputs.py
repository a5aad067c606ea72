"""Bad arguments on every path: refused clearly, and the model is as it was."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_dsd as dsd
from tests.helpers.paths import classifier, compiled, keras, left_behind, name_of, rate
from tests.helpers.strange import is_refused, values

pytestmark = pytest.mark.once_per_keras

SCHEDULE = dsd.DSDSchedule(phases=[dsd.DensePhase(1, until=dsd.Plateau("loss"))])


def state(model):
    """Returns all that a refused call has to leave as it was."""
    weights = [(name_of(weight), np.array(weight).tobytes()) for weight in model.weights]
    optimizer = model.optimizer
    slots = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    return {
        "weights": weights,
        "layers": [(id(layer), layer.name, layer.trainable) for layer in model.layers],
        "config": json.dumps(model.get_config(), default=str),
        "optimizer": (id(optimizer), [np.array(slot).tobytes() for slot in slots]),
        "compiled": json.dumps(model.get_compile_config(), default=str),
        "rate": rate(model),
        "left behind": left_behind(model),
        "attributes": {*vars(model)},
    }


@pytest.fixture(scope="module")
def plain():
    model = compiled(classifier(), metrics=None)
    model.train_on_batch(np.zeros((2, 8, 8, 1), "float32"), np.zeros(2))
    return model


@pytest.fixture(scope="module")
def applied():
    model = dsd.apply(compiled(classifier(), metrics=None), 0.5)
    model.train_on_batch(np.zeros((2, 8, 8, 1), "float32"), np.zeros(2))
    return model


def try_apply(model, data):
    name = data.draw(st.sampled_from(["sparsity", "exclude", "pattern", "scope"]))
    value = data.draw(values())
    before, made = state(model), []
    if not is_refused(lambda: made.append(dsd.apply(model, **{name: value}))):
        assert is_refused(lambda: dsd.apply(made[0]))  # it went through already
        dsd.report(made[0]).render()
        dsd.strip(made[0])
    assert state(model) == before


def try_functions(model, data):
    value = data.draw(values())
    calls = {
        "apply": lambda: dsd.apply(value), "strip": lambda: dsd.strip(value),
        "weights": lambda: dsd.weights(value), "report": lambda: dsd.report(value),
        "sensitivity": lambda: dsd.sensitivity(value, lambda model: 0.0),
        "DSDLoop": lambda: dsd.DSDLoop(value, model.optimizer, SCHEDULE),
        "its optimizer": lambda: dsd.DSDLoop(model, value, SCHEDULE),
        "its schedule": lambda: dsd.DSDLoop(model, model.optimizer, value),
    }  # fmt: skip
    name = data.draw(st.sampled_from([*calls]))
    before = state(model)
    assert is_refused(calls[name])
    assert state(model) == before


def try_sensitivity(model, data):
    good = {"evaluate": lambda model: 0.0, "levels": [0.5], "mode": "min", "path": None}
    name = data.draw(st.sampled_from([*good, "progress", "result", "max_drop", "overall"]))
    value = data.draw(values())
    good["progress"] = False
    if name in ("max_drop", "overall"):
        scan = dsd.sensitivity(model, **good)
        is_refused(lambda: scan.recommend(**{name: value}))
        return
    change = {"evaluate": lambda model: value} if name == "result" else {name: value}
    if name == "evaluate" and callable(value):
        return  # what it raises is its own
    before = state(model)
    is_refused(lambda: dsd.sensitivity(model, **{**good, **change}))
    assert state(model) == before


def try_loop(model, data):
    loop = dsd.DSDLoop(model, model.optimizer, SCHEDULE)
    value = data.draw(values())
    before = state(model)
    assert is_refused(lambda: loop.end_epoch({}))
    if is_refused(lambda: loop.begin_epoch(value)):
        loop.begin_epoch(0)
    is_refused(lambda: loop.masks(value))
    is_refused(lambda: loop.end_epoch(value))
    is_refused(lambda: loop.end_epoch({"loss": value}))
    loop.end()
    assert state(model) == before


def try_hooks(model, data):
    schedule, value = dsd.DSDSchedule(phases=SCHEDULE.timeline.phases), data.draw(values())
    before = state(model)
    schedule.set_model(value)
    assert is_refused(schedule.on_train_begin)
    assert is_refused(lambda: schedule.on_epoch_begin(0))
    schedule.set_model(model)
    schedule.on_train_begin()
    is_refused(lambda: schedule.on_epoch_begin(value))
    schedule.on_epoch_begin(0)
    is_refused(lambda: schedule.on_epoch_end(0, value))
    is_refused(lambda: schedule.on_epoch_end(0, {"loss": value}))
    schedule.on_train_end()
    assert state(model) == before


FEW = settings(deadline=None, suppress_health_check=list(HealthCheck))
TRIES = [try_functions, try_sensitivity, try_loop, try_hooks]


@settings(FEW, max_examples=50)
@given(data=st.data())
def test_whatever_apply_is_given_it_works_or_changes_nothing(plain, data):
    try_apply(plain, data)


@pytest.mark.parametrize("try_one", TRIES)
@settings(FEW, max_examples=50)
@given(data=st.data())
def test_whatever_is_given_the_model_is_as_it_was(applied, tmp_path, monkeypatch, try_one, data):
    monkeypatch.chdir(tmp_path)  # some of it is the name of a file
    try_one(applied, data)


@pytest.mark.slow
@pytest.mark.exhaustive
@settings(FEW, max_examples=1500)
@given(data=st.data())
def test_whatever_apply_is_given_it_works_or_changes_nothing_at_length(plain, data):
    try_apply(plain, data)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("try_one", TRIES)
@settings(FEW, max_examples=1000)
@given(data=st.data())
def test_whatever_is_given_at_length(applied, tmp_path, monkeypatch, try_one, data):
    monkeypatch.chdir(tmp_path)
    try_one(applied, data)


def test_what_a_function_of_the_users_raises_comes_out_as_it_is(plain, applied):
    def fails(_):
        raise LookupError("mine")

    for model, call in [
        (plain, lambda: dsd.apply(plain, sparsity=fails)),
        (applied, lambda: dsd.sensitivity(applied, fails, progress=False)),
    ]:
        before = state(model)
        with pytest.raises(LookupError, match="mine"):
            call()
        assert state(model) == before


class HalfMade(keras.Model):
    def __init__(self):
        pass


@pytest.mark.parametrize("call", [dsd.apply, dsd.strip, dsd.weights, dsd.report])
def test_a_model_whose_constructor_did_not_run_is_refused(call):
    model = HalfMade.__new__(HalfMade)
    with pytest.raises((TypeError, ValueError), match="Expected.*Received"):
        call(model)
    with pytest.raises((TypeError, ValueError), match="Expected.*Received"):
        call(HalfMade)  # the class, not a model
