"""Runs a recipe as a user does, in a separate process, with the Keras that conftest.py chose."""

import json
import os
import pathlib

from tests.helpers import forked
from tests.helpers.paths import IMPORTS

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def start(program, *flags, **variables):
    """Runs `program` to its end and returns what subprocess does."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{EXAMPLES}", **variables}
    return forked.run(program, *flags, imports=IMPORTS, env=environment)


def run(program, workdir, *flags, **variables):
    """Runs `program`, which has to succeed, and returns what it printed."""
    done = start(program, f"--workdir={workdir}", *flags, **variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def result_of(workdir, arm="dsd", seed=0):
    """Returns what an arm has measured."""
    return json.loads((workdir / f"seed-{seed}" / arm / "results.json").read_text())


def table_of(workdir):
    """Returns the rows of the table: a dict of metrics, of values by seed."""
    return json.loads((workdir / "results.json").read_text())["rows"]
