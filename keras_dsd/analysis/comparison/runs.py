"""The runs of a comparison: kept in a file after every arm, and resumed from it."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from keras_dsd.analysis.comparison import training
from keras_dsd.analysis.comparison.arms import FIRST
from keras_dsd.analysis.comparison.result import Run
from keras_dsd.analysis.comparison.training import Job
from keras_dsd.utils import files
from keras_dsd.utils.checks import shown
from keras_dsd.utils.progress import progress_bar

_KIND = "keras_dsd comparison"


class Runs:
    """The arms of some seeds, of which a JSON file may hold some; it is written after every arm.

    The file may lack arms and seeds, since none has an effect on another. It is refused where it is
    of another comparison, by its identity, or where arms made unlike numbers of updates.
    """

    def __init__(
        self, job: Job, seeds: Sequence[int], file: pathlib.Path | None, identity: Mapping[str, Any]
    ) -> None:
        self._job, self._seeds, self._file, self._identity = job, seeds, file, identity
        found = [] if file is None else _read_runs(file, identity)
        logging.info("compare: %d runs in %s", len(found), file)
        self._runs = {(run.seed, run.arm): run for run in found}
        self._check_budget()

    def train(self, number: int, progress: bool) -> None:
        """Trains what is missing, `number` seeds at a time, each in a process if more than one."""
        job = self._job
        todo = {}  # for each seed, the arms that were trained, and the state they branched from
        for seed in self._seeds:
            if any((seed, name) not in self._runs for name in self._names):
                runs = [self._runs[seed, arm] for arm in job.arms if (seed, arm) in self._runs]
                todo[seed] = {run.arm: run.start for run in runs}
        rest = job.num_epochs - job.num_shared
        total = len(self._seeds) * (job.num_shared + len(job.arms) * rest)
        left = sum(job.num_shared + (len(job.arms) - len(done)) * rest for done in todo.values())
        with (
            progress_bar(progress, total, total - left) as tell,
            contextlib.closing(training.train_seeds(job, todo, number, tell)) as trained,
        ):
            for run in trained:
                self._add(run)

    def in_order(self) -> tuple[Run, ...]:
        """Returns all runs, by seed and arm."""
        return tuple(self._runs[seed, name] for seed in self._seeds for name in self._names)

    @property
    def _names(self) -> list[str]:
        return [*([FIRST] if self._job.has_first else []), *self._job.arms]

    def _add(self, run: Run) -> None:
        self._runs[run.seed, run.arm] = run
        self._check_budget()
        done = sum(arm != FIRST for _, arm in self._runs)
        logging.info("compare: %s of seed %d is trained; arms done: %d", run.arm, run.seed, done)
        if self._file is not None:
            data = {"kind": _KIND, "identity": self._identity, "runs": [*self._runs.values()]}
            files.write_json(self._file, files.plain(data))

    def _check_budget(self) -> None:
        """Refuses arms that were not trained alike: what wins may have been trained longer."""
        arms = [run for run in self._runs.values() if run.arm != FIRST]
        for run in arms[1:]:
            if run.num_updates != arms[0].num_updates:
                both = [f"{each.num_updates} in arm {each.arm!r} of seed {each.seed}"
                        for each in (arms[0], run)]  # fmt: skip
                raise ValueError(
                    f"Expected every arm to make as many updates. Received: {both[0]}, but "
                    f"{both[1]}. See that the data are as long each time they are read, and that "
                    f"nothing ends fit early."
                )


def load(path: pathlib.Path) -> tuple[dict[str, Any], list[Run]]:
    """Returns the identity of the comparison in a file, and its runs; empty without a file."""
    return files.read_results(path, _parse, "compare()") or ({}, [])


def _read_runs(path: pathlib.Path, identity: Mapping[str, Any]) -> list[Run]:
    found, runs = load(path)
    for name in {**identity, **found} if found else ():
        if _is_part(name, found.get(name), identity.get(name)):
            continue
        if found.get(name) != identity.get(name):
            raise ValueError(
                f"Expected the file to be of a comparison with the same {name}. Received: "
                f"path={str(path)!r} with {name} {shown(found.get(name))}, but "
                f"{shown(identity.get(name))} here. Give another path, or delete the file to begin "
                f"anew."
            )
    return runs


def _is_part(name: str, found: Any, complete: Any) -> bool:
    if name == "arms" and isinstance(found, dict):
        return found.items() <= complete.items()
    return name == "seeds" and isinstance(found, list) and all(seed in complete for seed in found)


def _parse(data: Any) -> tuple[dict[str, Any], list[Run]]:
    if data["kind"] != _KIND or not isinstance(data["identity"], dict):
        raise ValueError("it is of another kind")
    return data["identity"], [_parse_run(entry) for entry in data["runs"]]


def _parse_run(entry: Mapping[str, Any]) -> Run:
    values = {**entry, "validation": tuple(map(files.number_or_nan, entry["validation"]))}
    for name in ("test_last", "test_best"):
        values[name] = files.number_or_nan(entry[name])
    for name in ("seed", "best_epoch", "num_updates"):
        if type(entry[name]) is not int:
            raise ValueError(f"{entry[name]!r} is no whole number")
    run = Run(**values)
    if not 0 <= run.best_epoch < len(run.validation):
        raise ValueError(f"there is no epoch {run.best_epoch}")
    return run
