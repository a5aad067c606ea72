"""Comparisons of a model made of numbers: what is trained, refused, gone on with."""

import contextlib
import dataclasses
import functools
import json
import math
import operator
import os
import sys
import types

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.algorithm import presets
from keras_dsd.algorithm.learning_rates import factors
from keras_dsd.algorithm.masks import NotFiniteError
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.analysis.comparison import compare, dataset, paper, training
from keras_dsd.analysis.comparison.arms import (
    AVERAGED,
    FIRST,
    ITERATED,
    RANDOM,
    make_arms,
    make_paper_arms,
    num_shared,
    shared_start,
    starts_with,
)
from keras_dsd.analysis.comparison.paper import PaperComparison
from keras_dsd.analysis.comparison.result import Run

Dense, Sparse = dsd.DensePhase, dsd.SparsePhase
NAN = math.nan
DSD_PHASES = [Dense(2), Sparse(1), Dense(1, lr=0.1)]


@pytest.mark.parametrize(("phases", "expected", "shared"), [
    (presets.dsd(10, 5, 3), {
        "dense": [Dense(18)], "llr": [Dense(15), Dense(3, lr=0.1)],
        "llr at once": [Dense(10), Dense(8, lr=0.1)],
        "sparse": [Dense(10), Sparse(5), Sparse(3, lr=0.1)],
        "dsd": [Dense(10), Sparse(5), Dense(3, lr=0.1)],
    }, 10),
    (presets.dsd(0, 5, 3), {
        "dense": [Dense(8)], "llr": [Dense(5), Dense(3, lr=0.1)], "llr at once": [Dense(8, lr=0.1)],
        "sparse": [Sparse(5), Sparse(3, lr=0.1)], "dsd": [Sparse(5), Dense(3, lr=0.1)],
    }, 0),
    (presets.dsd(4, 5, 3, redense_lr=1.0), {
        "dense": [Dense(12)], "sparse": [Dense(4), Sparse(8)],
        "dsd": [Dense(4), Sparse(5), Dense(3)],
    }, 4),
    ([Dense(3), Dense(1, lr=0.5), Sparse(2, lr=0.5), Dense(1, lr=0.2), Sparse(2, lr=0.2),
      Dense(4, lr=0.1)], {
        "dense": [Dense(13)],
        "llr": [Dense(3), Dense(3, lr=0.5), Dense(3, lr=0.2), Dense(4, lr=0.1)],
        "llr at once": [Dense(3), Dense(1, lr=0.5), Dense(9, lr=0.1)],
        "sparse": [Dense(3), Dense(1, lr=0.5), Sparse(2, lr=0.5), Sparse(3, lr=0.2),
                   Sparse(4, lr=0.1)],
        "dsd": [Dense(3), Dense(1, lr=0.5), Sparse(2, lr=0.5), Dense(1, lr=0.2),
                Sparse(2, lr=0.2), Dense(4, lr=0.1)],
    }, 3),
    ([Dense(3), Sparse(2, lr=0.1), Dense(4, lr=0.1)], {
        "dense": [Dense(9)], "llr": [Dense(3), Dense(6, lr=0.1)],
        "sparse": [Dense(3), Sparse(6, lr=0.1)],
        "dsd": [Dense(3), Sparse(2, lr=0.1), Dense(4, lr=0.1)],
    }, 3),
    ([Dense(3), Sparse(2, lr=0.1), Dense(4)], {
        "dense": [Dense(9)], "llr": [Dense(3), Dense(2, lr=0.1), Dense(4)],
        "sparse": [Dense(3), Sparse(2, lr=0.1), Sparse(4)],
        "dsd": [Dense(3), Sparse(2, lr=0.1), Dense(4)],
    }, 3),
    (presets.dsd(0, 5, 3, redense_lr=1.0), {
        "dense": [Dense(8)], "sparse": [Sparse(8)], "dsd": [Sparse(5), Dense(3)],
    }, 0),
    ([Dense(1), Dense(2), Sparse(2, sparsity=0.5), Dense(1), Sparse(1, sparsity=0.2)], {
        "dense": [Dense(7)], "sparse": [Dense(3), Sparse(4, sparsity=0.5)],
        "dsd": [Dense(1), Dense(2), Sparse(2, sparsity=0.5), Dense(1), Sparse(1, sparsity=0.2)],
    }, 3),
    ([Dense(2, lr=0.5), Sparse(1)], {
        "dense": [Dense(3)], "llr": [Dense(2, lr=0.5), Dense(1)],
        "dsd": [Dense(2, lr=0.5), Sparse(1)],
    }, 0),
    ([Dense(2), Dense(2, lr=0.5), Sparse(1), Dense(1)], {
        "dense": [Dense(6)], "llr": [Dense(2), Dense(2, lr=0.5), Dense(2)],
        "sparse": [Dense(2), Dense(2, lr=0.5), Sparse(2)],
        "dsd": [Dense(2), Dense(2, lr=0.5), Sparse(1), Dense(1)],
    }, 2),
    ([Dense(3), Sparse(2, criterion="taylor"), Dense(1)], {
        "dense": [Dense(6)], "sparse": [Dense(3), Sparse(3, criterion="taylor")],
        "dsd": [Dense(3), Sparse(2, criterion="taylor"), Dense(1)],
    }, 2),
    ([Dense(2), Sparse(4, ramp=3), Dense(1, ema=0.9)], {
        "dense": [Dense(7)], "sparse": [Dense(2), Sparse(4, ramp=3), Sparse(1)],
        "dsd": [Dense(2), Sparse(4, ramp=3), Dense(1, ema=0.9)],
    }, 2),
], ids=["dsd", "from a trained model, lower at the end", "one rate", "DSDSD, rates that fall",
        "lower as soon as it prunes", "lower while sparse", "from a trained model",
        "two sparse phases", "ends sparse", "rates", "sums before", "a ramp"])  # fmt: skip
def test_arms_have_equal_epochs_and_equal_controls_are_left_out(phases, expected, shared):
    arms = make_arms(phases)
    assert {name: list(found) for name, found in arms.items()} == expected
    assert len({sum(p.epochs for p in found) for found in arms.values()}) == 1
    assert num_shared(arms) == shared


def test_arms_are_the_requested_ones_in_a_fixed_order():
    assert list(make_arms(DSD_PHASES, ["dsd", "llr", "dense"])) == ["dense", "llr", "dsd"]
    same_rates = presets.dsd(1, 1, 1, redense_lr=1.0)
    assert list(make_arms(same_rates, ["llr", "dsd"])) == ["llr", "dsd"]
    assert list(make_arms(same_rates, ["llr at once", "llr", "dsd"])) == ["llr", "dsd"]
    assert make_arms(same_rates, ["llr at once", "dsd"])["llr at once"] == (Dense(3),)
    every = ["dense", "llr", "llr at once", "sparse", "dsd"]
    assert list(make_arms(DSD_PHASES)) == list(make_arms(DSD_PHASES, every[::-1])) == every
    assert str(Timeline(make_arms(DSD_PHASES)["dense"])) == "dense for 4 epochs"


@pytest.mark.parametrize(("phases", "names", "error", "message"), [
    ([Dense(1, until=dsd.Plateau("loss")), Sparse(1)], None, ValueError, r"phases\[0\]=.*`until`"),
    ([Dense(steps=9), Sparse(1)], None, ValueError, r"phases\[0\]=.* in steps"),
    ([Dense(3)], None, ValueError, "a sparse phase among `phases`.*plain training"),
    ([], None, ValueError, "at least one phase"),
    (DSD_PHASES, "dsd", TypeError, "arms='dsd' of type str"),
    (DSD_PHASES, 3, TypeError, "arms=3 of type int"),
    (DSD_PHASES, ["dense"], ValueError, r"arms=\['dense'\]"),
    (DSD_PHASES, ["dsd"], ValueError, r"arms=\['dsd'\]"),
    (DSD_PHASES, ["dsd", "llr", "llr"], ValueError, "each once"),
    (DSD_PHASES, ["dsd", "best"], ValueError, r"arms\[1\]='best'"),
    ([Dense(1), Sparse(1)], ["sparse", "dsd"], ValueError, "a control that differs from DSD"),
])  # fmt: skip
def test_arms_that_can_not_be_compared_are_refused(phases, names, error, message):
    with pytest.raises(error, match=message):
        make_arms(phases, *([names] if names else []))


class Model:
    """A number that training adds to; what DSD prunes is of no concern here."""

    name = "model"

    def __init__(self, made):
        self.weight, self.updates, self.made = float(len(made)), 0, made
        self.optimizer = types.SimpleNamespace(get_config=lambda: {"rate": np.float32(0.5)})
        made.append(self)

    def fit(self, x, y, *, initial_epoch, epochs, verbose, callbacks, steps=3):
        assert verbose == 0 and len(x) == len(y)
        callbacks[-1].on_train_begin({})
        for epoch in range(initial_epoch, epochs):
            self.weight += 1 + 10 * len(callbacks)
            self.updates += steps
            callbacks[-1].on_epoch_end(epoch, {})

    def get_weights(self):
        return [np.array(self.weight)]

    def set_weights(self, values):
        (self.weight,) = map(float, values)

    def evaluate(self, *part, batch_size, verbose):
        return [self.weight, NAN]


@pytest.fixture
def made(monkeypatch):
    """All models made, by a Keras that counts; each starts with the value of the seed."""
    found, state = [], types.ModuleType("keras_of_numbers.training_state")
    seeds = []
    state.seed = seeds.append
    state.begin = lambda seed: None
    state.is_built = state.is_known = lambda model: True
    state.num_updates = lambda model: model.updates
    state.weights_of, state.set_weights = Model.get_weights, Model.set_weights
    state.read = lambda model: [np.array(model.weight), np.array(model.updates)]

    def write(model, values):
        model.weight, model.updates = float(values[0]), int(values[1])

    state.write = write
    door = types.ModuleType("keras_of_numbers")
    door.training_state = state
    door.apply = lambda model, selection: model
    door.strip = lambda model: model
    monkeypatch.setitem(sys.modules, "keras_of_numbers", door)
    monkeypatch.setattr(training.registry, "adapter_of", lambda model, name: door)
    return types.SimpleNamespace(models=found, seeds=seeds)


@pytest.fixture
def data():
    rows = np.arange(12.0)
    return {"train": (rows[:6], rows[:6]), "validation": (rows[6:9], rows[6:9]),
            "test": (rows[9:], rows[9:])}  # fmt: skip


def run(made, data, evaluate=None, **options):
    def build():
        model = Model(made.models)
        model.weight = 0.0
        return model

    options = {"phases": DSD_PHASES, "seeds": 2, "arms": ["dense", "dsd"], **options}
    return dsd.compare(build, data, evaluate=evaluate, progress=False, **options)


def test_the_first_phase_is_trained_once_and_every_arm_continues_from_it(made, data):
    found = run(made, data)
    assert [(r.seed, r.arm, r.validation, r.num_updates) for r in found.runs[:3]] == [
        (0, FIRST, (11.0, 22.0), 6),
        (0, "dense", (11.0, 22.0, 33.0, 44.0), 12),
        (0, "dsd", (11.0, 22.0, 43.0, 64.0), 12),
    ]
    assert len(made.models) == 2 + 2 * 3  # two to look at
    # Before and after data are made; and when a new model starts to train or resumes.
    assert made.seeds == [0] * 2 + [2000006] * 6 + [1] * 2 + [2000007] * 6
    assert (found.metric, found.mode, found.seeds, found.num_updates) == ("loss", "min", (0, 1), 12)
    assert found.shared_rows == {
        "validation in train": 0.0, "test in train": 0.0, "test in validation": 0.0,
    }  # fmt: skip


def test_without_a_first_phase_what_was_trained_before_is_a_control(made, data):
    found = run(made, data, phases=presets.dsd(0, 1, 1), evaluate=lambda model, part: (
        model.weight + 100 * (part is data["test"])
    ))  # fmt: skip
    assert [(r.seed, r.arm, r.validation, r.test_last, r.test_best, r.num_updates)
            for r in found.runs[:3]] == [
        (0, FIRST, (0.0,), 100.0, 100.0, 0), (0, "dense", (11.0, 22.0), 122.0, 111.0, 6),
        (0, "dsd", (21.0, 42.0), 142.0, 121.0, 6),
    ]  # fmt: skip
    assert found.gain().control == FIRST and len(found.runs) == 6
    assert len({r.start for r in found.runs}) == 1


def test_a_file_without_what_was_trained_before_is_gone_on_with(made, data, tmp_path):
    path, options = tmp_path / "comparison.json", {"phases": presets.dsd(0, 1, 1)}
    found = run(made, data, path=path, **options)
    held = json.loads(path.read_text())
    held["runs"] = [each for each in held["runs"] if each["arm"] != FIRST]
    path.write_text(json.dumps(held))
    del made.models[:]
    assert run(made, data, path=path, **options) == found
    assert len(made.models) == 2 + 2  # two to look at, and one of each seed to score


def test_a_run_whose_weights_are_not_finite_counts_where_it_ends(made, data, tmp_path, monkeypatch):
    fit = Model.fit

    def failing(model, *part, epochs, callbacks, **options):
        is_failing = len(callbacks) > 1 and made.seeds[-1] % 1_000_003 == 1  # DSD of seed 1
        fit(model, *part, epochs=epochs - is_failing, callbacks=callbacks, **options)
        if is_failing:
            raise NotFiniteError("Expected finite weights")

    monkeypatch.setattr(Model, "fit", failing)
    path = tmp_path / "comparison.json"
    found = run(made, data, path=path)
    ours = [r for r in found.runs if r.arm == "dsd"]
    assert ours[0].validation == (11.0, 22.0, 43.0, 64.0)
    assert ours[1].validation[:3] == (11.0, 22.0, 43.0) and math.isnan(ours[1].validation[3])
    assert (ours[1].best_epoch, ours[1].num_updates, found.num_updates) == (0, 9, 12)
    assert [len(r.validation) for r in found.runs if r.arm == "dense"] == [4, 4]
    del made.models[:]
    assert str(run(made, data, path=path)) == str(found) and len(made.models) == 2


def test_an_arm_that_was_not_trained_is_not_a_control(made, data):
    found = run(made, data, phases=[Dense(1, lr=0.5), Sparse(1)])
    assert [r.arm for r in found.runs] == ["dense", "dsd"] * 2


@pytest.mark.parametrize(("values", "mode", "best"), [
    ([3.0, 1.0, 2.0, 1.0], "min", [1, 1]), ([3.0, 1.0, 2.0, 0.5], "min", [1, 3]),
    ([3.0, 1.0, 2.0, 4.0], "max", [0, 3]), ([3.0, 1.0, 3.0, 3.0], "max", [0, 0]),
    ([NAN, 1.0, NAN, NAN], "min", [1, 1]), ([NAN, NAN, NAN, 5.0], "max", [0, 3]),
    ([NAN] * 4, "min", [0, 0]), ([math.inf, 1.0, 0.0, -math.inf], "min", [1, 2]),
], ids=str)  # fmt: skip
def test_the_best_epoch_is_chosen_on_validation_data_and_scored_with_its_weights(
    made, data, values, mode, best
):
    seen = {"validation": [], "test": []}
    of_fits = [values[:2], values[2:], values[2:]]
    rising = iter([value for fit in of_fits * 2 for value in fit])

    def evaluate(model, part):
        name = "test" if part is data["test"] else "validation"
        seen[name].append(model.weight)
        return next(rising) if name == "validation" else model.weight

    first, dense, ours = run(made, data, evaluate, mode=mode).runs[:3]
    weights = [[11.0, 22.0], [11.0, 22.0, 33.0, 44.0], [11.0, 22.0, 43.0, 64.0]]
    for each, place, at in zip(
        (first, dense, ours), [best[0], best[1], best[1]], weights, strict=True
    ):
        assert each.best_epoch == place
        assert (each.test_last, each.test_best) == (at[-1], at[place])
        assert each.chosen_on("best") == pytest.approx(values[place], nan_ok=True) or (
            math.isnan(each.chosen_on("best"))
        )


def test_test_data_are_read_at_the_ends_alone(made, data):
    parts = []
    run(made, data, lambda model, part: parts.append(part is data["test"]) or len(parts))
    assert parts[:9] == [False, False, True, True] * 2 + [False]


@pytest.mark.parametrize(("first", "own"), [(Dense(2), 2), (Dense(2, lr=dsd.Decay("linear")), 4)])
def test_the_bar_knows_how_many_epochs_are_left(made, data, tmp_path, monkeypatch, first, own):
    bars = []

    @contextlib.contextmanager
    def bar(shown, total, done):
        bars.append([total, done, 0])

        def step(words):
            bars[-1][2] += 1

        yield step

    monkeypatch.setattr(compare, "progress_bar", bar)
    options = {"path": tmp_path / "comparison.json", "phases": [first, *DSD_PHASES[1:]]}
    run(made, data, **options)
    held = json.loads(options["path"].read_text())
    held["runs"] = [each for each in held["runs"] if each["arm"] != "dsd"]
    options["path"].write_text(json.dumps(held))
    for _ in range(2):
        run(made, data, **options)
    # Two epochs of the first phase, which is in no file, and two of each arm; a plain arm has all
    # four where the rate of the first phase decays.
    total = 2 * (2 + own + 2)
    assert bars == [[total, 0, total], [total, 2 * own, total - 2 * own], [total, total, 0]]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", range(16))
def test_a_comparison_that_was_killed_anywhere_resumes_there(made, data, tmp_path, at, error):
    path, seen = tmp_path / "comparison.json", []

    def evaluate(model, part):
        if len(seen) == at and not stopped:
            stopped.append(True)
            raise error
        seen.append(model.weight)
        return model.weight

    stopped = []
    with pytest.raises(error):
        run(made, data, evaluate, path=path)
    found = run(made, data, evaluate, path=str(path))
    num_seen = len(seen)
    assert found == run(made, data, evaluate)
    if path.exists():
        del seen[num_seen:]
        assert run(made, data, evaluate, path=path) == found
        assert len(seen) == num_seen  # nothing is trained again
    assert [p.name for p in tmp_path.iterdir()] == ["comparison.json"]


def test_arms_that_parted_from_another_first_phase_are_trained_again(made, data, tmp_path):
    path = tmp_path / "comparison.json"
    run(made, data, path=path)
    held = json.loads(path.read_text())
    held["runs"] = [r for r in held["runs"] if (r["seed"], r["arm"]) != (1, "dsd")]
    for each in held["runs"]:
        if (each["seed"], each["arm"]) == (1, "dense"):
            each.update(start="of a GPU", test_last=-5.0)
    path.write_text(json.dumps(held))
    assert run(made, data, path=path) == run(made, data)


def test_an_arm_with_fewer_updates_is_refused_when_trained_and_when_read(
    made, data, tmp_path, monkeypatch
):
    path = tmp_path / "comparison.json"
    run(made, data, path=path)
    held = json.loads(path.read_text())
    held["runs"][2]["num_updates"] -= 1
    path.write_text(json.dumps(held))
    message = "12 in arm 'dense' of seed 0, but 11 in arm 'dsd' of seed 0. Check that the data"
    with pytest.raises(ValueError, match=message):
        run(made, data, path=path)

    def cheated(phases, names):
        return {"dense": (Dense(4),), "dsd": (Dense(2), Sparse(1))}

    monkeypatch.setattr(compare, "make_arms", cheated)
    monkeypatch.setattr(training.Job, "num_epochs", 4)
    fit = Model.fit
    monkeypatch.setattr(
        Model, "fit", lambda model, *a, **k: fit(model, *a, **k, steps=4 - len(k["callbacks"]))
    )
    with pytest.raises(ValueError, match="12 in arm 'dense' of seed 0, but 10 in arm 'dsd'"):
        run(made, data)


def test_the_same_model_again_is_refused(made, data):
    model = Model(made.models)
    with pytest.raises(ValueError, match="a new model each time.*Create its layers in build"):
        dsd.compare(lambda: model, data, phases=DSD_PHASES, progress=False)


def test_data_made_by_a_function_are_made_for_every_fit_and_are_the_same(made, data):
    calls = []

    def load():
        calls.append(True)
        return data

    assert run(made, load) == run(made, data)
    assert len(calls) == 1 + 2 * 3

    def random():
        calls.append(True)
        return {**data, "train": (np.arange(6) + len(calls) / 100, np.arange(6))}

    with pytest.raises(ValueError, match=r"data\(\) to return the same data.*random_state=0"):
        run(made, random)


class Layer:
    """Keras's, as far as that is known by its name and module."""

    __module__ = "keras.src.layers.layer"


class Called(Layer):
    """A model rather than a function that makes one: it can be called."""

    def __call__(self, inputs):
        return inputs

    def __repr__(self):
        return "<Called>"


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"build": 3}, TypeError, "`build` to be a function.*build=3"),
    ({"evaluate": 3}, TypeError, "takes the model, data .*evaluate=3"),
    ({"build": Called()}, TypeError, "`build` to be a function.*build=<Called"),
    ({"mode": "auto"}, ValueError, "mode='auto'"),
    ({"mode": "max"}, ValueError, "the loss is compared. Received: mode='max'"),
    ({"seeds": 1}, ValueError, "`seeds` to be at least 2.*seeds=1"),
    ({"seeds": 2.5}, TypeError, "whole number of seeds, at least 2.*seeds=2.5"),
    ({"seeds": [4]}, ValueError, r"two or more that differ.*seeds=\[4\]"),
    ({"seeds": [4, 4]}, ValueError, r"seeds=\[4, 4\]"),
    ({"seeds": [0, 2**32]}, ValueError, r"seeds\[1\]=4294967296"),
    ({"seeds": "12"}, TypeError, "seeds='12'"),
    ({"sparsity": 1.5}, ValueError, "sparsity=1.5"),
    ({"apply_options": {"scope": "all"}}, ValueError, "scope='all'"),
    ({"apply_options": {"to": 3}}, ValueError, "exclude, pattern and scope. Received: to"),
    ({"apply_options": ["scope"]}, TypeError, "`apply_options` to be a dict"),
    ({"fit_options": 3}, TypeError, "fit_options=3 of type int"),
    ({"fit_options": {"epochs": 3, "callbacks": []}}, ValueError, "callbacks, epochs. Leave"),
    ({"parallel": 0}, ValueError, "parallel=0"),
    ({"parallel": 2}, ValueError, "build with an object that can't be pickled"),
    ({"progress": 1}, TypeError, "progress=1"),
    ({"path": "/nowhere/x.json"}, ValueError, "path='/nowhere/x.json'.*'comparison.json'"),
    ({"max_shared_rows": -1}, ValueError, "max_shared_rows=-1"),
    ({"data": 3}, TypeError, "data=3"),
])  # fmt: skip
def test_bad_arguments_are_refused_before_anything_is_built(data, arguments, error, message):
    options = {"build": lambda: pytest.fail(), "data": data, "phases": DSD_PHASES, **arguments}
    with pytest.raises(error, match=message):
        dsd.compare(**options)


def test_a_schedule_gives_its_phases_reset_and_batches(made, data, monkeypatch):
    given = []
    monkeypatch.setattr(
        training, "DSDSchedule", lambda **options: given.append(options) or object()
    )
    batches = [np.zeros(2)]
    schedule = dsd.DSDSchedule(2, 1, 1, reset="all", batch_norm_data=batches, batch_norm_batches=7)
    run(made, data, phases=schedule)
    assert given[0] == {
        "phases": DSD_PHASES, "reset": "all", "batch_norm_data": batches, "batch_norm_batches": 7,
    }  # fmt: skip
    given.clear()
    run(made, data)
    assert (given[0]["reset"], given[0]["batch_norm_data"]) == ("pruned", None)


def test_more_seeds_resume_from_the_file_of_fewer(made, data, tmp_path):
    path = tmp_path / "comparison.json"
    first = run(made, data, path=path)
    num_models = len(made.models)
    more = run(made, data, path=path, seeds=3)
    assert more.runs[: len(first.runs)] == first.runs and more.seeds == (0, 1, 2)
    assert len(made.models) - num_models == 2 + 3  # two to look at; one seed of three arms


@pytest.mark.parametrize(("change", "message"), [
    ({"phases": presets.dsd(1, 2, 1)}, "same arms.*dense for 2 epochs"),
    ({"seeds": [1, 2]}, r"same seeds.*\[0, 1\], but \[1, 2\] here"),
    ({"mode": "max", "evaluate": lambda model, part: 1.0}, "same mode"),
    ({"evaluate": lambda model, part: 1.0}, "same evaluate.*loss, but value|'loss', but 'value'"),
    ({"sparsity": 0.5}, "same apply"),
    ({"fit_options": {"steps": 3}}, "same fit_options"),
])  # fmt: skip
def test_a_file_of_another_comparison_is_refused(made, data, tmp_path, change, message):
    path = tmp_path / "comparison.json"
    run(made, data, path=path)
    written = path.read_text()
    with pytest.raises(ValueError, match=message):
        run(made, data, **{"path": path, **change})
    assert path.read_text() == written


def test_a_file_that_lacks_an_arm_is_gone_on_with_and_one_of_more_is_refused(made, data, tmp_path):
    path, every = tmp_path / "comparison.json", ["dense", "llr", "llr at once", "sparse", "dsd"]
    few = run(made, data, path=path)
    del made.models[:]
    found = run(made, data, path=path, arms=every)
    assert [r.arm for r in found.runs] == [FIRST, *every] * 2
    assert len(made.models) == 2 + 2 * (1 + 3)  # two to look at, the first phases, what lacked
    assert found == run(made, data, arms=every)
    assert [r for r in found.runs if r.arm in (FIRST, "dense", "dsd")] == list(few.runs)
    with pytest.raises(ValueError, match="same arms"):
        run(made, data, path=path)


def test_a_file_of_other_data_or_weights_is_refused(made, data, tmp_path, monkeypatch):
    path = tmp_path / "comparison.json"
    run(made, data, path=path)
    x, y = data["train"]
    with pytest.raises(ValueError, match="same data"):
        run(made, {**data, "train": (x, y + 1)}, path=path)
    monkeypatch.setattr(Model, "get_weights", lambda model: [np.array(7.0)])
    sys.modules["keras_of_numbers"].training_state.weights_of = Model.get_weights
    with pytest.raises(ValueError, match="same initial weights"):
        run(made, data, path=path)


def test_an_incomplete_file_is_refused_wherever_it_ends(made, data, tmp_path):
    path = tmp_path / "comparison.json"
    run(made, data, path=path)
    written = path.read_bytes()
    for end in range(0, len(written), 7):
        path.write_bytes(written[:end])
        with pytest.raises(ValueError, match=r"comparison\.json', which is incomplete.*Delete it"):
            run(made, data, path=path)


@pytest.mark.parametrize("put", [
    {"validation": [1.0, "x", 1.0, 1.0]}, {"validation": 3}, {"test_last": True},
    {"test_best": 10**400}, {"best_epoch": 4}, {"best_epoch": 1.0}, {"num_updates": None},
    {"other": 1},
], ids=str)  # fmt: skip
def test_a_file_that_something_else_wrote_is_refused(made, data, tmp_path, put):
    path = tmp_path / "comparison.json"
    run(made, data, path=path)
    held = json.loads(path.read_text())
    held["runs"][1].update(put)
    path.write_text(json.dumps(held))
    with pytest.raises(ValueError, match="incomplete or another file"):
        run(made, data, path=path)
    identity = {**held["identity"], "seeds": [[0], 1]}
    path.write_text(json.dumps({**held, "identity": identity, "runs": []}))
    with pytest.raises(ValueError, match="same seeds"):
        run(made, data, path=path)
    path.write_text(json.dumps({**held, "kind": "scan", "runs": []}))
    with pytest.raises(ValueError, match="another file"):
        run(made, data, path=path)


def test_an_error_in_a_process_is_raised_with_its_seed():
    job = types.SimpleNamespace(make=functools.partial(operator.getitem, ()))
    with pytest.raises(IndexError, match="out of range") as raised:
        list(training.train_seeds(job, {3: {}, 4: {}}, 2, pytest.fail))
    assert raised.value.__notes__[0] in [f"Raised in the process of seed {n}." for n in (3, 4)]


def test_a_killed_process_is_reported_with_its_seed_and_exit_code():
    job = types.SimpleNamespace(make=os._exit)
    message = r"the process of seed ([78]) to train it. Received: exit code \1;"
    with pytest.raises(RuntimeError, match=message):
        list(training.train_seeds(job, {7: {}, 8: {}}, 2, pytest.fail))


ROWS = np.arange(30.0).reshape(10, 3)


def parts(train, validation, test):
    given = {"train": train, "validation": validation, "test": test}
    lengths = {n: len(x) if isinstance(x, np.ndarray) else len(ROWS) for n, x in given.items()}
    return {name: (x, np.zeros(lengths[name])) for name, x in given.items()}


@pytest.mark.parametrize(("data", "message"), [
    (parts(ROWS, ROWS + 100, ROWS), "train and test data that differ.*the same object"),
    (parts(ROWS, ROWS + 100, ROWS.copy()), r"10 of 10 rows of data\['test'\].* data\['train'\]"),
    (parts(ROWS + 100, ROWS, ROWS[::-1]), r"10 of 10 rows of data\['test'\].*\['validation'\]"),
    (parts(ROWS, ROWS[:4], ROWS + 100), r"4 of 4 rows of data\['validation'\].*without overlap\.$"),
    (parts(ROWS, ROWS + 100, ROWS[5:].astype("float32")), "5 of 5 rows"),
    (parts(np.r_[ROWS, ROWS[:1] * 0], ROWS + 100, np.r_[-ROWS[:1] * 0, ROWS[:1] - 9]),
     "max_shared_rows=0.5"),
    (parts([ROWS, ROWS], [ROWS, ROWS + 1], [ROWS, ROWS]), "10 of 10"),
    (parts({"a": ROWS, "b": ROWS}, {"a": ROWS, "b": -ROWS - 1}, {"b": ROWS, "a": ROWS}), "10 of"),
    (parts(np.array(["a", "b"]), np.array(["c"]), np.array(["b"])), "1 of 1 rows"),
])  # fmt: skip
def test_data_that_leak_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        dataset.check_data(data, 0.0)


def test_rows_that_are_alike_by_nature_may_be_allowed():
    data = parts(ROWS, ROWS + 100, np.r_[ROWS[:1], ROWS[:9] + 200])
    found = dataset.check_data(data, 0.1)
    assert found == {"validation in train": 0.0, "test in train": 0.1, "test in validation": 0.0}
    with pytest.raises(ValueError, match="1 of 10 rows"):
        dataset.check_data(data, 0.09)
    several = parts([ROWS, ROWS], [ROWS, ROWS + 1], [ROWS, ROWS + 2])  # only one input is alike
    assert dataset.check_data(several, 0.0)["test in train"] == 0.0


class Unreadable:
    shape = (3,)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("on a GPU")


def test_a_list_counts_as_a_tuple():
    given = parts(ROWS, ROWS + 100, ROWS + 200)
    lists = {name: list(part) for name, part in given.items()}
    assert dataset.check_data(lists, 0.0) == dataset.check_data(given, 0.0)
    assert dataset.digest(lists) == dataset.digest(given)
    assert [*dataset.arguments(lists["test"])] == lists["test"]


@pytest.mark.parametrize("kind", [lambda: [[1, 2]], Unreadable, lambda: np.array([{}, None])])
def test_only_rows_of_arrays_are_compared(kind):
    data = {name: (kind(), [1]) for name in dataset.NAMES}
    assert dataset.check_data(data, 0.0) == {}
    assert len(set(dataset.digest(data).values())) == 1
    data = {name: type(name, (), {})() for name in dataset.NAMES}
    assert len(set(dataset.digest(data).values())) == 3


@pytest.mark.parametrize(("change", "message"), [
    ({"train": np.zeros((3, 4))}, r"data\['train'\] to be \(x, y\).*Give the labels"),
    ({"train": (np.zeros((3, 4)), np.zeros(2))}, r"data\['train'\] to have equal numbers.*2 and 3"),
    ({"test": (np.zeros((0, 4)), np.zeros(0))}, r"data\['test'\] to hold rows.*without any"),
    ({"train": None}, r"data\['train'\] to be data that can be read repeatedly.*None"),
    ({"test": iter([1])}, r"data\['test'\].*iterator"),
    ({"validation": (ROWS,)}, r"data\['validation'\] to be \(x, y\).*a tuple of 1"),
    ({"other": ROWS}, "to name train, validation, test.*'other'"),
])  # fmt: skip
def test_parts_of_the_data_that_can_not_be_used_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataset.check_data({**parts(ROWS, ROWS + 100, ROWS + 200), **change}, 0.0)


def test_the_arms_of_the_paper_are_equally_long_and_add_three():
    phases = [Dense(4), Sparse(6, sparsity=0.4), Dense(5, lr=0.1)]
    arms = make_paper_arms(phases)
    assert list(arms) == [
        "dense",
        "llr",
        "llr at once",
        "sparse",
        AVERAGED,
        RANDOM,
        ITERATED,
        "dsd",
    ]
    assert {Timeline(each).epochs for each in arms.values()} == {15}
    assert {key: arms[key] for key in make_arms(phases)} == make_arms(phases)
    assert arms[AVERAGED] == arms["llr"]
    assert arms[RANDOM] == (Dense(4), Sparse(6, sparsity=0.4, criterion="random"), Dense(5, lr=0.1))
    assert arms[ITERATED] == (Dense(4), Sparse(5, sparsity=0.5), Dense(2, lr=0.3),
                              Sparse(2, sparsity=0.25, lr=0.3), Dense(2, lr=0.1))  # fmt: skip
    assert ITERATED not in make_paper_arms([Dense(4), Sparse(1), Dense(5, lr=0.1)])


DECAY = dsd.Decay("steps", boundaries=(0.5,))


def test_arms_continue_a_first_phase_at_its_first_and_its_last_rate():
    first = Dense(4, lr=DECAY.times(0.5))
    phases = [first, Sparse(6, lr=0.1), Dense(5, lr=0.01)]
    arms = make_paper_arms(phases)
    assert arms["first rate"] == (first, Dense(11, lr=0.5)) and "dense" not in arms
    assert arms["low rate"] == (first, Dense(11, lr=0.05))
    assert arms["one run"] == (Dense(15, lr=first.lr),)
    assert {Timeline(each).epochs for each in arms.values()} == {15}
    assert shared_start(arms) == (first,)
    alone = [name for name, each in arms.items() if not starts_with(each, (first,))]
    assert alone == ["one run", "dsd in one run", "sparse in one run"]
    assert not starts_with(make_arms(phases)["dense"], (first,))
    # Of equal arms one is trained; a rate of zero trains nothing.
    equal = make_paper_arms([first, Sparse(6, lr=0.1), Dense(5, lr=0.05)])
    assert "low rate" not in equal and "llr at once" in equal
    assert "low rate" not in make_paper_arms([Dense(4, lr=dsd.Decay("cosine")), *phases[1:]])
    falls = make_paper_arms([Dense(4), Dense(2, lr=0.1), Sparse(6, lr=0.1), Dense(5, lr=0.01)])
    assert falls["first rate"] == (Dense(4), Dense(2, lr=0.1), Dense(11))
    assert falls["low rate"] == (Dense(4), Dense(2, lr=0.1), Dense(11, lr=0.1))


def rates_of(phases, num_steps=4):
    """Returns the learning rate of every step, of so many in an epoch."""
    return [
        rate for phase in phases
        for rate in factors(phase.lr, range(phase.epochs * num_steps), phase.epochs * num_steps)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "decay",
    [DECAY, dsd.Decay("steps", boundaries=(0.5, 0.8), start=0.3, drop=0.2), dsd.Decay("cosine"),
     dsd.Decay("cosine", start=0.1, end=0.01), dsd.Decay("linear", start=2.0, end=0.5)],
    ids=str,
)  # fmt: skip
def test_dsd_in_one_run_has_its_learning_rates_in_every_step(decay):
    arms = make_paper_arms([Dense(12, lr=decay), Sparse(4, sparsity=0.4, ramp=3), Dense(4, lr=0.1)])
    for name in ("dsd in one run", "sparse in one run"):
        assert [phase.epochs for phase in arms[name]] == [6, 4, 10]
        assert rates_of(arms[name]) == pytest.approx(rates_of(arms["one run"]), abs=1e-12)
        _, sparse, last = arms[name]
        assert sparse.sparsity == 0.4 and sparse.ramp == 3
        assert isinstance(last, Sparse) == (name == "sparse in one run")
    assert last.sparsity == 0.4 and last.ramp == 1


def test_dsd_in_one_run_takes_a_first_phase_that_decays_and_is_no_longer_than_half():
    assert "dsd in one run" not in make_paper_arms([Dense(12), Sparse(4), Dense(4, lr=0.1)])
    short = make_paper_arms([Dense(1, lr=DECAY), Sparse(1), Dense(1, lr=0.1)])
    assert "dsd in one run" not in short and "one run" in short


def test_a_first_phase_that_sums_gradients_is_not_shared():
    phases = [Dense(4, lr=DECAY), Sparse(6, criterion="taylor"), Dense(5, lr=0.01)]
    assert shared_start(make_paper_arms(phases)) == ()
    plain = [Dense(4), Sparse(6, criterion="taylor"), Dense(5, lr=0.01)]
    assert shared_start(make_paper_arms(plain)) == (Dense(3),)


def test_a_learning_rate_that_decays_inside_a_phase_stays_in_it():
    decay = dsd.Decay("cosine")
    phases = [Dense(4, lr=decay), Sparse(4, lr=decay), Dense(4, lr=decay.times(0.1))]
    arms = make_paper_arms(phases)
    assert arms["llr"] == (Dense(4, lr=decay), Dense(4, lr=decay), Dense(4, lr=decay.times(0.1)))
    assert arms["one run"] == (Dense(12, lr=decay),)
    assert [phase.lr for phase in arms[ITERATED]] == [
        decay, *(decay.times(factor) for factor in (1.0, 0.3, 0.3, 0.1))
    ]  # fmt: skip
    assert num_shared(arms) == 0 and shared_start(arms) == (Dense(4, lr=decay),)


DECAYS = (0.1, 0.01)


def compared_as_paper(made, data, build, evaluate, **options):
    given = {"phases": [Dense(2), Sparse(2), Dense(2, lr=0.1)], "seeds": 3, "tuning_seeds": 2}
    return dsd.compare(build, data, evaluate=evaluate, progress=False, controls="paper",
                       **{**given, **options})  # fmt: skip


def build_decayed(made):
    def build(weight_decay=None, learning_rate=None):
        model = Model(made.models)
        model.weight, model.decay, model.lr = 0.0, weight_decay, learning_rate
        return model

    return build


def test_weight_decay_is_chosen_on_tuning_seeds_and_the_arms_keep_it(made, data, tmp_path):
    best, seen = 0.01, []

    def evaluate(model, part):
        seen.append((model.decay, part is data["test"]))
        return model.weight + 100 * (model.decay != best)

    found = compared_as_paper(made, data, build_decayed(made), evaluate, weight_decays=DECAYS,
                              path=tmp_path / "paper.json")  # fmt: skip
    assert found.weight_decays == dict.fromkeys(found.arms, best)
    assert found.seeds == (0, 1, 2) and {run.seed for run in found.runs} == {0, 1, 2}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "paper-seeds-0.01.json", "paper-tuning-0.01.json", "paper-tuning-0.1.json"
    ]  # fmt: skip
    # Weights fall behind in arms with a callback more: "dense" has the smallest numbers.
    assert found.control == found.gain("best").control == "dense"
    del seen[:]
    assert compared_as_paper(made, data, build_decayed(made), evaluate, weight_decays=DECAYS,
                             path=tmp_path / "paper.json") == found  # fmt: skip
    assert not seen


def test_learning_rates_and_weight_decays_are_chosen_in_pairs(made, data, tmp_path):
    seen = set()

    def evaluate(model, part):
        seen.add((model.lr, model.decay))
        return model.weight + 100 * ((model.lr, model.decay) != (0.5, 0.1))

    found = compared_as_paper(
        made, data, build_decayed(made), evaluate, weight_decays=DECAYS, learning_rates=(0.5, 2),
        path=tmp_path / "paper.json",
    )  # fmt: skip
    assert seen == {(0.5, 0.1), (0.5, 0.01), (2, 0.1), (2, 0.01)}
    assert found.learning_rates == dict.fromkeys(found.arms, 0.5)
    assert found.weight_decays == dict.fromkeys(found.arms, 0.1)
    assert (tmp_path / "paper-seeds-lr0.5-0.1.json").exists()
    text = words_of(found)
    assert "learning rate, chosen for each arm: 0.5 for all" in text
    assert "dense is best at the smaller end of the learning rates" in text
    assert "dense is best at the larger end of the weight decays" in text


def test_without_weight_decays_build_takes_none_and_the_control_is_chosen_all_the_same(made, data):
    found = compared_as_paper(
        made, data, build_decayed(made), lambda model, part: model.weight, mode="max"
    )
    assert found.weight_decays == {} and found.control in ("llr", "llr at once", AVERAGED)
    assert next(run.arm for run in found.runs if run.seed == 0) == FIRST


def test_averages_are_means_of_the_last_phase_scored_after_training(made, data):
    found = compared_as_paper(made, data, build_decayed(made), lambda model, part: model.weight,
                              mode="max")  # fmt: skip
    (llr, averaged) = (
        next(run for run in found.runs if run.arm == arm) for arm in ("llr", AVERAGED)
    )
    assert llr.validation == (11.0, 22.0, 43.0, 64.0, 85.0, 106.0)
    assert averaged.validation == (11.0, 22.0, 43.0, 64.0, 85.0, 95.5)
    assert (averaged.best_epoch, averaged.test_best, averaged.test_last) == (5, 95.5, 95.5)
    assert averaged.num_updates == llr.num_updates


def test_random_masks_are_those_of_the_seed(made, data, monkeypatch):
    given, schedule = [], training.DSDSchedule
    monkeypatch.setattr(
        training, "DSDSchedule",
        lambda phases, **options: given.append(phases) or schedule(phases=phases, **options),
    )  # fmt: skip
    compared_as_paper(
        made, data, build_decayed(made), lambda model, part: model.weight, seeds=[4, 9]
    )
    drawn = [phase.seed for phases in given for phase in phases
             if isinstance(phase, Sparse) and phase.criterion == "random"]  # fmt: skip
    assert drawn == [4, 9]


PAPER = {
    "dense": 1.0,
    "llr": 2.0,
    "first rate": 1.6,
    "sparse": 3.0,
    "dsd, random masks": 1.9,
    "dsd": 1.5,
}


def measured_as_paper(seeds=4, spread=0.1, tried=(1e-5, 1e-4, 1e-3, 1e-2), **changes):
    """Returns a result in which arms have these means and DSD a spread, and `changes` of runs."""
    runs = []
    for seed in range(seeds):
        for arm, value in PAPER.items():
            test = value + seed / 9 + (spread * (-1) ** seed if arm == "dsd" else 0)
            test = changes.get(f"{arm} of {seed}", test)
            runs.append(Run(seed, arm, (value, value + 1), 0, test + 1, test, 4, "start"))
    arms = dict.fromkeys(PAPER, "in words")
    decays = {**dict.fromkeys(PAPER, 1e-4), "dsd": 1e-3}
    return PaperComparison(
        "loss", "min", arms, tuple(runs), {}, "llr", weight_decays=decays, num_tuning_seeds=3,
        tried={"weight_decay": tried},
    )  # fmt: skip


def words_of(found):
    """The text that `print` shows, on one line."""
    return " ".join(found.render().split())


def test_both_questions_are_answered_with_p_values_that_holm_adjusts():
    found = measured_as_paper()
    (a, b) = found.verdict.split(" (b) ")
    assert a.startswith("(a) dsd is better than llr: dsd minus it -0.5 (-0.6837 to -0.3163), p = ")
    p_a, p_b = found.answer().p_value, found.answer("sparse").p_value
    assert p_b < p_a and f"p = {p_a:.2g}." in a and f"p = {2 * p_b:.2g}." in b
    assert found.to_dict()["adjusted_p_values"]["best"] == {"a": p_a, "b": 2 * p_b}
    smallest = found.answer().smallest
    share = 100 * smallest / np.mean(found.tests("llr"))
    words = "that 4 seeds show four times in five, before adjustment"
    assert f"{words}: {smallest:.2g} ({share:.2g}%)." in a
    assert b.startswith("dsd is better than sparse: dsd minus it -1.5 (")


def test_the_table_of_the_paper_has_every_difference_and_says_what_was_chosen_on_what():
    found, text = measured_as_paper(), words_of(measured_as_paper())
    assert all(sentence in text for sentence in (found._sentence("a"), found._sentence("b")))
    assert "4 seeds, 4 updates in each arm; choices made on 3 other seeds. No run failed." in text
    assert (
        "arm: 0.0001 for dense; llr; first rate; sparse; dsd, random masks. 0.001 for dsd" in text
    )
    assert "learning rate, chosen" not in text and " end of " not in text
    assert "bootstrap" not in text and "adjusted by Holm's method for both questions" in text
    rows = {line[:17].strip(): line for line in reversed(found.render().splitlines())}
    for arm in set(PAPER) - {"dsd"}:
        each = found.answer(arm)
        assert f"{each.mean:+.2g} ({each.low:+.2g} to {each.high:+.2g})" in rows[arm], arm
    assert max(map(len, found.render().splitlines())) <= 100
    assert set(found.to_dict()["differences"]) == set(PAPER) - {"dsd"}


@pytest.mark.parametrize(("tried", "llr", "dsd"), [
    ((1e-4,), None, None), ((1e-4, 1e-3), "smaller", "larger"), ((1e-5, 1e-4), "larger", None),
    ((1e-5, 1e-3), None, "larger"),
])  # fmt: skip
def test_an_arm_of_question_a_that_is_best_at_an_end_of_its_list_is_pointed_out(tried, llr, dsd):
    text = words_of(measured_as_paper(tried=tried))
    for arm, end, seems in (("llr", llr, "gain"), ("dsd", dsd, "lose")):
        words = f"{arm} is best at the {end} end of the weight decays: try {end} ones, or what DSD "
        assert (f"{arm} is best at" in text) == bool(end)
        assert not end or f"{words}seems to {seems} may be due to that" in text


def test_an_interval_within_a_percent_shows_that_both_are_equal():
    values = {f"dsd of {seed}": 3 + seed / 9 + 1e-3 * (-1) ** seed for seed in range(4)}
    assert "dsd and sparse are equal within 1%: " in measured_as_paper(**values).verdict
    values = {f"dsd of {seed}": 3 + seed / 9 + 0.1 * (-1) ** seed for seed in range(4)}
    assert "No difference shown between dsd and sparse: " in measured_as_paper(**values).verdict
    values = {f"dsd of {seed}": 2.999 + seed / 9 + 1e-4 * (-1) ** seed for seed in range(4)}
    verdict = measured_as_paper(**values).verdict
    assert "dsd is better than sparse, by less than 1%: dsd minus it -0.001 (" in verdict


def test_a_run_that_fails_is_reported_and_gives_no_answer():
    found = measured_as_paper(**{"sparse of 2": NAN, "llr of 9": NAN})
    assert [(run.arm, run.seed) for run in found.failed] == [("sparse", 2)]
    assert "Not finite: seed 2 (sparse)." in words_of(found) and "nan" not in found.verdict
    assert "(a) dsd is better than llr" in found.verdict
    assert "(b) No answer: not all values of dsd and sparse are finite." in found.verdict
    json.loads(found.to_json(), parse_constant=pytest.fail)


def test_equal_differences_are_not_tested():
    words = "No difference to test: dsd minus llr is -0.5 in every seed."
    assert words in measured_as_paper(spread=0.0).verdict


def test_the_figure_of_the_paper_shows_both_questions():
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    found = measured_as_paper()
    dots, gains = found.plot().axes
    assert [text.get_text() for text in gains.get_xticklabels()] == ["(a) llr", "(b) sparse"]
    means = sorted(lines.lines[0].get_ydata()[0] for lines in gains.containers)
    assert means == pytest.approx([-1.5, -1.5, -0.5, -0.5])
    assert [text.get_text() for text in dots.get_xticklabels()] == list(PAPER)


def test_the_control_is_that_of_the_tuning_seeds_whatever_the_others_say():
    found = measured_as_paper()
    assert found.gain().control == "llr" and found.gain().paired.mean == pytest.approx(0.5)
    assert found.answer().mean == pytest.approx(-0.5) and found.answer("dense").mean > 0


def test_the_schedules_that_tuning_chose_answer_both_questions():
    found = dataclasses.replace(measured_as_paper(), schedule="llr", control="dsd", pruned="dsd")
    assert found.answer().mean == pytest.approx(0.5) == -found.gain().paired.mean
    assert found.verdict.count("llr is worse than dsd: llr minus it +0.5") == 2
    assert set(found.to_dict()["differences"]) == set(PAPER) - {"llr"}
    assert "llr minus it" in words_of(found) and "dsd minus" not in words_of(found)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("best", ["dsd", "dsd in one run"])
@pytest.mark.parametrize("pruned", ["sparse", "sparse in one run"])
def test_tuning_chooses_the_schedules_of_dsd_and_of_pruning_for_good(
    mode, best, pruned, monkeypatch
):
    arms = make_paper_arms([Dense(4, lr=DECAY), Sparse(2, lr=0.1), Dense(2, lr=0.05)])
    job = types.SimpleNamespace(arms=arms, mode=mode, build=None)
    sign = 1 if mode == "min" else -1

    def train(job, seeds, file):
        values = {arm: sign * (1.0 if arm in (best, pruned, "low rate") else 2.0) for arm in job}
        return [Run(seed, arm, (value,), 0, value, value, 4, "start")
                for seed in seeds for arm, value in values.items()]  # fmt: skip

    monkeypatch.setattr(paper, "_part", lambda job, decay, names: list(names))
    _, found = paper.compare_as_paper(job, [0, 1], [paper.Setting()], 2, None, train)
    assert found == ("low rate", best, pruned, {}, {})


def test_runs_of_the_paper_give_a_verdict(made, data):
    noise = iter(np.random.default_rng(0).normal(0, 1e-3, 10_000))
    found = compared_as_paper(
        made, data, build_decayed(made), lambda model, part: model.weight + next(noise), seeds=5
    )
    assert found.num_tuning_seeds == 2 and not found.failed
    assert found.verdict.startswith("(a) ") and " (b) " in found.verdict


def test_a_first_phase_whose_rate_falls_is_trained_once_and_one_run_from_the_start(made, data):
    phases = [Dense(2, lr=DECAY), Sparse(2, lr=0.1), Dense(2, lr=0.05)]
    found = compared_as_paper(made, data, build_decayed(made), lambda model, part: model.weight,
                              phases=phases)  # fmt: skip
    runs = {run.arm: run for run in found.runs if run.seed == 0}
    assert set(runs) >= {FIRST, "first rate", "low rate", "one run"} and "dense" not in runs
    assert {len(run.validation) for run in runs.values()} == {2, 6}
    # Arms that branch have the values of the first phase; a schedule makes the toy grow faster.
    for arm in ("first rate", "low rate", "llr", "dsd", "dsd, random masks"):
        assert runs[arm].start == runs[FIRST].start
        assert runs[arm].validation[:2] == runs[FIRST].validation == (21.0, 42.0)
    assert runs["one run"].validation[:2] == (21.0, 42.0)
    assert runs["one run"].start != runs[FIRST].start
    assert runs["one run"].num_updates == runs["dsd"].num_updates == 18
    # Two to look at in either stage; of each seed one for the first phase and one of every arm, of
    # which tuning has two less.
    arms = len(found.arms)
    assert len(made.models) == 2 * 2 + 2 * (arms - 2 + 1) + 3 * (arms + 1)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"controls": "papers"}, ValueError, "controls='papers'"),
    ({"controls": "paper", "arms": ["dense", "dsd"]}, ValueError, "arms="),
    ({"weight_decays": [0.1]}, ValueError, "controls='paper'"),
    ({"controls": "paper", "weight_decays": [0.1, 0.1]}, ValueError, "weight_decays="),
    ({"controls": "paper", "weight_decays": [-0.1]}, ValueError, r"weight_decays\[0\]=-0.1"),
    ({"learning_rates": [0.1]}, ValueError, "controls='paper'"),
    ({"controls": "paper", "learning_rates": [0.1, 0]}, ValueError, r"learning_rates\[1\]=0"),
    ({"controls": "paper", "learning_rates": [1, 1]}, ValueError, "learning_rates="),
    ({"controls": "paper", "tuning_seeds": 1}, ValueError, "tuning_seeds=1"),
], ids=str)  # fmt: skip
def test_controls_that_can_not_be_used_are_refused(made, data, options, error, message):
    options = {"phases": DSD_PHASES, "seeds": 2, **options}
    with pytest.raises(error, match=message):
        dsd.compare(lambda: None, data, **options)
    assert not made.models
