"""Results of a comparison: statistics, the control, the verdict, text and figure."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from keras_dsd.analysis.comparison.arms import FIRST
from keras_dsd.analysis.comparison.result import Comparison, Run, paired
from keras_dsd.analysis.comparison.statistics import (
    difference,
    holm,
    mean_and_sd,
    smallest_effect,
)

NAN = math.nan


def runs_of(arm, tests, validation, best=None, best_validation=None, updates=100):
    """Runs of two epochs, of which the first is the best where its values are given."""
    best_validation = best_validation or validation
    best = best or tests
    return [
        Run(seed, arm, (good, last), 0 if good != last else 1, test, test_best, updates, "s")
        for seed, (last, good, test, test_best) in enumerate(
            zip(validation, best_validation, tests, best, strict=True)
        )
    ]


def comparison(*arms, mode="min"):
    names = {runs[0].arm: f"phases of {runs[0].arm}" for runs in arms if runs[0].arm != FIRST}
    by_seed = tuple(run for of_seed in zip(*arms, strict=True) for run in of_seed)
    return Comparison("error", mode, names, by_seed)


def test_the_paired_test_and_the_interval_are_those_of_the_books():
    found = paired([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5)
    # The mean 3 over its standard error, sqrt(2.5 / 5), with 4 degrees of freedom.
    assert found.p_value == pytest.approx(2 * stats.t.sf(3 / math.sqrt(0.5), 4))
    assert (found.mean, found.sd) == (3.0, pytest.approx(math.sqrt(2.5)))
    assert 1.0 < found.low < 2.2 and 3.8 < found.high < 5.0 and found.is_shown
    assert found == paired([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5)  # the same each time
    assert paired([0.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]).high == pytest.approx(-found.low)


def test_an_interval_covers_the_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(1)
    found = [paired(draw.normal(0.5, 1, 20), np.zeros(20)) for _ in range(60)]
    assert 0.85 <= np.mean([each.low <= 0.5 <= each.high for each in found]) <= 1.0


def test_chance_is_seldom_taken_for_a_difference():
    draw = np.random.default_rng(2)
    assert np.mean([paired(draw.normal(size=5), draw.normal(size=5)).is_shown
                    for _ in range(200)]) <= 0.08  # fmt: skip


@pytest.mark.parametrize("differences", [[0.0, 0.0], [0.1, 0.1, 0.1], [NAN, 1.0]])
def test_what_can_not_be_tested_shows_nothing(differences):
    found = paired([1 + each for each in differences], [1.0] * len(differences))
    assert math.isnan(found.p_value) and not found.is_shown


def test_a_mean_that_is_rounding_is_zero():
    found = paired([5.18, 5.38, 5.43], [5.20, 5.36, 5.43])
    assert (5.18 - 5.20) + (5.38 - 5.36) != 0.0
    assert found.mean == 0.0 and found.sd > 0.01 and not found.is_shown


def test_both_the_test_and_the_interval_are_needed():
    # With two seeds the interval is narrow and the test is not fooled.
    found = paired([1.0, 2.0], [0.0, 0.0])
    assert found.p_value > 0.05 and not found.is_shown
    assert mean_and_sd([1.0, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))


OURS = [0.10, 0.11, 0.09, 0.10, 0.12]
THEIRS = [0.20, 0.22, 0.19, 0.21, 0.20]


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_gain_has_the_direction_of_the_metric(mode):
    found = comparison(runs_of("dense", THEIRS, THEIRS), runs_of("dsd", OURS, OURS), mode=mode)
    sign = 1 if mode == "min" else -1
    gain = found.gain()
    assert gain.control == "dense" and gain.paired.mean == pytest.approx(sign * 0.1)
    assert gain.relative == pytest.approx(sign * 0.1 / np.mean(THEIRS))
    better = "better" if mode == "min" else "worse"
    assert found.verdict == (
        f"dsd is {better} than dense, the best control on validation data, by 0.1 or 49.02% "
        f"(5 seeds, on test data)."
    )


def test_no_difference_is_reported_where_none_is_shown():
    dense = [0.2, 0.1, 0.3, 0.1, 0.2]
    found = comparison(runs_of("dense", dense, dense), runs_of("dsd", dense[::-1], dense))
    assert found.verdict == (
        "No difference shown between dsd and dense, the best control on validation data "
        "(5 seeds, on test data)."
    )
    alike = comparison(runs_of("dense", dense, dense), runs_of("dsd", dense, dense))
    assert alike.verdict.startswith("No difference shown")
    assert "no test: all equal, or not finite" in " ".join(str(alike).split())


def test_the_control_is_the_best_on_validation_data_whatever_test_data_say():
    found = comparison(
        runs_of("dense", THEIRS, [0.2] * 5), runs_of("llr", OURS, [0.3] * 5),
        runs_of("sparse", [NAN] * 5, [NAN] * 5), runs_of("dsd", OURS, [0.4] * 5),
    )  # fmt: skip
    assert found.gain("best").control == found.gain("last").control == "dense"
    assert "better than dense" in found.verdict
    other_way = comparison(*zip(*[iter(found.runs)] * 4, strict=True), mode="max")
    assert other_way.gain().control == "llr"


def test_a_gain_that_early_stopping_gives_too_does_not_count():
    found = comparison(
        runs_of("dense", THEIRS, [0.2] * 5, best=OURS[::-1], best_validation=[0.1] * 5),
        runs_of("dsd", OURS, [0.1] * 5),
    )
    assert found.gain("last").paired.mean == pytest.approx(0.1)
    assert found.verdict == (
        "No difference shown between dsd and dense, the best control on validation data "
        "(5 seeds, on test data). At the last epoch dsd is better than dense; a gain that early "
        "stopping gives too does not count."
    )


def test_values_that_are_not_finite_are_no_difference_that_is_not_shown():
    found = comparison(
        runs_of("dense", THEIRS, [0.2] * 5), runs_of("dsd", [*OURS[:4], NAN], [0.1] * 5)
    )
    assert found.verdict == (
        "No verdict: not all values of dsd and dense are finite (5 seeds, on test data)."
    )


def test_an_interval_that_only_few_seeds_make_narrow_is_not_taken_for_a_difference():
    found = comparison(
        runs_of("dense", [0.30, 0.32, 0.30], [0.2] * 3),
        runs_of("dsd", [0.29, 0.26, 0.29], [0.1] * 3),
    )
    paired = found.gain().paired
    assert paired.low > 0 and paired.p_value > 0.05
    assert found.verdict.startswith("No difference shown") and "too narrow" in found.verdict
    assert f"interval {paired.low:+.4g} to {paired.high:+.4g}, p = " in str(found)


def test_the_first_phase_alone_is_a_control_too():
    first = runs_of(FIRST, OURS[::-1], [0.1] * 5, updates=40)
    dense = runs_of("dense", THEIRS, [0.2] * 5)
    found = comparison(first, dense, runs_of("dsd", OURS, [0.2] * 5))
    assert found.gain().control == FIRST and found.verdict.startswith("No difference shown")
    alike = comparison(runs_of(FIRST, OURS, [0.2] * 5), dense, runs_of("dsd", OURS, [0.2] * 5))
    assert alike.gain().control == "dense"  # of equal ones, the one with as many epochs


@pytest.fixture
def found():
    return comparison(
        runs_of(FIRST, [0.3] * 5, [0.3] * 5, updates=40), runs_of("dense", THEIRS, THEIRS),
        runs_of("dsd", OURS, [0.3] * 5, best=THEIRS[::-1], best_validation=OURS),
    )  # fmt: skip


def test_the_table_has_every_arm_and_says_what_was_chosen_on_what(found):
    lines = str(found).splitlines()
    (head,) = (line for line in lines if line.startswith("arm "))
    assert "updates" in head and max(map(len, lines)) <= 100
    body = {line.split("  ")[0]: " ".join(line.split()) for line in lines}
    assert body["dense"] == "dense 100 0.204 ± 0.011 0.204 ± 0.011 0.204 ± 0.011"
    assert body["dsd"] == "dsd 100 0.104 ± 0.011 0.204 ± 0.011 0.104 ± 0.011"
    assert body[FIRST].startswith("first dense 40 0.3 ±")
    assert lines[-4:-2] == ["dense: phases of dense", "dsd: phases of dsd"]
    text = " ".join(found.render().split())
    assert text.startswith(f"verdict {found.verdict} gain, best epoch ")
    assert "metric error (smaller is better), mean ± standard deviation" in text
    assert "training 5 seeds, 100 updates in each arm" in text
    assert "gain, last epoch +0.1 (+49.02%) over dense, interval +0.08" in text
    assert "95% bootstrap intervals, and p is of the paired t-test. Fit on training data" in text


def test_the_data_are_plain_and_whole(found):
    data = json.loads(found.to_json())
    assert data == found.to_dict()
    assert len(data["runs"]) == 15
    assert data["runs"][2] == {
        "seed": 0, "arm": "dsd", "validation": [0.1, 0.3], "best_epoch": 0, "test_last": 0.1,
        "test_best": 0.2, "num_updates": 100, "start": "s",
    }  # fmt: skip
    assert data["summary"]["dense"]["best"]["test_mean"] == pytest.approx(0.204)
    assert data["summary"]["dense"]["last"]["validation_sd"] == pytest.approx(0.0114, abs=1e-4)
    assert data["gain"]["last"]["control"] == "dense" and data["gain"]["last"]["p_value"] < 1e-3
    assert data["verdict"] == found.verdict
    lost = comparison(runs_of("dense", [NAN] * 2, [NAN] * 2), runs_of("dsd", [0.0] * 2, [1.0] * 2))
    assert lost.to_dict()["gain"]["best"]["relative"] is None
    assert lost.to_dict()["runs"][0]["validation"] == [None, None]
    assert lost.verdict.startswith("No verdict")


def test_the_figure_has_a_dot_for_each_seed_and_the_gains(found):
    figure = found.plot()
    dots, gains = figure.axes
    assert [label.get_text() for label in dots.get_xticklabels()] == [FIRST, "dense", "dsd"]
    assert sorted(value for line in dots.lines for value in line.get_ydata()) == sorted(
        [0.3] * 10 + THEIRS * 3 + OURS
    )
    assert dots.get_ylabel() == "error on test data (smaller is better)"
    labels = [label.get_text() for label in gains.get_xticklabels()]
    assert [label.rpartition("\n")[0] for label in labels] == [
        "last epochs,\nover dense", "best epochs,\nover dense",
    ]  # fmt: skip
    p_value = found.gain("last").paired.p_value
    assert [label.rpartition("\n")[2] for label in labels] == [f"p = {p_value:.2g}", "p = 1"]
    heights = [line.get_ydata()[0] for line in gains.lines if line.get_marker() == "o"]
    assert heights == [found.gain(when).paired.mean for when in ("last", "best")]


def test_scipy_is_imported_only_where_it_is_used_and_requested_by_name():
    code = (
        "import keras_dsd, sys; keras_dsd.compare; print({'scipy', 'matplotlib'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_missing_scipy_is_reported_before_anything_is_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    import keras_dsd as dsd

    with pytest.raises(ImportError, match="pip install scipy, or install this package.*`compare`"):
        dsd.compare(pytest.fail, {}, phases=[])


def test_a_difference_is_that_of_the_t_distribution():
    found = difference([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    # Differences 0, 1, 3: sd sqrt(7/3), standard error sqrt(7)/3, t of 2 degrees at 0.975: 4.3027.
    assert found.mean == pytest.approx(4 / 3) and found.number == 3
    assert found.sd == pytest.approx(math.sqrt(7 / 3))
    assert found.high - found.mean == pytest.approx(4.30265 * math.sqrt(7) / 3, rel=1e-5)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert found.p_value == pytest.approx(0.2697, abs=1e-4)


@pytest.mark.parametrize("ones", [[2.0], [math.nan, 1.0]], ids=["one pair", "not finite"])
def test_a_difference_without_a_spread_has_no_interval(ones):
    found = difference(ones, [1.0] * len(ones))
    assert all(map(math.isnan, (found.low, found.high, found.p_value, found.smallest)))


def test_equal_differences_have_an_interval_of_no_width_and_no_test():
    found = difference([1.1, 2.1, 3.1], [1.0, 2.0, 3.0])
    assert found.low == found.high == found.mean == pytest.approx(0.1)
    assert math.isnan(found.p_value)


def test_the_smallest_effect_is_found_four_times_in_five():
    effect = smallest_effect(30, 2.0)
    drawn = np.random.default_rng(0).normal(effect, 2.0, (10_000, 30))
    p_values = stats.ttest_1samp(drawn, 0.0, axis=1).pvalue
    assert np.mean(p_values < 0.05) == pytest.approx(0.8, abs=0.01)
    assert difference(drawn[0], np.zeros(30)).p_value == pytest.approx(p_values[0])


def test_p_values_are_adjusted_by_holm():
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.9})
    assert found == pytest.approx({"a": 0.09, "b": 0.04, "c": 0.09, "d": 0.9})
    assert list(found) == ["a", "b", "c", "d"]
