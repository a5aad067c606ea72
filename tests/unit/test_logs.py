"""Logged values: plain numbers to all but the progress bars of both Kerases."""

import copy
import csv
import io
import json
import pickle

import numpy as np
import pytest

from keras_dsd.utils.logs import logged, plain

VALUES = {"phase": 2, "sparsity": 0.0, "left": 0, "rate": 1e-4, "half": 0.5}
SHOWN = {"phase": "2", "sparsity": "0", "left": "0", "rate": "0.0001", "half": "0.5"}


def format_of_keras(average):
    return f"{average:.4f}" if abs(average) > 1e-3 else f"{average:.4e}"


def keras_3(value):
    if not isinstance(value, float):
        value = np.mean(value)
    return format_of_keras(value / max(1, 1))


def tf_keras(value, steps=7):
    return format_of_keras(np.mean(value * steps / max(1, steps)))


@pytest.mark.parametrize("bar", [keras_3, tf_keras])
def test_progress_bars_show_them_as_one_writes_them(bar):
    assert {name: bar(value) for name, value in logged(VALUES).items()} == SHOWN
    assert bar(0.0) == "0.0000e+00"  # as it is without


def test_to_all_else_they_are_the_numbers():
    found = logged(VALUES)
    assert found == VALUES and hash(found["half"]) == hash(0.5)
    assert json.dumps(found) == json.dumps(VALUES) and f"{found}" == f"{VALUES}"
    assert [isinstance(v, int) for v in found.values()] == [True, False, True, False, False]
    texts = [io.StringIO(), io.StringIO()]
    for text, values in zip(texts, (found, VALUES), strict=True):
        csv.writer(text).writerow(values.values())
    assert texts[0].getvalue() == texts[1].getvalue()
    assert (
        f"{found['half']:.4f} {found['half'] * 100:.1f}% {found['phase']:03d}" == "0.5000 50.0% 002"
    )
    assert f"{found['half'] / 2:.3f} {found['half'] / 0.5:.4f}" == "0.250 1.0000"
    assert np.asarray([found["half"]]).dtype == np.float64
    assert type(found["half"] - 0.1) is float and type(found["phase"] * 1.5) is float


@pytest.mark.parametrize("again", [lambda v: pickle.loads(pickle.dumps(v)), copy.deepcopy, plain])
def test_copied_and_pickled_they_are_plain(again):
    found = {name: again(value) for name, value in logged(VALUES).items()}
    assert found == VALUES
    assert [type(value) for value in found.values()] == [int, float, int, float, float]
    assert plain("text") == "text"
