"""Scans of a model made of arrays: what is recommended, what the file holds, what is refused."""

import json
import math
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_dsd.algorithm.selection import Selection
from keras_dsd.analysis.sensitivity import (
    Sensitivity,
    WeightSensitivity,
    registry,
    sensitivity,
)
from keras_dsd.utils.progress import progress_bar

LEVELS = (0.25, 0.5, 0.75)
NAN = math.nan


class Weight:
    def __init__(self, path, values):
        self.path = self.short_path = path
        self.values, self.shape = values, values.shape
        self.mask, self.pattern, self.scope, self.layout = None, None, "layer", None

    def numpy(self):
        return self.values.copy()

    def assign(self, values):
        self.values = values.copy()


@pytest.fixture
def model(monkeypatch):
    """Two weights, as an adapter returns them."""
    draw = np.random.default_rng(0)
    parts = [Weight("a/kernel", draw.normal(size=(3, 4))), Weight("b/kernel", draw.normal(size=8))]
    monkeypatch.setattr(
        registry,
        "adapter_of",
        lambda m: types.SimpleNamespace(weights=lambda m: m.parts),
    )
    return types.SimpleNamespace(name="model", parts=parts)


def zeros(model):
    """The tests' `evaluate`: its result shows which weight is pruned, and to which level."""
    return float(sum(100**i * np.count_nonzero(w.values == 0) for i, w in enumerate(model.parts)))


def scan(model, evaluate=zeros, levels=LEVELS, **options):
    return sensitivity(model, evaluate, levels, progress=False, **options)


def result(*values, baseline=0.0, levels=LEVELS, mode="min", sizes=None):
    sizes = sizes or [10] * len(values)
    points = zip("abcdefghij", sizes, values, strict=False)
    points = tuple(WeightSensitivity(path, (size,), tuple(v)) for path, size, v in points)
    return Sensitivity(baseline, levels, mode, points)


@st.composite
def results(draw):
    ascending = st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True).map(sorted)
    levels = tuple(level / 100 for level in draw(ascending))
    value = st.one_of(st.floats(-10, 10), st.sampled_from([0.0, 1.0]))
    row = st.lists(value, min_size=len(levels), max_size=len(levels))
    rows = draw(st.lists(row, min_size=1, max_size=6))
    sizes = draw(st.lists(st.integers(1, 10**6), min_size=len(rows), max_size=len(rows)))
    mode = draw(st.sampled_from(["min", "max"]))
    return result(*rows, baseline=draw(value), levels=levels, mode=mode, sizes=sizes)


def worsenings(found, point):
    sign = 1 if found.mode == "min" else -1
    return [sign * (value - found.baseline) for value in point.values]


def recommended(found, **asked):
    return [found.recommend(**asked)[f"^{point.path}$"] for point in found.points]


@settings(max_examples=300, deadline=None)
@given(results(), st.floats(0, 5))
def test_max_drop_is_never_exceeded_up_to_the_level_and_is_by_the_next(found, max_drop):
    for point, level in zip(found.points, recommended(found, max_drop=max_drop), strict=True):
        worse = dict(zip(found.levels, worsenings(found, point), strict=True))
        assert level == 0.0 or level in worse
        assert all(worse[each] <= max_drop for each in worse if each <= level)
        following = [each for each in worse if each > level]
        assert not following or worse[following[0]] > max_drop


@settings(max_examples=300, deadline=None)
@given(results(), st.floats(0, 1))
def test_overall_is_met_and_spread_so_that_all_are_equally_worse(found, part):
    overall = part * found.levels[-1]
    chosen = recommended(found, overall=overall)
    pruned = sum(point.size * level for point, level in zip(found.points, chosen, strict=True))
    assert pruned / found.size == pytest.approx(overall, abs=1e-6)
    assert all(0 <= level <= found.levels[-1] for level in chosen)
    # What is left of the largest level costs at least what the others were allowed.
    costs = [cost_about(found, *pair) for pair in zip(found.points, chosen, strict=True)]
    assert max(below for below, _ in costs) <= min(above for _, above in costs) + 1e-6


def cost_about(found, point, level):
    """The cost a hair below and a hair above a level, on lines that never fall; above all: inf."""
    levels = [0.0, *found.levels]
    costs = np.maximum.accumulate([0.0, *worsenings(found, point)])
    below, above = np.interp([level - 1e-9, level + 1e-9], levels, costs)
    return below, math.inf if level + 1e-9 >= levels[-1] else above


def test_max_drop_stops_at_the_first_level_that_is_worse():
    found = result([0.1, 0.5, 0.1], [0.1, 0.2, 0.3], [0.9, 0.0, 0.0], [-1.0, NAN, 0.0])
    assert recommended(found, max_drop=0.25) == [0.25, 0.5, 0.0, 0.25]


def test_max_drop_of_what_is_better_when_larger():
    found = result([0.9, 0.8, 0.7], [1.0, 0.95, 0.2], baseline=0.9, mode="max")
    assert recommended(found, max_drop=0.15) == [0.5, 0.5]


def test_overall_equals_a_worked_example():
    found = result([1.0, 2.0, 3.0], [0.5, 1.0, 1.5], sizes=[30, 10])
    # Levels are cost / 4 and cost / 2; 30 c / 4 + 10 c / 2 = 0.25 * 40 at c = 0.8.
    assert recommended(found, overall=0.25) == pytest.approx([0.2, 0.4])
    assert recommended(found, overall=0.75) == pytest.approx([0.75, 0.75])
    assert recommended(found, overall=0) == [0.0, 0.0]


def test_overall_where_pruning_costs_nothing_is_spread_all_the_same():
    free, dear = [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]
    assert recommended(result(free, free, sizes=[1, 3]), overall=0.3) == pytest.approx([0.3, 0.3])
    assert recommended(result(free, dear), overall=0.3) == pytest.approx([0.6, 0.0])
    assert recommended(result(free, dear), overall=0.5) == pytest.approx([0.75, 0.25])


def test_a_value_that_is_not_finite_is_never_gone_up_to():
    found = result([0.1, NAN, 0.1], [0.1, 0.2, 0.3])
    assert recommended(found, overall=0.5) == pytest.approx([0.25, 0.75])
    with pytest.raises(ValueError, match=r"at most 0\.5\. Received: overall=0\.6.*NaN"):
        found.recommend(overall=0.6)


@pytest.mark.parametrize(("asked", "error", "message"), [
    ({}, ValueError, "exactly one of .*max_drop=None, overall=None"),
    ({"max_drop": 0, "overall": 0}, ValueError, "exactly one of .*max_drop=0, overall=0"),
    ({"max_drop": -1}, ValueError, "max_drop=-1"),
    ({"max_drop": math.inf}, ValueError, "max_drop=inf"),
    ({"max_drop": "1"}, TypeError, "max_drop='1' of type str"),
    ({"overall": 1.0}, ValueError, r"overall=1\.0"),
    ({"overall": 0.76}, ValueError, r"largest scanned level, 0\.75\. .*overall=0\.76"),
])  # fmt: skip
def test_what_recommend_refuses(asked, error, message):
    with pytest.raises(error, match=message):
        result([0.0, 0.0, 0.0]).recommend(**asked)


@pytest.mark.parametrize("path", ["dense/kernel", "c++/kernel", "a[1]/(b)/kernel", "a.b/$^"])
def test_a_recommended_pattern_is_the_full_path_and_matches_nothing_longer(path):
    found = Sensitivity(0.0, (0.5,), "min", (WeightSensitivity(path, (2,), (0.0,)),))
    (pattern,) = found.recommend(max_drop=0)
    assert pattern == "^" + re.escape(path) + "$"
    selection = Selection({pattern: 0.5})
    weight = types.SimpleNamespace(path=path)
    assert selection.choose(weight, unless_named="frozen") == (0.5, None)
    for longer in (f"model/{path}", f"{path}_1"):
        assert selection.choose(types.SimpleNamespace(path=longer))[0] == 0.0


def test_weights_of_one_path_count_as_one_as_the_more_sensitive_of_them():
    values = {"a": [(1.0, 1.0, 1.0), (0.0, 0.0, 2.0)], "b": [(0.0, 1.0, 2.0)]}
    points = (WeightSensitivity(path, (5,), v) for path, rows in values.items() for v in rows)
    found = Sensitivity(0.0, LEVELS, "min", tuple(points))
    assert found.recommend(max_drop=0.5) == {"^a$": 0.0, "^b$": 0.25}
    assert found.recommend(max_drop=1.5) == {"^a$": 0.5, "^b$": 0.5}
    assert found.recommend(overall=0.5) == pytest.approx({"^a$": 0.5, "^b$": 0.5})


def test_each_weight_is_pruned_alone_once_a_level_and_put_back(model):
    before = [w.numpy() for w in model.parts]
    seen = []
    found = scan(model, lambda m: seen.append(zeros(m)) or zeros(m), mode="max")
    assert seen == [0, 3, 6, 9, 200, 400, 600]
    assert (found.baseline, found.levels, found.mode) == (0.0, LEVELS, "max")
    assert found.points == (
        WeightSensitivity("a/kernel", (3, 4), (3.0, 6.0, 9.0), 12),
        WeightSensitivity("b/kernel", (8,), (200.0, 400.0, 600.0), 8),
    )
    assert [w.numpy().tobytes() for w in model.parts] == [b.tobytes() for b in before]


def test_what_is_not_finite_is_nan_and_null(model):
    values = iter([1, NAN, math.inf, -math.inf, np.float32(2), 3, np.int64(4)])
    data = scan(model, lambda m: next(values)).to_dict()
    assert [p["values"] for p in data["points"]] == [[None, None, None], [2.0, 3.0, 4.0]]


def test_data_and_text(model):
    found = scan(model)
    assert json.loads(found.to_json()) == found.to_dict() == {
        "baseline": 0.0, "levels": [0.25, 0.5, 0.75], "mode": "min", "points": [
            {"path": "a/kernel", "shape": [3, 4], "size": 12, "covered": 12,
             "values": [3.0, 6.0, 9.0]},
            {"path": "b/kernel", "shape": [8], "size": 8, "covered": 8,
             "values": [200.0, 400.0, 600.0]},
        ],
    }  # fmt: skip
    lines = found.render().splitlines()
    assert lines[:5] == [
        "baseline         0 with nothing pruned (smaller is better)",
        "scanned          20 weights in 2 tensors at 3 levels, 25% to 75%",
        "most sensitive   b/kernel: 600 at 75%",
        "least sensitive  a/kernel: 9 at 75%",
        "at no cost       0.00% of the weights, one tensor pruned at a time",
    ]
    assert lines[6].split() == ["weight", "size", "25%", "50%", "75%"]
    assert lines[8].split() == ["a/kernel", "12", "3", "6", "9"]
    assert str(found) == found.render()


def test_the_figure_has_a_line_for_each_weight_and_a_dashed_one_for_the_baseline(tmp_path):
    figure = result([0.1, NAN, 0.3], [1.0, 2.0, 3.0], baseline=0.5, mode="max").plot()
    (axes,) = figure.axes
    a, b, dashed = axes.lines
    assert b.get_xydata().tolist() == [[0.25, 1.0], [0.5, 2.0], [0.75, 3.0]]
    assert (a.get_label(), b.get_label(), dashed.get_label()) == ("a", "b", "nothing pruned")
    assert dashed.get_linestyle() == "--" and {*dashed.get_ydata()} == {0.5}
    assert "sparsity" in axes.get_xlabel() and "larger is better" in axes.get_ylabel()
    figure.savefig(tmp_path / "scan.png")


def test_the_error_without_matplotlib_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        result([0.0, 0.0, 0.0]).plot()


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Stop])
@pytest.mark.parametrize("at", range(7))
def test_a_scan_that_stopped_anywhere_restores_weights_and_resumes_there(
    model, tmp_path, at, error
):
    seen = []

    def evaluate(m):
        if len(seen) == at and not stopped:
            stopped.append(True)
            raise error
        seen.append(zeros(m))
        return seen[-1]

    stopped, path = [], tmp_path / "scan.json"
    before = [w.numpy() for w in model.parts]
    with pytest.raises(error):
        scan(model, evaluate, path=path)
    assert all(np.array_equal(w.values, b) for w, b in zip(model.parts, before, strict=True))
    assert path.exists() == (at > 0)
    found = scan(model, evaluate, path=str(path))
    assert seen == [0, 3, 6, 9, 200, 400, 600]
    assert found == scan(model)
    assert scan(model, pytest.fail, path=path) == found
    assert [p.name for p in tmp_path.iterdir()] == ["scan.json"]


def test_a_null_in_the_file_is_not_measured_again(model, tmp_path, monkeypatch):
    values = iter([0.0, NAN, 1.0, 2.0, 3.0, 4.0, 5.0])
    scan(model, lambda m: next(values), path=tmp_path / "scan.json")
    monkeypatch.setattr(Weight, "assign", pytest.fail)  # nor is anything set for nothing
    found = scan(model, pytest.fail, path=tmp_path / "scan.json")
    assert math.isnan(found.points[0].values[0]) and found.points[0].values[1:] == (1.0, 2.0)


def test_a_write_that_fails_leaves_the_file_of_before(model, tmp_path, monkeypatch):
    def evaluate(m):
        if zeros(m) == 6:
            monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError))
        return zeros(m)

    before = model.parts[0].numpy()
    with pytest.raises(OSError):
        scan(model, evaluate, path=tmp_path / "scan.json")
    assert np.array_equal(model.parts[0].values, before)
    (left,) = tmp_path.iterdir()
    assert json.loads(left.read_text())["points"][0]["values"] == [3.0]


def other_shape(model):
    model.parts[1] = Weight("b/kernel", model.parts[1].values.reshape(2, 4))


def other_path(model):
    model.parts[0].short_path = "c/kernel"


def fewer(model):
    model.parts.pop()


def trained_on(model):
    model.parts[1].values[3] *= 2


@pytest.mark.parametrize(("change", "options", "message"), [
    (other_shape, {}, r"same weights.*b/kernel of shape \(8,\), but b/kernel of shape \(2, 4\)"),
    (other_path, {}, r"same weights.*a/kernel of shape \(3, 4\), but c/kernel of shape"),
    (fewer, {}, "same weights.*numbering 2, but 1 here"),
    (trained_on, {}, "other values of b/kernel and 0 others.*Load the weights of this scan"),
    (None, {"levels": (0.25, 0.5)}, r"levels \[0\.25, 0\.5, 0\.75\], but \[0\.25, 0\.5\] here"),
    (None, {"mode": "max"}, "mode min, but max here. Give another path, or delete the file"),
])  # fmt: skip
def test_a_file_of_another_scan_is_refused(model, tmp_path, change, options, message):
    path = tmp_path / "scan.json"
    scan(model, path=path)
    written = path.read_text()
    if change:
        change(model)
    with pytest.raises(ValueError, match=message):
        scan(model, pytest.fail, path=path, **options)
    assert path.read_text() == written


def test_an_incomplete_file_is_refused_wherever_it_ends(model, tmp_path):
    path = tmp_path / "scan.json"
    scan(model, path=path)
    written = path.read_bytes()
    for end in range(len(written)):
        path.write_bytes(written[:end])
        with pytest.raises(ValueError, match=r"scan\.json', which is incomplete.*Delete it"):
            scan(model, pytest.fail, path=path)


@pytest.mark.parametrize("put", [
    {"baseline": None}, {"baseline": "0"}, {"baseline": True}, {"baseline": 10**400},
    {"baseline": NAN}, {"levels": 3}, {"levels": None}, {"digests": []}, {"digests": 7},
    {"points": {}}, {"points": [1, 2]}, {"points": [{}, {}]},
    {"points": [{"path": "a/kernel", "shape": [3, 4], "covered": 12, "values": [1.0] * 4}] * 2},
    {"points": [{"path": "a/kernel", "shape": [3, 4], "covered": 12, "values": ["x"]}] * 2},
], ids=str)  # fmt: skip
def test_a_file_that_something_else_wrote_is_refused(model, tmp_path, put):
    path = tmp_path / "scan.json"
    scan(model, path=path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **put}))
    with pytest.raises(ValueError, match="incomplete or another file"):
        scan(model, pytest.fail, path=path)
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(ValueError, match="incomplete or another file"):
        scan(model, pytest.fail, path=path)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"evaluate": 3}, TypeError, "evaluate=3 of type int.*lambda model"),
    ({"levels": 0.5}, TypeError, r"levels=0\.5 of type float.*levels=\[0\.5\]"),
    ({"levels": "0.5"}, TypeError, r"levels='0\.5' of type str"),
    ({"levels": []}, ValueError, r"levels=\[\]"),
    ({"levels": [0, 0.5]}, ValueError, r"levels=\[0, 0\.5\]\. Sort"),
    ({"levels": [0.5, 0.5]}, ValueError, r"levels=\[0\.5, 0\.5\]\. Sort"),
    ({"levels": [0.5, 1.0]}, ValueError, r"levels\[1\]=1\.0"),
    ({"levels": ["x"]}, TypeError, r"levels\[0\]='x'"),
    ({"mode": "auto"}, ValueError, "mode='auto'.*accuracy"),
    ({"path": 3}, TypeError, "path=3 of type int"),
    ({"path": "/nowhere/scan.json"}, ValueError, "path='/nowhere/scan.json'.*Create the folder"),
    ({"path": "/"}, ValueError, "a file in a folder that exists"),
])  # fmt: skip
def test_bad_arguments_are_refused_before_anything_is_evaluated(model, arguments, error, message):
    with pytest.raises(error, match=message):
        scan(model, **{"evaluate": pytest.fail, **arguments})


@pytest.mark.parametrize("bad", [None, "0.1", True, [0.1, 0.9], np.array([1.0, 2.0]), 1j], ids=str)
def test_a_value_that_is_not_a_number_is_named(model, bad):
    with pytest.raises(TypeError, match=r"evaluate\(model\)=.* of type .*\(nothing pruned\)"):
        scan(model, lambda m: bad)
    before = model.parts[1].numpy()
    with pytest.raises(TypeError, match=r"b/kernel at 0\.25"):
        scan(model, lambda m: bad if zeros(m) >= 200 else 1.0)
    assert np.array_equal(model.parts[1].values, before)


@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_a_model_without_a_value_is_refused(model, tmp_path, bad):
    with pytest.raises(ValueError, match="finite number without pruning"):
        scan(model, lambda m: bad, path=tmp_path / "scan.json")
    assert [*tmp_path.iterdir()] == []


def test_a_model_that_is_not_ready_is_refused(model):
    model.parts[1].mask = np.ones(8, bool)
    with pytest.raises(ValueError, match="dense phase.*model='model', with an active mask of b/"):
        scan(model, pytest.fail)
    model.parts[1].mask = None
    model.parts[1].values[0] = NAN
    with pytest.raises(ValueError, match="b/kernel with 1 of 8 values NaN"):
        scan(model, pytest.fail)
    model.parts.clear()
    with pytest.raises(ValueError, match="built model.*model='model'.*Build"):
        scan(model, pytest.fail)


def test_no_bar_is_shown_where_there_is_no_terminal_or_none_is_wanted(capfd, monkeypatch):
    for shown in (True, False):
        with progress_bar(shown, total=3, done=1) as advance:
            advance("a")
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    with progress_bar(False, total=3, done=1) as advance:
        advance("a")
    assert capfd.readouterr() == ("", "")


def test_the_bar_shows_on_stderr_what_was_done(capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with progress_bar(True, total=3, done=1) as advance:
        advance("[bold]/kernel at 0.5")
    out, err = capfd.readouterr()
    assert out == "" and "[bold]/kernel at 0.5" in err and "2/3" in err


@pytest.mark.parametrize(("after", "shown"), [(60.0, False), (1e-9, True)])
def test_what_is_over_soon_needs_no_bar(after, shown, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar(True, total=1, done=0, after=after) as advance:
        assert capfd.readouterr() == ("", "")
        advance("a/kernel")
    assert ("a/kernel" in capfd.readouterr().err) == shown


def test_what_draws_is_imported_only_when_it_is_used():
    code = (
        "import keras_dsd, sys; keras_dsd.sensitivity;"
        "print({'rich', 'matplotlib'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
