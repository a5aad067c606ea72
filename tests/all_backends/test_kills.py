"""Runs that SIGKILL ended, and that were started again: they end as if nothing had happened."""

import random

import numpy as np
import pytest

from tests.helpers.paths import PATH, keras
from tests.helpers.restarted import check, results, train

# PyTorch compiles nothing in each of many processes: CI runs all there, and some on tf_keras.
IS_IN_CI = PATH == "tf_keras" or keras.backend.backend() == "torch"
pytestmark = [] if IS_IN_CI else [pytest.mark.exhaustive]

# BackupAndRestore stands before DSDSchedule, or last.
KINDS = {
    "three": {"kind": "three"},
    "three, backup last": {"kind": "three", "last": True},
    "all": {"kind": "all", "last": True},
    "until": {"kind": "until"},
    "until, backup last": {"kind": "until", "last": True},
}
WAYS = {"kind": "ways", "last": True}


def in_part(values, chosen):
    """Parameters, of which CI runs all on one path, and those that are `chosen` on the other."""
    marks = [pytest.mark.exhaustive] * (PATH == "tf_keras")
    return [pytest.param(each, marks=[] if each in chosen else marks) for each in values]


def killed(name, kind, kill):
    """Returns the scenarios of a run that is killed, and of its second start."""
    first = {"name": f"{name}-killed", "backup": name, **KINDS[kind]}
    first.update({"kill_after": kill} if isinstance(kill, float) else {"kill": kill})
    return first, {"name": name, "backup": name, **KINDS[kind]}


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(tmp_path):
    kill = ("on_train_batch_end", 25, 0)  # in the first epoch of the sparse phase
    exits = train(tmp_path, {"name": "whole", "kind": "until"}, *killed("run", "until", kill))
    assert exits == {"whole": 0, "run-killed": -9, "run": 0}
    assert [*results(tmp_path, "whole")["phases"]] == [0, 0, 1, 1, 2, 2]
    check(tmp_path, "whole", "run")


@pytest.mark.slow
@pytest.mark.parametrize("kind", in_part(KINDS, {"until, backup last"}))
def test_kills_at_any_moment(kind, tmp_path):
    draw = random.Random(kind)
    kills = [("on_train_batch_end", 10 * epoch + draw.randrange(10), 0) for epoch in range(6)]
    kills += [("on_epoch_begin", 2, 0), ("on_epoch_begin", 4, 4), ("on_epoch_begin", 2, 4)]
    kills += [("on_epoch_end", 1, 0), ("on_epoch_end", 3, 4), ("on_train_batch_begin", 20, 0)]
    kills = [*draw.sample(kills, 5), draw.uniform(2, 6)]
    scenarios = [each for i, kill in enumerate(kills) for each in killed(f"run{i}", kind, kill)]
    exits = train(tmp_path, {"name": "whole", **KINDS[kind]}, *scenarios)
    for index, kill in enumerate(kills):
        assert exits[f"run{index}-killed"] in ((-9,) if isinstance(kill, tuple) else (-9, 0))
        check(tmp_path, "whole", f"run{index}")


@pytest.mark.slow
def test_what_steps_keep_outlives_a_kill(tmp_path):
    """Sums of gradients, masks that grow, weights that regrow in part and decay, averages."""
    scenarios = [{"name": "whole", **WAYS}]
    for batch in (25, 55):  # as masks grow, and in the second epoch that regrows
        named = {"name": f"run{batch}", "backup": f"run{batch}", **WAYS}
        kill = ("on_train_batch_end", batch, 0)
        scenarios += [{**named, "name": f"run{batch}-killed", "kill": kill}, named]
    exits = train(tmp_path, *scenarios)
    assert [*exits.values()] == [0, *[-9, 0] * 2]
    for batch in (25, 55):
        check(tmp_path, "whole", f"run{batch}")


@pytest.mark.slow
def test_killed_between_another_s_backup_and_the_record(tmp_path):
    """The values of that epoch are lost, and the run resumes."""
    first, again = killed("run", "until", ("on_epoch_end", 1, 2))
    assert train(tmp_path, first, again) == {"run-killed": -9, "run": 0}
    assert [*results(tmp_path, "run")["phases"]] == [0, 1, 1, 2]  # a dense phase of three epochs


@pytest.mark.slow
def test_killed_twice(tmp_path):
    first, again = killed("run", "until", ("on_train_batch_end", 15, 0))
    second = {**first, "name": "run-killed-again", "kill": ("on_train_batch_end", 18, 0)}
    exits = train(tmp_path, {"name": "whole", **KINDS["until"]}, first, second, again)
    assert [*exits.values()] == [0, -9, -9, 0]
    check(tmp_path, "whole", "run")


@pytest.mark.slow
@pytest.mark.parametrize("batch", in_part([7, 23, 27, 35, 44, 52], {23, 44}))
def test_backups_within_an_epoch(batch, tmp_path):
    """tf_keras resumes at the next step. Keras 3 restarts the epoch, with or without DSD."""
    scenarios = []
    for name in ("three", "dense", "plain"):
        given = {"kind": name, "save_freq": 3, "last": True}
        kill = ("on_train_batch_end", batch, 0)
        scenarios.append({"name": f"{name}-whole", **given})
        scenarios.append({"name": f"{name}-killed", "backup": name, **given, "kill": kill})
        scenarios.append({"name": name, "backup": name, **given})
    train(tmp_path, *scenarios)
    if PATH == "tf_keras":
        check(tmp_path, "three-whole", "three")
    dense, plain = results(tmp_path, "dense"), results(tmp_path, "plain")
    for name, value in plain.items():
        assert name == "phases" or np.array_equal(value, dense[name])
    whole, again = results(tmp_path, "three-whole"), results(tmp_path, "three")
    assert [*again["phases"]] == [0, 0, 1, 1, 2, 2][6 - len(again["phases"]) :]
    if batch >= 20 and len(again["phases"]) > 2:  # pruned before the kill: the same masks
        masks = [name for name in whole if name.startswith("mask_")]
        assert masks and all(np.array_equal(whole[name], again[name]) for name in masks)
