"""What a report says of weights made of arrays: thresholds, shares, and how it is shown."""

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
from keras_dsd.analysis.report import SkippedWeight, make_report
from keras_dsd.analysis.sensitivity import Sensitivity, WeightSensitivity

DENSE = Layout((), (0,), (1,))
LONG = "a" * 300 + "/[bold]<kernel>&:smile:"
EVEN = np.arange(1.0, 9).reshape(4, 2) * [-1, 1]  # magnitudes 1 to 8


class Weight:
    def __init__(self, values, path="kernel", sparsity=0.5, pattern=None, scope="layer", mask=None):
        self.path, self.values, self.shape = path, np.asarray(values), np.shape(values)
        self.sparsity, self.pattern, self.scope = sparsity, pattern, scope
        self.layout, self.mask = DENSE, mask

    def numpy(self):
        return self.values.copy()


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
    assert thresholds(Weight(EVEN, pattern=pattern)) == [expected]


def test_without_ranking_all_is_kept_and_the_smallest_of_all_is_the_threshold():
    assert thresholds(Weight(EVEN, sparsity=0.0), Weight(np.ones((0, 3)))) == [1.0, None]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_threshold_is_a_plain_number_in_every_dtype(dtype):
    (found,) = thresholds(Weight(EVEN.astype(dtype)))
    assert type(found) is float and found == 5


def test_under_a_mask_the_threshold_is_what_the_mask_keeps():
    mask = EVEN > 0  # keeps 2, 4, 6, 8, whatever apply was asked
    values = np.where(mask, EVEN, 0)
    held = Weight(values, sparsity=0.1, mask=mask)
    assert thresholds(held, Weight(EVEN)) == [2.0, 1.0]  # the other one keeps all in this phase
    values[0, 1] = 0  # as where float16 underflows
    assert thresholds(Weight(values, mask=mask)) == [0.0]
    blocks = np.repeat([[True, False], [False, True]], 2, axis=0)
    blocked = Weight(np.where(blocks, EVEN, 0), pattern=Block(2, 1), mask=blocks)
    assert thresholds(blocked) == [2.0]  # averages of 1 and 3, and of 6 and 8


def test_one_ranking_over_all_has_one_threshold_but_for_what_each_keeps():
    small, large = Weight(EVEN, scope="global"), Weight(EVEN + 100 * np.sign(EVEN), scope="global")
    assert thresholds(small, large) == [8.0, 102.0]  # the small one keeps its largest


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_cannot_be_ranked_has_no_threshold_and_the_report_no_fault(bad):
    broken = np.where(EVEN == 8, bad, EVEN)
    assert thresholds(Weight(broken), Weight(EVEN)) == [None, 5.0]
    assert thresholds(Weight(broken, pattern=Block(2, 2)), Weight(EVEN)) == [None, 5.0]
    of_all = [Weight(broken, scope="global"), Weight(EVEN, scope="global")]
    assert thresholds(*of_all) == [None, None]
    mask = np.abs(EVEN) == 8
    assert thresholds(Weight(broken, mask=mask)) == [None]
    json.loads(make_report([Weight(broken)], []).to_json(), parse_constant=pytest.fail)


def test_a_ranking_that_leaves_a_tensor_nothing_has_no_threshold():
    ones = [Weight(np.ones((1, 2)), sparsity=0.9, scope="global") for _ in range(3)]
    assert thresholds(*ones) == [None] * 3


@pytest.fixture
def found():
    pruned = Weight(np.where(EVEN > 0, EVEN, 0), "a/kernel", mask=EVEN > 0)
    other = Weight(np.ones((10, 3)), LONG, pattern=Block(4, 1))
    skipped = [SkippedWeight("a/bias", (2,), "not <a> kernel"), SkippedWeight("s", (), "scalar")]
    return make_report([pruned, other], skipped)


def test_totals_and_shares(found):
    assert (found.size, found.total_size) == (38, 41)
    assert [w.share for w in found.weights] == [8 / 41, 30 / 41]
    assert found.sparsity == 4 / 38 and found.total_sparsity == 4 / 41


def test_json_holds_the_dict(found):
    data = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert data == found.to_dict()
    assert data["weights"][0] == {
        "path": "a/kernel", "shape": [4, 2], "size": 8, "share": 8 / 41, "asked": 0.5,
        "measured": 0.5, "threshold": 2.0, "masked": True, "uncovered": 0,
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


def test_text_says_all_and_cuts_nothing(found, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    lines = found.render().splitlines()
    head = "weight shape size share asked measured threshold mask"
    assert lines[0].split() == head.split()
    assert lines[2].split() == "a/kernel 4 x 2 8 19.51% 50.00% 50.00% 2 held".split()
    assert lines[3].split() == [LONG, *"10 x 3 30 73.17% 50.00% 0.00% 1 -".split()]
    assert lines[5].split() == "total 38 92.68% 10.53%".split()
    assert lines[6].split() == "left dense 3 7.32%".split()
    assert lines[7].split() == "all 41 100.00% 9.76%".split()
    assert lines[8:] == [
        "pattern: blocks of 4 x 1 (avg)",
        f"edge left dense: 6 values of {LONG}",
        "left dense: a/bias (not <a> kernel)",
        "left dense: s (scalar)",
    ]
    assert {*lines[1]} == {*lines[4]} == {"-"}
    assert found.render().isascii() and "\x1b" not in found.render()


def test_rich_prints_it_whole_in_a_narrow_terminal(found):
    wide, narrow = (Console(file=io.StringIO(), width=width) for width in (1000, 40))
    wide.print(found)
    assert [line.rstrip() for line in wide.file.getvalue().splitlines()] == str(found).splitlines()
    narrow.print(found)
    assert "".join(narrow.file.getvalue().split()) == "".join(str(found).split())
    rich.print(found, file=(printed := io.StringIO()))
    assert "50.00%" in printed.getvalue()


def html_of(shown):
    """What a browser shows of it: it is XML too, so a parser that forgives nothing reads it."""
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
    head, _, row, _, total, baseline = scan.render().splitlines()
    assert head.split() == ["weight", "shape", "size", "30%", "60%"]
    assert row.split() == [LONG, *"4 x 2 8 1.25 nan".split()]
    assert (total.split(), baseline) == (["total", "8"], "nothing pruned: 1.5 (larger is better)")
    (console := Console(file=io.StringIO(), width=40)).print(scan)
    assert "".join(console.file.getvalue().split()) == "".join(str(scan).split())
