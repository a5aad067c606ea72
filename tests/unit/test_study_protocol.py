"""The protocol of the studies: arms of equal length, what tuning chooses, and the records."""

import dataclasses
import importlib
import math

import pytest

from keras_dsd import DSDSchedule
from keras_dsd.algorithm.phases import SparsePhase
from keras_dsd.algorithm.timeline import Timeline
from tests.helpers import benchmarks


@pytest.fixture(scope="module")
def protocol():
    with benchmarks.imported(benchmarks.STUDIES, "protocol") as found:
        yield found["protocol"]


@pytest.fixture(scope="module")
def records(protocol):
    return importlib.import_module("records")


def test_learning_rates_fall_twice_to_a_tenth(protocol):
    assert protocol.steps(10) == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)
    assert protocol.steps(30, 0.1) == pytest.approx([0.1] * 15 + [0.01] * 9 + [0.001] * 6)


@pytest.mark.parametrize(("sparse", "redense"), [(10, 10), (3, 8)])
def test_arms_have_equal_epochs_and_the_control_the_learning_rates_of_dsd(
    protocol, sparse, redense
):
    lengths = protocol.Lengths(30, sparse, redense)
    arms = protocol.arms(lengths, 0.4)
    assert {*arms, protocol.AVERAGED} == {*protocol.WORDS}
    for name, arm in arms.items():
        assert arm.shared + len(arm.rates) == lengths.epochs == 30 + sparse + redense, name
        if arm.phases:
            assert Timeline(arm.phases).epochs == len(arm.rates)
    assert arms["same rates"].rates == arms["dsd"].rates == arms["pruned"].rates
    whole = lengths.first[: arms["one run"].shared] + arms["one run"].rates
    assert whole == protocol.steps(lengths.epochs)
    for name in ("dsd in one run", "pruned in one run", "dsd in one run, random masks"):
        first, last = arms[name].phases
        assert arms[name].rates == arms["one run"].rates and isinstance(first, SparsePhase)
        assert {*arms[name].rates[: first.epochs]} == {1.0} and arms[name].rates[-last.epochs] < 1.0
        assert isinstance(last, SparsePhase) == (name == "pruned in one run")
    assert set(arms["low rate"].rates) == {lengths.first[-1]}
    assert lengths.first[-1] == pytest.approx(0.01)
    assert set(arms["first rate"].rates) == {1.0}
    assert [isinstance(phase, SparsePhase) for phase in arms["pruned"].phases] == [True, True]
    iterated = arms["dsd, iterated"].phases
    assert [phase.sparsity for phase in iterated[::2]] == [0.5, 0.25]
    assert not any(isinstance(phase, SparsePhase) for phase in iterated[1::2])


def test_dsd_trains_on_as_from_a_model_trained_elsewhere(protocol):
    ours = protocol.arms(protocol.Lengths(30, 10, 8), 0.4)["dsd"].phases
    schedule = DSDSchedule(dense=0, sparse=10, redense=8, redense_lr=1.0)
    sparse, dense = schedule.timeline.phases
    assert ours == (dataclasses.replace(sparse, sparsity=0.4), dense)


def run(protocol, seed, arm, best, setting=(1e-4, 0.1), test=(), sparsity=None):
    """Returns a run of three epochs, the second of which is the best on validation data."""
    setting = protocol.Setting(*setting, sparsity)
    validation = (best + 1, best, best + 0.5)
    return protocol.Run(seed, arm, setting, validation, test, (), (0.1, 0.2), 30, 1.0)


def test_tuning_chooses_the_best_mean_and_a_setting_that_fails_in_a_seed_is_not_chosen(protocol):
    tuning = [
        run(protocol, seed, arm, best, (l2, 0.1))
        for arm, of_l2 in {"same rates": {1e-3: (1, math.nan), 1e-4: (3, 3), 1e-2: (4, 1)},
                           "same rates, averaged": {1e-4: (3, 3), 1e-2: (2, 2)}}.items()
        for l2, values in of_l2.items() for seed, best in zip((1000, 1001), values, strict=True)
    ]  # fmt: skip
    assert protocol.chosen_setting(tuning, "same rates").l2 == 1e-2
    assert protocol.chosen_setting(tuning, "same rates, averaged").l2 == 1e-2
    others = [run(protocol, 1000, arm, 2.4) for arm in ("one run", "low rate", "first rate")]
    assert protocol.best_of([*tuning, *others], protocol.PLAIN) == "same rates, averaged"


@pytest.mark.parametrize(("single", "best"), [(2.9, "dsd in one run"), (3.1, "dsd")])
def test_tuning_chooses_the_schedule_of_dsd_and_random_masks_follow_it(protocol, single, best):
    losses = {"dsd": 3.0, "dsd in one run": single, "pruned": 2.0, "pruned in one run": 1.0}
    tuning = [run(protocol, 1000, arm, loss, sparsity=0.4) for arm, loss in losses.items()]
    assert protocol.best_of(tuning, protocol.DSD_ARMS) == best
    assert protocol.best_of(tuning, protocol.PRUNED_ARMS) == "pruned in one run"
    arms = protocol.reported_arms(tuning)
    assert [arm for arm in arms if arm.endswith("random masks")] == [f"{best}, random masks"]
    assert {*arms} >= {*protocol.PLAIN, *protocol.PRUNED_ARMS, *protocol.DSD_ARMS}


def test_the_epoch_is_chosen_alike_and_the_first_of_equal_ones(protocol):
    assert protocol.best_epoch([3.0, 1.0, 2.0, 1.0]) == 1
    assert protocol.best_epoch([math.nan, 2.0]) == 1
    assert run(protocol, 0, "dsd", 1.0, test=(9.0, 7.0, 8.0)).test_best == 7.0


def test_an_answer_pairs_seeds_and_says_what_is_shown(protocol):
    runs = [
        run(protocol, seed, arm, 1.0, test=(9.0, value + seed / 10, last))
        for arm, value, last in (("dsd", 1.0, 3.0), ("pruned", 1.5, 2.0))
        for seed in range(4 if arm == "dsd" else 3)
    ]
    found = protocol.answer(runs, "pruned", "dsd")
    assert found.best.number == 3 and found.num_better == 3 and found.mean == pytest.approx(1.6)
    assert found.best.mean == pytest.approx(-0.5) and found.last.mean == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("mean", "sd", "verdict"),
    [(-0.1, 0.1, "better"), (0.1, 0.1, "worse"), (0.0, 0.01, "equal within 1 %"),
     (0.0, 0.2, "no difference shown"), (-0.005, 0.004, "better, within 1 %"),
     (0.005, 0.004, "worse, within 1 %")],
)  # fmt: skip
def test_a_verdict_needs_what_holm_leaves(protocol, mean, sd, verdict):
    ours = [(seed, mean + sd * (-1) ** seed) for seed in range(10)]
    runs = [run(protocol, seed, "dsd", 1.0, test=(2.0, 1 + value, 2.0)) for seed, value in ours]
    runs += [run(protocol, seed, "one run", 1.0, test=(2.0, 1.0, 2.0)) for seed in range(10)]
    answers = {"task": protocol.answer(runs, "one run", "dsd")}
    assert protocol.verdicts(answers) == {"task": verdict}
    many = {**answers, **{str(i): protocol.answer(runs, "dsd", "dsd") for i in range(60)}}
    equal = "equal within 1 %" if "within" in verdict else "no difference shown"
    if verdict.startswith(("better", "worse")):  # p is at most 0.01, and 61 times that too much
        assert protocol.verdicts(many)["task"] == equal


def test_records_resume_and_refuse_another_task(records, protocol, tmp_path):
    path, base = tmp_path / "task.json.gz", (0.1, 1e-4)
    kept = records.Records(path, {"task": "a", "lengths": {"dense": 3}})
    failed = run(protocol, 1000, "dsd", math.nan, sparsity=0.4)
    kept.add([run(protocol, 0, "dsd", 1.234567, test=(1.0, 2.0, 3.0))], base)
    kept.add([failed], base)
    again = records.load(path)
    assert again.has(0, base) and not again.has(1, base) and not again.has(0, (0.1, 1e-3))
    (one,), (other,) = again.reported, again.tuning
    assert one.validation == (2.2346, 1.2346, 1.7346) and one.test == (1.0, 2.0, 3.0)
    assert other.setting == failed.setting and math.isnan(other.validation[1])
    with pytest.raises(ValueError, match="lengths"):
        records.Records(path, {"task": "a", "lengths": {"dense": 4}})


def test_records_resume_with_more_settings_and_seeds(records, protocol, tmp_path):
    path, base = tmp_path / "task.json.gz", [0.1, 1e-4]
    kept = records.Records(path, {"bases": [base], "seeds": 10})
    kept.add([run(protocol, 0, "dsd", 1.0, sparsity=0.4), run(protocol, 0, "pruned", 1.0)], base)
    again = records.Records(path, {"bases": [[0.1, 1e-3], base], "seeds": 30})
    assert again.identity["seeds"] == 30 and len(again.reported) == 2
    with pytest.raises(ValueError, match="bases"):
        records.Records(path, {"bases": [[0.1, 1e-3]], "seeds": 10})
    (one, other) = again.reported
    elsewhere = protocol.Setting(1e-3, 0.1)
    chosen = {"dsd": one.setting, "pruned": elsewhere, "one run": other.setting}
    assert again.missing(0, chosen) == {"pruned": elsewhere, "one run": other.setting}
    assert again.missing(1, chosen) == chosen
    again.add([one, run(protocol, 0, "one run", 1.0)], base)
    assert [each.arm for each in again.reported] == ["dsd", "pruned", "one run"]
