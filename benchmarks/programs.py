"""Runs programs of examples/, as benchmarks do: in separate processes."""

import os
import pathlib
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


def run(*arguments: object) -> str:
    """Runs Python with arguments, and returns what it printed last; shows all if it fails."""
    path = os.pathsep.join(map(str, (EXAMPLES, EXAMPLES.parent)))
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{arguments[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return (done.stdout.strip().splitlines() or [""])[-1]
