"""Phases of each arm of a recipe, and the syntax of its flags."""

import pytest

from keras_dsd import DensePhase, SparsePhase
from recipes.arms import ends_of, parse, parts_of

pytestmark = pytest.mark.only_on("tensorflow")


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("30", [(30, 1.0)]),
        ("30,30@0.1, 30@1e-2", [(30, 1.0), (30, 0.1), (30, 0.01)]),
        ("0", []),
        ("0@0.1,2", [(2, 1.0)]),
    ],
)
def test_steps_read(text, steps):
    assert parse(text) == steps


@pytest.mark.parametrize(
    "text", ["", "ten", "3@", "3@0", "3@-1", "3@nan", "3@inf", "-3", "3.5", "3,"]
)
def test_steps_that_are_refused(text):
    with pytest.raises(ValueError, match="Expected epochs.*Received: .*Write 30, or"):
        parse(text)


GIVEN = {
    "dense": [(2, 1.0), (2, 0.1)],
    "sparse": [([(3, 0.1)], 0.5), ([(1, 0.01)], 0.25)],
    "redense": [[(2, 0.01)], [(2, 0.001)]],
}


def phases(arm, **given):
    return {part.name: part.phases for part in parts_of(arm, **{**GIVEN, **given})}


def test_dsd_has_the_phases_as_given():
    assert phases("dsd") == {
        "dense": [DensePhase(2), DensePhase(2, lr=0.1)],
        "sparse": [SparsePhase(3, sparsity=0.5, lr=0.1)],
        "re-dense": [DensePhase(2, lr=0.01)],
        "sparse 2": [SparsePhase(1, sparsity=0.25, lr=0.01)],
        "re-dense 2": [DensePhase(2, lr=0.001)],
    }


def test_llr_differs_in_that_nothing_is_pruned():
    assert phases("llr") == phases("dsd") | {
        "sparse": [DensePhase(3, lr=0.1)],
        "sparse 2": [DensePhase(1, lr=0.01)],
    }


def test_dense_stretches_the_first_phase_over_all():
    assert phases("dense") == {
        "dense": [DensePhase(4)],
        "sparse": [DensePhase(2), DensePhase(1, lr=0.1)],
        "re-dense": [DensePhase(2, lr=0.1)],
        "sparse 2": [DensePhase(1, lr=0.1)],
        "re-dense 2": [DensePhase(2, lr=0.1)],
    }


def test_all_arms_have_equal_epochs_and_are_evaluated_at_the_same_ones():
    ends = {arm: ends_of(parts_of(arm, **GIVEN)) for arm in ("dsd", "llr", "dense")}
    assert ends["dsd"] == ends["llr"] == ends["dense"] == [4, 7, 9, 10, 12]


def test_left_out_phases_are_not_trained():
    none = {"dense": [], "sparse": [([(3, 1.0)], 0.5), ([], 0.25)], "redense": [[(2, 0.1)], []]}
    assert list(phases("dsd", **none)) == ["sparse", "re-dense"]
    assert phases("dense", **none) == {"sparse": [DensePhase(3)], "re-dense": [DensePhase(2)]}
