"""The example that looks for settings with keras-tuner, in a few epochs."""

import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "tune.py"


@pytest.mark.slow
@pytest.mark.once_per_keras
def test_it_tries_settings_and_compares_the_best():
    pytest.importorskip("keras_tuner")
    flags = ["--trials=3", "--epochs=6", "--seeds=2"]
    done = subprocess.run([sys.executable, str(EXAMPLE), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    trials = re.findall(r"^ +0\.[1-8] +([1-3]) +([12]) +(\d+\.\d{4})$", done.stdout, re.M)
    assert len(trials) == 3
    scores = [float(score) for _, _, score in trials]
    assert scores == sorted(scores)
    assert re.search(r"^best trial +\d+\.\d{4} \(\d", done.stdout, re.M)
    assert re.search(r"^plain training +\d+\.\d{4} \(\d", done.stdout, re.M)
