"""DSD against plain training of the same budget, for a user's own model and data.

Arms, which all start with the same dense phase, trained once for each seed where that is exact, and
which all make as many updates, or there is an error:

- `"dense"`: plain training at its own learning rates.
- `"llr"`: dense, at the learning rates that DSD has in every epoch.
- `"llr at once"`: dense, at the last of these as soon as DSD prunes: the paper's own control to the
  letter.
- `"sparse"`: as DSD, but what is pruned first never returns.
- `"dsd"`: the phases that were given.

A control that would be the same as another arm is left out. Models are fitted on training data.
Every arm, and the start of all (the first dense phase, or where there is none what `build`
returned, trained before), is scored at its last epoch and at its epoch best on validation data, and
the control is the one that is best there: what early stopping gives too is no gain. Reported values
come from test data, on which nothing is chosen. Rows that test or validation data share
with others are counted, and refused above `max_shared_rows`; those of datasets are not looked at.

Before `build()` the seed is set, and again before each `fit`; where one resumes at an epoch, it is
`training.seed_at`. So batches are shuffled alike in every arm; those of a dataset that
shuffles by itself only where a function makes it. A learning rate that falls goes into the
optimizer as a `LearningRateSchedule`: callbacks are not taken.
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from keras_dsd.adapters.base.layers import NAMES, is_layer_of
from keras_dsd.algorithm.selection import DEFAULT_SPARSITY, Selection, Sparsity
from keras_dsd.algorithm.timeline import Phase, Timeline
from keras_dsd.analysis import evaluation
from keras_dsd.analysis.comparison import dataset
from keras_dsd.analysis.comparison.arms import ARMS, FIRST, make_arms, num_shared
from keras_dsd.analysis.comparison.dataset import arguments
from keras_dsd.analysis.comparison.importable import check_guarded, check_importable
from keras_dsd.analysis.comparison.result import Comparison, Run
from keras_dsd.analysis.comparison.statistics import scipy_stats
from keras_dsd.analysis.comparison.training import Job, inspect, train_seeds
from keras_dsd.callback import DSDSchedule
from keras_dsd.utils import checks, files
from keras_dsd.utils.checks import invalid, invalid_type, shown
from keras_dsd.utils.progress import progress_bar

Build = Callable[[], Any]
Data = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
Evaluate = Callable[[Any, Any], float]
Options = Mapping[str, Any] | None

_KIND = "keras_dsd comparison"
# compare() sets these itself; state that a callback has would not be the same in every arm.
_OWN = {
    "x", "y", "sample_weight", "epochs", "initial_epoch", "verbose", "callbacks",
    "validation_data", "validation_split", "validation_freq", "validation_steps",
    "validation_batch_size",
}  # fmt: skip


def compare(
    build: Build, data: Data, *, phases: Sequence[Phase] | DSDSchedule,
    sparsity: Sparsity = DEFAULT_SPARSITY, apply_options: Options = None,
    fit_options: Options = None, seeds: int | Iterable[int] = 5, arms: Iterable[str] = ARMS,
    evaluate: Evaluate | None = None, mode: str = "min", max_shared_rows: float = 0.0,
    path: str | os.PathLike[str] | None = None, parallel: int = 1, progress: bool = True,
) -> Comparison:  # fmt: skip
    """Trains a model with DSD and plainly, from the same weights and as long; says which is better.

    The module's docstring describes the arms, and what is chosen on which data.

    Args:
        build: Returns a new model, built and compiled. Random seeds are set before it is called.
        data: `{"train": (x, y), "validation": (x, y), "test": (x, y)}`, or a function that returns
            it, called before every `fit`. In place of a tuple, a dataset that can be read again.
        phases: A list, as of `keras_dsd.timelines`, without `until`; or a `DSDSchedule`.
        sparsity: As `apply` takes it.
        apply_options: Its other arguments, such as `{"pattern": NM(2, 4)}`.
        fit_options: Further arguments of `fit`, such as `{"batch_size": 64}`.
        seeds: How many, counted from 0, or a list of them; at least 2.
        arms: `"dsd"` and some of `"dense"`, `"llr"`, `"llr at once"`, `"sparse"`. Defaults to all.
        evaluate: Takes the model and a value of `data`; returns a number. Defaults to the loss.
        mode: `"min"` where smaller numbers are better, `"max"` where larger ones are.
        max_shared_rows: Which share of the rows of test data may be in others, a fraction.
        path: A JSON file to write after every arm, and to resume from; arms and seeds may be added.
        parallel: How many seeds to train at a time, each in a process that imports `build`.
        progress: Whether to show a bar, on a terminal and in a notebook. absl logs each arm anyhow.

    Returns:
        A `Comparison`: `print(it)` is a table and the verdict; `.plot()`, `.to_json()`.

    Raises:
        ImportError: SciPy is not installed.
        TypeError: An argument is of the wrong type, or `evaluate` returned no number.
        ValueError: An argument can't be used, such as test data that are among the others, or a
            file of another comparison; or an arm made fewer updates than others.
    """
    scipy_stats()
    number = checks.whole_number("parallel", parallel, least=1, unit="processes")
    check_guarded(number)
    numbers, is_shown = _check_seeds(seeds), checks.flag("progress", progress)
    file = evaluation.check_file(path, "comparison.json")
    applied, fitted = _check_apply(sparsity, apply_options), _check_options(fit_options)
    read = data() if callable(data) else data
    most = 1.0 if max_shared_rows == 1 else checks.fraction("max_shared_rows", max_shared_rows)
    shared = dataset.check_data(read, most)
    _check_functions(build, evaluate, mode)
    schedule = None
    if isinstance(phases, DSDSchedule):
        schedule, phases = phases, phases.timeline.phases
    chosen = make_arms(phases, arms)
    job = Job(
        build=build, data=data, digests=dataset.digest(read), arms=chosen,
        num_shared=num_shared(chosen), apply_options=applied, fit_options=fitted,
        reset=schedule.reset if schedule else "pruned",
        batches=schedule.batches if schedule else None, mode=evaluation.check_mode(mode),
        evaluate=evaluate or functools.partial(_loss, fitted.get("batch_size")),
    )  # fmt: skip
    check_importable(job, number)
    job, identity = inspect(job, numbers[0])
    runs = Runs(job, numbers, file, {**_identify(job, numbers), **identity})
    runs.train(number, is_shown)
    return Comparison(_name_of(evaluate), mode, _arms_of(job), runs.in_order(), shared)


def _check_functions(build: object, evaluate: object, mode: str) -> None:
    is_model = any(is_layer_of(build, package) for package in NAMES)
    if is_model or not callable(build):
        expected = "to be a function that returns a new compiled model"
        hint = "Give the function itself; it is called for every arm."
        raise invalid_type("build", build, expected, hint)
    if evaluate is not None:
        evaluation.check_evaluate(evaluate, "model, data", "model.evaluate(*data, verbose=0)[1]")
    elif mode == "max":
        raise ValueError(
            "Expected mode='min' where `evaluate` is left out: what is compared then is the loss. "
            "Received: mode='max'. Give evaluate=lambda model, data: model.evaluate(*data, "
            "verbose=0)[1] for the first metric that the model was compiled with."
        )


def _identify(job: Job, seeds: Sequence[int]) -> dict[str, Any]:
    """Returns the identity of a comparison, as JSON has it."""
    return {
        "arms": _arms_of(job),
        "seeds": list(seeds),
        "mode": job.mode,
        "data": dict(job.digests),
        "evaluate": _name_of(job.evaluate),
        "apply": {name: _words(value) for name, value in job.apply_options.items()},
        "reset": job.reset,
        "batches for BatchNormalization": job.batches.number if job.batches else None,
        "fit_options": {name: _words(value) for name, value in sorted(job.fit_options.items())},
    }


def _arms_of(job: Job) -> dict[str, str]:
    return {name: str(Timeline(phases)) for name, phases in job.arms.items()}


def _words(value: object) -> str:
    return _name_of(value) if callable(value) else repr(value)


def _name_of(evaluate: object) -> str:
    if evaluate is None or isinstance(evaluate, functools.partial):
        return "loss"
    name = getattr(evaluate, "__name__", type(evaluate).__name__)
    return "value" if name == "<lambda>" else str(name)


def _loss(batch_size: int | None, model: Any, part: Any) -> Any:
    """Returns the loss: the first value of a model's `evaluate`."""
    found = model.evaluate(*arguments(part), batch_size=batch_size, verbose=0)
    return found[0] if isinstance(found, list | tuple) else found


def _check_apply(sparsity: Sparsity, options: Options) -> dict[str, Any]:
    """Returns the arguments of `apply`."""
    found = _check_mapping("apply_options", options, "{'scope': 'global'}")
    if not {"exclude", "pattern", "scope"} >= set(found):
        raise ValueError(
            f"Expected `apply_options` to be some of exclude, pattern and scope. Received: "
            f"{', '.join(map(str, found))}. See what apply takes."
        )
    Selection(sparsity, **found)
    # The default is known by its identity, which it would not have in another process.
    return found if sparsity is DEFAULT_SPARSITY else {"sparsity": sparsity, **found}


def _check_mapping(name: str, value: Options, example: str) -> dict[str, Any]:
    if not isinstance(value, Mapping | None):
        raise invalid_type(name, value, "to be a dict", f"Give one, such as {example}.")
    return dict(value or {})


def _check_options(options: Options) -> dict[str, Any]:
    """Returns the further arguments of `fit`."""
    found = _check_mapping("fit_options", options, "{'batch_size': 64}")
    if _OWN & set(found):
        raise ValueError(
            f"Expected `fit_options` without what compare() gives fit itself. Received: "
            f"{', '.join(sorted(_OWN & set(found)))}. Leave it out; phases give the epochs, data "
            f"their tuples, and a LearningRateSchedule stands for a callback that sets the rate."
        )
    return found


def _check_seeds(seeds: int | Iterable[int]) -> list[int]:
    if isinstance(seeds, Iterable) and not isinstance(seeds, str | bytes):
        given = checks.items("seeds", seeds)
        found = [checks.whole_number(f"seeds[{i}]", seed, least=0, unit="a seed", most=2**32 - 1)
                 for i, seed in enumerate(given)]  # fmt: skip
    else:
        found = list(range(checks.whole_number("seeds", seeds, least=2, unit="seeds")))
    if len(found) < 2 or len(set(found)) != len(found):
        reason = "one alone can't show that a difference is more than chance"
        expected = f"to be two or more that differ: {reason}"
        raise invalid("seeds", seeds, expected, "Leave it out for 5.")
    return found


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
            contextlib.closing(train_seeds(job, todo, number, tell)) as trained,
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
        then, now = found.get(name), identity.get(name)
        if then != now and not _is_part(name, then, now):
            raise ValueError(
                f"Expected the file to be of a comparison with the same {name}. Received: "
                f"path={str(path)!r} with {name} {shown(then)}, but {shown(now)} here. Give "
                f"another path, or delete the file to begin anew."
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
