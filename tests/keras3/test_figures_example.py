"""The example that draws the figures of the docs, in a few epochs."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "figures.py"


@pytest.mark.slow
@pytest.mark.once_per_keras
def test_it_draws_the_figures_that_the_docs_have(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    flags = ["--epochs=1", "--seeds=2", f"--folder={tmp_path / 'figures'}", "--seed=3"]
    done = subprocess.run([sys.executable, str(EXAMPLE), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    sizes = re.findall(r"^(\S+\.png)  ([\d,]+) bytes$", done.stdout, re.M)
    drawn = {pathlib.Path(path).name for path, _ in sizes}
    assert drawn == {path.name for path in (ROOT / "docs" / "figures").glob("*.png")}
    assert all(int(size.replace(",", "")) < 150_000 for _, size in sizes)
    assert re.search(r"^seed 3, keras_dsd .*, keras .* on jax, matplotlib .*$", done.stdout, re.M)
