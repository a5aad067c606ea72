"""The example that `make demo` runs, in a few epochs."""

import pathlib
import re

import pytest

from tests.helpers import forked
from tests.helpers.paths import IMPORTS, PATH

pytestmark = pytest.mark.once_per_keras

QUICKSTART = pathlib.Path(__file__).parents[2] / "examples" / "quickstart.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "dense", [pytest.param(0, marks=[pytest.mark.exhaustive] * (PATH == "tf_keras")), 1]
)
def test_quickstart(dense, tmp_path):
    keras = "2" if PATH == "tf_keras" else "3"
    flags = [f"--keras={keras}", f"--dense={dense}", "--sparse=1", "--redense=1", "--sparsity=0.5",
             "--seed=3", f"--export_dir={tmp_path / 'exported'}"]  # fmt: skip
    done = forked.run(QUICKSTART, *flags, imports=IMPORTS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"dense_1/kernel .* 50\.00% +50\.00% +0\.\d+ +held", done.stdout)
    errors = dict(
        re.findall(r"^(dense|sparse|re-dense) +(\d+\.\d+%  *\d+\.\d+%)$", done.stdout, re.M)
    )
    assert list(errors) == ["dense", "sparse", "re-dense"][1 - dense :]
    if dense:
        ours, plain = errors["dense"].split()
        assert ours == plain
    assert "predicts the same for 540 images" in done.stdout
    assert "DSD phase 1/" in done.stderr
    assert len(QUICKSTART.read_text().splitlines()) <= 100
