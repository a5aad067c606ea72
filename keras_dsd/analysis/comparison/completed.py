"""What was trained of a comparison so far: kept in a file after every arm, and gone on from."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from keras_dsd.analysis.comparison import processes, results_file, training
from keras_dsd.analysis.comparison.arms import FIRST
from keras_dsd.analysis.comparison.result import Run
from keras_dsd.analysis.comparison.training import Job
from keras_dsd.utils.progress import progress_bar


class Runs:
    """The arms of some seeds, of which a file may hold some.

    Args:
        job: What to train.
        seeds: The seeds.
        file: A JSON file to write after every arm, and to go on from where it exists.
        identity: What tells the comparison from others, as JSON has it.

    Raises:
        ValueError: The file is of another comparison, or of arms with unlike numbers of updates.
    """

    def __init__(
        self,
        job: Job,
        seeds: Sequence[int],
        file: pathlib.Path | None,
        identity: Mapping[str, Any],
    ) -> None:
        self._job, self._seeds, self._file, self._identity = job, seeds, file, identity
        found = [] if file is None else results_file.read(file, identity)
        logging.info("compare: %d runs in %s", len(found), file)
        self._runs = {(run.seed, run.arm): run for run in found}
        self._check_budget()

    def train(self, number: int, progress: bool) -> None:
        """Trains what is missing, `number` seeds at a time.

        Args:
            number: More than 1: each in a process of its own.
            progress: Whether to show a bar.

        Raises:
            ValueError: An arm made other updates than another.
        """
        todo = {seed: self._finished(seed) for seed in self._seeds if not self._is_whole(seed)}
        rest = self._job.num_epochs - self._job.num_shared
        total = len(self._seeds) * (self._job.num_shared + len(self._job.arms) * rest)
        left = sum(
            self._job.num_shared + (len(self._job.arms) - len(done)) * rest
            for done in todo.values()
        )
        with progress_bar(progress, total, total - left) as tell:
            if number > 1:
                for run in processes.train_seeds(self._job, todo, number, tell):
                    self._add(run)
            else:
                for seed, done in todo.items():
                    for run in training.train_seed(self._job, seed, done, tell):
                        self._add(run)

    def in_order(self) -> tuple[Run, ...]:
        """Returns all of them, by seed and arm."""
        return tuple(self._runs[seed, name] for seed in self._seeds for name in self._names)

    @property
    def _names(self) -> list[str]:
        return [*([FIRST] if self._job.has_first else []), *self._job.arms]

    def _is_whole(self, seed: int) -> bool:
        return all((seed, name) in self._runs for name in self._names)

    def _finished(self, seed: int) -> dict[str, str]:
        """Returns the arms of a seed that were trained, and what state each parted from."""
        arms = [self._runs[seed, name] for name in self._job.arms if (seed, name) in self._runs]
        return {run.arm: run.start for run in arms}

    def _add(self, run: Run) -> None:
        self._runs[run.seed, run.arm] = run
        self._check_budget()
        done = sum(arm != FIRST for _, arm in self._runs)
        logging.info("compare: %s of seed %d is trained; arms done: %d", run.arm, run.seed, done)
        if self._file is not None:
            results_file.write(self._file, self._identity, list(self._runs.values()))

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
