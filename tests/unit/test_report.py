"""Reports of weights made of arrays: thresholds, shares, and their display."""

import io
import json
import math
from xml.etree import ElementTree

import numpy as np
import pandas
import pytest
import rich
from rich.console import Console

from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM, Block
from keras_dsd.analysis.report import SkippedWeight, SparsityReport, WeightSparsity, make_report
from keras_dsd.analysis.sensitivity import Sensitivity, WeightSensitivity
from tests.helpers.ranked_weight import RankedWeight

DENSE = Layout((), (0,), (1,))
LONG = "a" * 300 + "/[bold]<kernel>&:smile:"
EVEN = np.arange(1.0, 9).reshape(4, 2) * [-1, 1]  # magnitudes 1 to 8


def weight_of(values, path="kernel", sparsity=0.5, pattern=None, scope="layer", mask=None):
    given = {"sparsity": sparsity, "pattern": pattern, "scope": scope}
    return RankedWeight(np.asarray(values), DENSE, mask, path=path, **given)


def thresholds(*weights):
    return [weight.threshold for weight in make_report(weights, []).weights]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, 5.0),  # of 8 values, 4 are kept
        (Block(2, 1), 6.0),  # averages of columns of two: 2 and 3, then 6 and 7
        (Block(2, 1, "max"), 7.0),  # 3 and 4, then 7 and 8
        (Block(2, 2), 6.5),
        (Block(3, 1), 4.0),  # averages of 3 and 4; the last row makes no block
        (NM(2, 4), None),
    ],
    ids=str,
)
def test_the_threshold_is_the_smallest_magnitude_that_would_be_kept(pattern, expected):
    assert thresholds(weight_of(EVEN, pattern=pattern)) == [expected]


def test_without_ranking_all_is_kept_and_the_smallest_of_all_is_the_threshold():
    assert thresholds(weight_of(EVEN, sparsity=0.0), weight_of(np.ones((0, 3)))) == [1.0, None]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_threshold_is_a_plain_number_in_every_dtype(dtype):
    (found,) = thresholds(weight_of(EVEN.astype(dtype)))
    assert type(found) is float and found == 5


def test_under_a_mask_the_threshold_is_what_the_mask_keeps():
    mask = EVEN > 0  # keeps 2, 4, 6, 8, whatever apply was asked
    values = np.where(mask, EVEN, 0)
    held = weight_of(values, sparsity=0.1, mask=mask)
    assert thresholds(held, weight_of(EVEN)) == [2.0, 1.0]  # the other one keeps all in this phase
    values[0, 1] = 0  # as where float16 underflows
    assert thresholds(weight_of(values, mask=mask)) == [0.0]
    blocks = np.repeat([[True, False], [False, True]], 2, axis=0)
    blocked = weight_of(np.where(blocks, EVEN, 0), pattern=Block(2, 1), mask=blocks)
    assert thresholds(blocked) == [2.0]  # averages of 1 and 3, and of 6 and 8


def test_one_ranking_over_all_has_one_threshold_but_for_what_each_keeps():
    small, large = (
        weight_of(EVEN, scope="global"),
        weight_of(EVEN + 100 * np.sign(EVEN), scope="global"),
    )
    assert thresholds(small, large) == [8.0, 102.0]  # the small one keeps its largest


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_cannot_be_ranked_has_no_threshold_and_the_report_no_fault(bad):
    broken = np.where(EVEN == 8, bad, EVEN)
    assert thresholds(weight_of(broken), weight_of(EVEN)) == [None, 5.0]
    assert thresholds(weight_of(broken, pattern=Block(2, 2)), weight_of(EVEN)) == [None, 5.0]
    of_all = [weight_of(broken, scope="global"), weight_of(EVEN, scope="global")]
    assert thresholds(*of_all) == [None, None]
    mask = np.abs(EVEN) == 8
    assert thresholds(weight_of(broken, mask=mask)) == [None]
    json.loads(make_report([weight_of(broken)], []).to_json(), parse_constant=pytest.fail)


def test_a_ranking_that_leaves_a_tensor_nothing_has_no_threshold():
    ones = [weight_of(np.ones((1, 2)), sparsity=0.9, scope="global") for _ in range(3)]
    assert thresholds(*ones) == [None] * 3


@pytest.fixture
def found():
    pruned = weight_of(np.where(EVEN > 0, EVEN, 0), "a/kernel", mask=EVEN > 0)
    other = weight_of(np.ones((10, 3)), LONG, pattern=Block(4, 1))
    skipped = [
        SkippedWeight("a/bias", (2,), "not <a> kernel"),
        SkippedWeight("s", (), "scalar"),
    ]
    return make_report([pruned, other], skipped)


def test_totals_and_shares(found):
    assert (found.size, found.total_size) == (38, 41)
    assert [w.share for w in found.weights] == [8 / 41, 30 / 41]
    assert found.sparsity == 4 / 38 and found.total_sparsity == 4 / 41


def test_json_holds_the_dict(found):
    data = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert data == found.to_dict()
    assert data["weights"][0] == {
        "path": "a/kernel", "shape": [4, 2], "size": 8, "share": 8 / 41,
        "target": 0.5, "asked": 0.5, "measured": 0.5, "threshold": 2.0, "masked": True,
        "uncovered": 0,
    }  # fmt: skip
    assert data["skipped"][0] == {
        "path": "a/bias", "shape": [2], "size": 2, "reason": "not <a> kernel",
    }  # fmt: skip
    assert (data["total_size"], data["total_sparsity"]) == (41, 4 / 41)


def test_rows_make_a_pandas_frame(found):
    frame = pandas.DataFrame(found.to_dict()["weights"])
    assert list(frame["path"]) == ["a/kernel", LONG]
    assert (frame["measured"] * frame["size"]).sum() / frame["size"].sum() == found.sparsity
    assert frame["threshold"].tolist() == [2.0, 1.0]
    assert list(pandas.DataFrame(found.to_dict()["skipped"])["reason"]) == [
        "not <a> kernel", "scalar",
    ]  # fmt: skip


def test_text_is_a_summary_of_five_lines_and_a_table(found, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    lines = found.render().splitlines()
    assert lines[:6] == [
        "sparsity     10.53% of 38 weights in 2 tensors (target 50.00%)",
        "all weights  9.76% of 41, with those left dense",
        "masks        active on 1 of 2 tensors",
        f"range        0.00% …{LONG[-48:]}) to 50.00% (a/kernel)",
        "left dense   3 weights in 2 tensors",
        "",
    ]
    assert lines[6].split() == "weight shape size share target sparsity threshold mask".split()
    assert lines[8].split() == "a/kernel 4 x 2 8 19.51% 50.00% 50.00% 2 active".split()
    name, *rest = lines[9].split()
    assert (
        name[0] == "…"
        and LONG.endswith(name[1:])
        and rest == ("10 x 3 30 73.17% 50.00% 0.00% 1 -".split())
    )
    assert lines[10:] == [
        "pattern: blocks of 4 x 1 (avg)",
        f"edge left dense: 6 values of …{LONG[-49:]}",
        "left dense: a/bias (not <a> kernel)",
        "left dense: s (scalar)",
    ]
    assert {*lines[7]} == {"-"} and "\x1b" not in found.render()
    assert max(map(len, lines)) <= 100


def weight(path, measured, size=100, masked=False, target=0.5):
    return WeightSparsity(path, (size,), target, measured, masked)


def report_of(*weights):
    return SparsityReport(weights, ())


def test_a_summary_shows_the_largest_weights():
    many = report_of(*(weight(f"w{i}", i / 200, size=i) for i in range(100)))
    assert many.render().splitlines()[8].split()[0] == "w0"
    lines = many.summary(3).splitlines()
    assert lines[:6] == many.render().splitlines()[:6]
    assert [line.split()[0] for line in lines[8:11]] == ["w99", "w98", "w97"]
    assert lines[11:] == ["… and 97 more"]
    assert many.summary(0).splitlines() == lines[:5]
    assert report_of().summary() == "no weights yet: the model is not built"
    with pytest.raises(ValueError, match=r"`n` to be at least 0 \(weights\)"):
        many.summary(-1)


def test_the_target_is_shown_where_it_is_known_of_all_weights():
    known = report_of(weight("a", 0.2, target=0.2), weight("b", 0.6, size=300, target=0.6))
    assert "50.00% of 400 weights in 2 tensors (target 50.00%)" in str(known)
    assert "range        20.00% in every tensor" in str(report_of(*[weight("a", 0.2)] * 2))
    assert "target " not in str(report_of(weight("a", 0.2), weight("b", 0.6, target=None)))[:90]


def test_a_diff_says_what_each_tensor_did():
    before = report_of(
        weight("same", 0.1), weight("pruned", 0.0), weight("regrown", 0.5, masked=True),
        weight("let go", 0.5, masked=True), weight("gone", 0.5), weight("masked", 0.5),
        weight("twice", 0.0), weight("twice", 0.5),
    )  # fmt: skip
    after = report_of(
        weight("new", 0.5), weight("same", 0.1), weight("pruned", 0.3, masked=True),
        weight("regrown", 0.01), weight("let go", 0.5), weight("masked", 0.5, masked=True),
        weight("twice", 0.0), weight("twice", 0.0),
    )  # fmt: skip
    found = before.diff(after)
    assert [(each.path, each.what, each.num_zeros) for each in found.weights] == [
        ("same", "unchanged", 0), ("pruned", "pruned", 30), ("regrown", "regrown", -49),
        ("let go", "mask removed", 0), ("gone", "gone", -50), ("masked", "mask applied", 0),
        ("twice", "unchanged", 0), ("twice", "regrown", -50), ("new", "new", 50),
    ]  # fmt: skip
    lines = found.render().splitlines()
    assert lines[:5] == [
        "sparsity  32.50% before, 23.88% after", "pruned    30 weights in 1 tensor",
        "regrown   99 weights in 2 tensors", "masks     applied to 2 tensors, removed from 2",
        "others    2 unchanged, 1 new, 1 gone",
    ]  # fmt: skip
    assert lines[9].split() == "pruned 100 0.00% 30.00% +30 pruned".split()
    assert lines[12].split() == "gone 100 50.00% - -50 gone".split()
    row = json.loads(found.to_json(), parse_constant=pytest.fail)["weights"][1]
    assert (row["what"], row["num_zeros"], row["after"]["measured"]) == ("pruned", 30, 0.3)


def test_reports_of_two_models_have_no_diff():
    one = report_of(weight("a", 0.1))
    with pytest.raises(ValueError, match="to be a report of the same model"):
        one.diff(report_of(weight("b", 0.1)))
    with pytest.raises(ValueError, match=r"'a' of shape \(9,\), before \(100,\)"):
        one.diff(report_of(weight("a", 0.1, size=9)))
    with pytest.raises(TypeError, match="Expected `after` to be a report"):
        one.diff(one.to_dict())
    assert one.diff(one).weights[0].what == "unchanged"


def test_rich_prints_it_whole_in_a_narrow_terminal(found):
    wide, narrow = (Console(file=io.StringIO(), width=width) for width in (1000, 40))
    wide.print(found)
    assert [line.rstrip() for line in wide.file.getvalue().splitlines()] == str(found).splitlines()
    narrow.print(found)
    assert "".join(narrow.file.getvalue().split()) == "".join(str(found).split())
    rich.print(found, file=(printed := io.StringIO()))
    assert "50.00%" in printed.getvalue()


def html_of(shown):
    """Its display in a browser: it is XML too, so a strict parser reads it."""
    shown_html = shown._repr_html_()
    assert "color" not in shown_html  # that of the notebook, light or dark
    text = ElementTree.fromstring(shown_html)
    assert text.tag == "pre"
    return text.text


def test_a_notebook_shows_the_table_whole(found):
    assert html_of(found) == found.render()


def test_a_report_of_nothing_says_so():
    empty = make_report([], [])
    assert empty.render() == "no weights yet: the model is not built"
    assert html_of(empty) == empty.render()
    rich.print(empty, file=(printed := io.StringIO()))
    assert printed.getvalue().strip() == empty.render()


def test_a_scan_is_shown_by_rich_and_in_a_notebook():
    scan = Sensitivity(1.5, (0.3, 0.6), "max", (WeightSensitivity(LONG, (4, 2), (1.25, math.nan)),))
    assert html_of(scan) == scan.render()
    *summary, _, head, _, row = scan.render().splitlines()
    assert summary == [
        "baseline         1.5 with nothing pruned (larger is better)",
        "scanned          8 weights in 1 tensor at 2 levels, 30% to 60%",
        f"most sensitive   …{LONG[-48:]}: nan at 60%",
        f"least sensitive  …{LONG[-48:]}: nan at 60%",
        "at no cost       0.00% of the weights, one tensor pruned at a time",
    ]
    assert head.split() == ["weight", "size", "30%", "60%"]
    assert row.startswith("…") and row.split()[1:] == "8 1.25 nan".split()
    assert max(map(len, scan.render().splitlines())) == 100
    (console := Console(file=io.StringIO(), width=40)).print(scan)
    assert "".join(console.file.getvalue().split()) == "".join(str(scan).split())
