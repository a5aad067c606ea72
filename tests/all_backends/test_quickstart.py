"""The example that `make demo` runs, in a few epochs."""

import importlib.metadata
import pathlib
import re
import runpy
import sys
import types

import pytest

from tests.helpers import forked
from tests.helpers.paths import IMPORTS, PATH

pytestmark = pytest.mark.once_per_keras

QUICKSTART = pathlib.Path(__file__).parents[2] / "examples" / "quickstart.py"


def test_a_saved_model_that_tensorflow_can_not_read_names_the_versions(monkeypatch):
    """The error of TensorFlow 2.21 with JAX 0.12, which the tests do not have."""
    message = "error: failed to deserialize portable artifact using StableHLO_v1.13.7"

    class InvalidArgumentError(Exception):
        pass

    def serve(images):
        raise InvalidArgumentError(message)

    saved_model = types.SimpleNamespace(load=lambda path: types.SimpleNamespace(serve=serve))
    errors = types.SimpleNamespace(InvalidArgumentError=InvalidArgumentError)
    tensorflow = types.SimpleNamespace(saved_model=saved_model, errors=errors, __version__="2.21.0")
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    monkeypatch.setattr(importlib.metadata, "version", {"jax": "0.12.0"}.get)
    load = runpy.run_path(str(QUICKSTART.with_name("load_exported.py")))["load"]
    with pytest.raises(SystemExit, match=r"TensorFlow 2\.21\.0 .* JAX 0\.12\.0 .*'jax<0\.11'"):
        load("saved_model")(None)
    message = "another error"
    with pytest.raises(InvalidArgumentError, match=message):
        load("saved_model")(None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dense", [pytest.param(0, marks=[pytest.mark.exhaustive] * (PATH == "tf_keras")), 1]
)
def test_quickstart(dense, tmp_path):
    keras = "2" if PATH == "tf_keras" else "3"
    flags = [f"--keras={keras}", f"--dense={dense}", "--sparse=1", "--redense=1", "--sparsity=0.5",
             "--seed=3", f"--export_dir={tmp_path / 'exported'}",
             f"--figure={tmp_path / 'curves.png'}"]  # fmt: skip
    done = forked.run(QUICKSTART, *flags, imports=IMPORTS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""  # neither TensorFlow's log nor anybody's
    steps = re.findall(
        r"^DSD, epoch (\d): test error \d+\.\d+%, (\S+), (\S+)% sparsity$", done.stdout, re.M
    )
    phases = ["dense", "sparse", "re-dense"][1 - dense :]
    assert [phase for _, phase, _ in steps] == phases
    assert steps[dense][2] == "50.0"
    rows = re.findall(r"^ +(dense|sparse|re-dense) +(\S+%) +(\S+%) *$", done.stdout, re.M)
    assert [row[0] for row in rows] == phases
    if dense:
        assert rows[0][1] == rows[0][2]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert f"Learning curves of the run with DSD: {tmp_path / 'curves.png'}\n" in done.stdout
    assert "predicts the same for 540 images" in done.stdout
