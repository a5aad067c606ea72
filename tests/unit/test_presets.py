"""The phases of published schedules."""

import pytest

import keras_dsd as dsd
from keras_dsd.algorithm.timeline import Timeline

D, S = dsd.DensePhase, dsd.SparsePhase


def test_dsd():
    assert dsd.timelines.dsd(2, 3, 4, redense_lr=0.5) == [D(2), S(3), D(4, lr=0.5)]
    assert dsd.timelines.dsd(0, 3, 4) == [S(3), D(4, lr=0.1)]
    assert dsd.DSDSchedule(2, 3, 4).timeline == Timeline(dsd.timelines.dsd(2, 3, 4))


def test_dsdsd():
    found = dsd.timelines.dsdsd(1, 2, 3, 4, 5, redense_lr=0.5)
    assert found == [
        D(1), S(2, sparsity=0.5), D(3, lr=0.5), S(4, sparsity=0.25, lr=0.5), D(5, lr=0.25),
    ]  # fmt: skip
    assert dsd.timelines.dsdsd(0, 2, 3, 4, 5, sparsities=(0.8, 0.4))[0] == S(2, sparsity=0.8)


def test_acdc():
    cycle = [S(2, sparsity=0.9), D(3)]
    assert dsd.timelines.acdc(5, 2, 2, 3, sparsity=0.9) == [D(5), *cycle, *cycle]
    to_sparse = dsd.timelines.acdc(5, 2, 2, 3, sparsity=0.9, end="sparse", last=7)
    assert to_sparse == [D(5), *cycle, *cycle, S(7, sparsity=0.9)]
    assert dsd.timelines.acdc(1, 1, 2, 3, last=9) == [D(1), S(2), D(9)]
    assert dsd.timelines.acdc(1, 1, 2, 3, end="sparse")[-1] == S(2)


@pytest.mark.parametrize(("make", "error", "said"), [
    (lambda t: t.dsd(-1, 1, 1), ValueError, "`dense` to be at least 0"),
    (lambda t: t.dsdsd(1, 1, 1, 0, 1), ValueError, "`sparse_again` to be at least 1"),
    (lambda t: t.dsdsd(1, 1, 1, 1, 1, sparsities=0.5), TypeError, "two fractions.*=0.5"),
    (lambda t: t.dsdsd(1, 1, 1, 1, 1, sparsities=(0.5, 1.5)), ValueError, r"sparsities\[1\]=1.5"),
    (lambda t: t.acdc(1, 0, 1, 1), ValueError, r"`cycles` to be at least 1 \(cycles\)"),
    (lambda t: t.acdc(1, 1, 1, 1, end="both"), ValueError, "'dense' or 'sparse'.*end='both'"),
])  # fmt: skip
def test_errors(make, error, said):
    with pytest.raises(error, match=said):
        make(dsd.timelines)
