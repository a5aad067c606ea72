"""Plateau against the rule of Keras's EarlyStopping, and its arguments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_dsd as dsd

VALUES = st.lists(st.one_of(st.none(), st.floats(-3, 3), st.just(float("nan"))), max_size=12)


def by_early_stopping(values, patience, min_delta):
    """Keras's callback, value by value, smaller being better."""
    best, wait, best_index = float("inf"), 0, None
    for index, value in enumerate(values):
        if value is None:
            continue
        wait += 1
        if value < best - min_delta or (best_index is None and value == value):
            best, wait, best_index = value, 0, index
        if wait >= patience:
            return index + 1, best_index
    return None, best_index


@given(VALUES, st.integers(1, 4), st.sampled_from([0.0, 0.5]))
def test_it_ends_where_early_stopping_would(values, patience, min_delta):
    plateau = dsd.Plateau("loss", patience=patience, min_delta=min_delta)
    length, best = by_early_stopping(values, patience, min_delta)
    assert plateau.length(values) == length
    assert plateau.best(values[:length]) == best
    larger = dsd.Plateau("accuracy", patience=patience, min_delta=min_delta)
    turned = [None if value is None else -value for value in values]
    assert larger.length(turned) == length


@pytest.mark.parametrize(("name", "mode", "is_max"), [
    ("loss", "auto", False), ("val_loss", "auto", False), ("val_acc", "auto", True),
    ("val_sparse_categorical_accuracy", "auto", True), ("auc", "auto", True),
    ("loss", "max", True), ("accuracy", "min", False),
])  # fmt: skip
def test_modes(name, mode, is_max):
    plateau = dsd.Plateau(name, mode=mode)
    assert plateau.best([1.0, 2.0, 0.5]) == (1 if is_max else 2)


@pytest.mark.parametrize(("arguments", "error", "said"), [
    ({"monitor": 3}, TypeError, "`monitor` to be a name.*monitor=3"),
    ({"patience": 0}, ValueError, "`patience` to be at least 1"),
    ({"patience": 1.5}, TypeError, "`patience` to be a whole number"),
    ({"min_delta": -1}, ValueError, "`min_delta` to be finite and at least 0"),
    ({"mode": "best"}, ValueError, "'auto', 'min' or 'max'.*mode='best'"),
])  # fmt: skip
def test_errors(arguments, error, said):
    with pytest.raises(error, match=said):
        dsd.Plateau(**{"monitor": "loss", **arguments})
