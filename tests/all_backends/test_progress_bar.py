"""Logs of DSDSchedule in Keras's progress bar, and as other callbacks get them."""

import csv
import re

import pytest

import keras_dsd as dsd
from tests.helpers.paths import keras

NAMES = ("dsd_phase", "dsd_sparsity", "dsd_epochs_left", "dsd_learning_rate")
SHOWN = [("0", "0", "0", "0.01"), ("1", "0.5", "0", "0.01"), ("2", "0", "0", "0.0001")]
pytestmark = pytest.mark.once_per_keras


@pytest.mark.parametrize("verbose", [1, 2])
def test_values_are_printed_as_one_writes_them(verbose, digits, compiled, mlp, capsys, tmp_path):
    model = compiled(dsd.apply(mlp(), 0.5), run_eagerly=True)
    schedule = dsd.DSDSchedule(1, 1, 1, redense_lr=0.01)
    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    x, y = digits
    capsys.readouterr()
    history = model.fit(x[:96], y[:96], batch_size=32, epochs=3, verbose=verbose,
                        callbacks=[schedule, logger]).history  # fmt: skip
    printed = capsys.readouterr().out
    lines = re.findall(rf"- {NAMES[0]}: .*", printed)
    assert len(lines) == 3
    for line, shown in zip(lines, SHOWN, strict=True):
        found = dict(re.findall(r"(dsd_\w+): (\S+)", line))
        # Weights without a gradient stay zero once they were pruned.
        found["dsd_sparsity"] = "0" if shown[0] == "2" else found["dsd_sparsity"]
        assert tuple(found[name] for name in NAMES) == shown
    assert {type(value) for name in NAMES for value in history[name]} == {int, float}
    assert history["dsd_learning_rate"] == pytest.approx([0.01, 0.01, 0.0001])
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in NAMES:
        assert [row[name] for row in rows] == list(map(str, history[name]))
