"""Runs `tests.helpers.killed`: trainings that SIGKILL ended, and that were started again."""

import json

import numpy as np

from tests.helpers import forked, programs
from tests.helpers.paths import IMPORTS


def train(folder, *scenarios):
    """Runs scenarios, and returns each one's exit status by name."""
    program = programs.module("killed")
    done = forked.run(*program, folder, *map(json.dumps, scenarios), imports=IMPORTS)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    exits = {name: int(code) for name, code in (row for row in rows if len(row) == 2)}
    assert set(exits) == {each["name"] for each in scenarios}, done.stderr[-3000:]
    assert 1 not in exits.values(), done.stderr[-3000:]
    return exits


def results(folder, name):
    """Returns what a run ended with, as arrays by name."""
    with np.load(folder / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def check(folder, whole, restarted, same_epochs=True):
    """Asserts that two runs ended with the same weights, slots and masks, bit for bit.

    Without `same_epochs`, the epochs of the restarted run had other steps than those of the whole.
    """
    one, two = results(folder, whole), results(folder, restarted)
    for name, value in one.items():
        if name == "phases" and not same_epochs:
            continue
        if name == "phases":
            assert [*two[name]] == [*value][len(value) - len(two[name]) :]
        elif not name.startswith("mask_") or name in two:
            assert np.array_equal(value, two[name]), name
