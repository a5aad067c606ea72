"""The example that converts to LiteRT: both files are of one size."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "convert_to_litert.py"


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
@pytest.mark.skipif(
    importlib.metadata.version("tensorflow").startswith("2.16."), reason="its converter aborts"
)
def test_both_files_are_of_one_size(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--dsd_epochs=1", f"--out_dir={tmp_path}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    sizes = re.findall(r"^(\w+) +([\d,]+) bytes, .* for 540 images$", done.stdout, re.M)
    assert [name for name, _ in sizes] == ["dsd", "plain"]
    assert sizes[0][1] == sizes[1][1]
    on_disk = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert on_disk["dsd.tflite"] == on_disk["plain.tflite"] > 10_000
