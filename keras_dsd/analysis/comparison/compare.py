"""DSD against equal-budget baselines, for a user's model and data.

All arms start with the same dense phase, which is trained once per seed if this is exact, and make
equal numbers of updates:

- `"dense"`: plain training.
- `"llr"`: plain training at the low learning rates (LLR) of DSD in every epoch.
- `"llr at once"`: plain training at the last of these learning rates from the first sparse epoch
  on. The control of the paper's ResNets, trained on at a rate a decade lower, is of this kind.
- `"sparse"`: as DSD, but weights pruned in the first sparse phase never regrow.
- `"dsd"`: the given phases.

A control that equals another arm is left out. Models are fitted on training data. Every arm, and
the shared start (the first dense phase or, without one, the trained model of `build`), is scored at
its last epoch and at its best epoch on validation data. DSD is compared with the control that is
best on validation data, so a gain that early stopping gives too does not count. Reported values are
those of test data, on which nothing is selected. Rows of test or validation data that are in other
parts too are counted, and refused above `max_shared_rows`; datasets are not checked.

The seed is set before `build()` and before each `fit`; a `fit` that resumes at an epoch has the
seed of `training.seed_at`. So batches are shuffled identically in every arm; for a dataset that
shuffles itself, only if a function creates it. Callbacks are not supported: set a learning rate
schedule as a `LearningRateSchedule` of the optimizer.
"""

import contextlib
import functools
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from keras_dsd.adapters.base.layers import NAMES, is_layer_of
from keras_dsd.algorithm.phases import Phase, epochs_of
from keras_dsd.algorithm.selection import DEFAULT_SPARSITY, Selection, Sparsity
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.analysis import evaluation
from keras_dsd.analysis.comparison import dataset
from keras_dsd.analysis.comparison.arms import (
    ARMS,
    FIRST,
    make_arms,
    make_paper_arms,
    shared_start,
)
from keras_dsd.analysis.comparison.dataset import arguments
from keras_dsd.analysis.comparison.importable import check_guarded, check_importable
from keras_dsd.analysis.comparison.paper import PaperComparison, Setting, compare_as_paper
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
# Set by compare() itself; the state of a callback would differ between arms.
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
    controls: str | None = None, weight_decays: Iterable[float] = (), tuning_seeds: int = 3,
    learning_rates: Iterable[float] = (),
) -> Comparison:  # fmt: skip
    """Compares DSD with equal-budget baselines over several seeds.

    Reports paired differences with confidence intervals. The module docstring describes the arms
    and the use of the three parts of the data.

    Args:
        build: Returns a new model, built and compiled. Random seeds are set before it is called.
        data: `{"train": (x, y), "validation": (x, y), "test": (x, y)}`, or a function that returns
            it, called before every `fit`. A dataset may replace a tuple.
        phases: A list of phases, such as those of `keras_dsd.timelines`, without `until`; or a
            `DSDSchedule`.
        sparsity: The argument of `apply`. Defaults to `0.3`.
        apply_options: Its other arguments, such as `{"pattern": NM(2, 4)}`. Defaults to `None`.
        fit_options: Further arguments of `fit`, such as `{"batch_size": 64}`. Defaults to `None`.
        seeds: Number of seeds, counted from 0, or a list of seeds; at least 2. Defaults to `5`.
        arms: `"dsd"` and some of `"dense"`, `"llr"`, `"llr at once"`, `"sparse"`. Defaults to all.
        evaluate: A function of the model and a value of `data` that returns a number. Defaults to
            the loss.
        mode: `"min"` if smaller numbers are better, `"max"` if larger ones are. Defaults to
            `"min"`.
        max_shared_rows: Maximum fraction of the rows of test data that may be in other parts.
            Defaults to `0.0`.
        path: A JSON file to write after every arm, and to resume from; arms and seeds may be added.
            Defaults to `None`: no file.
        parallel: Number of seeds to train concurrently, each in a process that imports `build`.
            Defaults to `1`.
        progress: Whether to show a progress bar, on a terminal or in a notebook. absl logs each arm
            in any case. Defaults to `True`.
        controls: `"paper"`: the protocol in the paper's regime, in place of `arms`. It adds an arm
            of averaged weights, random masks, iterated DSD and, where the learning rate falls in
            the first dense phase, arms that continue it at its first or last rate, one
            conventional run, and DSD and pruning for good within one. It chooses the best unpruned
            arm and the better schedules on tuning seeds, and answers two questions: DSD against
            that arm, and DSD against weights that never regrow. `path` then names several files.
            Defaults to `None`.
        weight_decays: With `controls="paper"`, the values that are tried on the tuning seeds, for
            each arm alike; `build` is then called as `build(weight_decay=value)`. Defaults to
            `()`: no tuning.
        tuning_seeds: With `controls="paper"`, the number of seeds that choices are made on, which
            are not reported. At least 2. Defaults to `3`.
        learning_rates: As `weight_decays`, for `build(learning_rate=value)`; with both, each pair
            is tried. Defaults to `()`: no tuning.

    Returns:
        A `Comparison`: `print(it)` shows a table and the verdict; `.plot()`, `.to_json()`. With
        `controls="paper"`, a `PaperComparison`.

    Raises:
        ImportError: SciPy is not installed.
        TypeError: An argument is of the wrong type, or `evaluate` does not return a number.
        ValueError: An argument is invalid, such as test data that are in other parts, or a file of
            another comparison; or an arm made fewer updates than others.
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
    tried = _check_controls(
        controls, arms, learning_rate=learning_rates, weight_decay=weight_decays
    )
    num_tuning = checks.whole_number("tuning_seeds", tuning_seeds, least=2, unit="seeds")
    chosen = make_arms(phases, arms) if controls is None else make_paper_arms(phases)
    job = Job(
        build=build, data=data, digests=dataset.digest(read), arms=chosen,
        shared=shared_start(chosen), apply_options=applied, fit_options=fitted,
        reset=schedule.reset if schedule else "pruned",
        batches=schedule.batches if schedule else None, mode=evaluation.check_mode(mode),
        evaluate=evaluate or functools.partial(_loss, fitted.get("batch_size")),
        num_averaged=epochs_of(phases[-1:]),
    )  # fmt: skip
    check_importable(job, number)

    def train(part: Job, at: Sequence[int], kept: pathlib.Path | None) -> tuple[Run, ...]:
        part, identity = inspect(part, at[0])
        runs = Runs(part, at, kept, {**_identify(part, at), **identity})
        runs.train(number, is_shown)
        return runs.in_order()

    if controls is None:
        runs = train(job, numbers, file)
        return Comparison(_name_of(evaluate), mode, _arms_of(job), runs, shared)
    pairs = itertools.product(*tried.values())
    settings = [Setting(**dict(zip(tried, values, strict=True))) for values in pairs]
    runs, found = compare_as_paper(job, numbers, settings, num_tuning, file, train)
    return PaperComparison(
        _name_of(evaluate), mode, _arms_of(job), runs, shared, num_tuning_seeds=num_tuning,
        tried=tried, **found._asdict(),
    )  # fmt: skip


def _check_controls(
    controls: str | None, arms: Iterable[str], **given: Iterable[float]
) -> dict[str, list[float]]:
    """Returns the values that are tried of each setting, of those that have any."""
    checked = {"learning_rate": checks.positive, "weight_decay": checks.not_negative}
    tried = {}
    for name, values in given.items():
        listed = f"{name}s"
        found = [
            checked[name](f"{listed}[{index}]", value)
            for index, value in enumerate(checks.items(listed, values))
        ]
        if found and controls is None:
            hint = "Add controls='paper', which tunes them."
            raise invalid(listed, found, "to be empty without `controls`", hint)
        if len(set(found)) != len(found):
            raise invalid(listed, found, "to differ from each other", "Give each one once.")
        if found:
            tried[name] = found
    if controls is not None:
        checks.choice("controls", controls, ("paper",))
        if arms is not ARMS:
            hint = "Leave one of them out."
            raise invalid("arms", arms, "to be left out with `controls`, which has arms", hint)
    return tried


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
            "Expected mode='min' without `evaluate`, as the loss is compared. "
            "Received: mode='max'. Give evaluate=lambda model, data: model.evaluate(*data, "
            "verbose=0)[1] for the first metric that the model was compiled with."
        )


def _identify(job: Job, seeds: Sequence[int]) -> dict[str, Any]:
    """Returns the identity of a comparison, as JSON types."""
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
            f"{', '.join(map(str, found))}. Remove the others."
        )
    Selection(sparsity, **found)
    # The default is recognized by identity, which would differ in another process.
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
            f"Expected `fit_options` without arguments that compare() sets. Received: "
            f"{', '.join(sorted(_OWN & set(found)))}. Leave it out: epochs come from phases, data "
            f"from tuples, and a LearningRateSchedule replaces a learning rate callback."
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
        reason = "one seed can't show that a difference is more than chance"
        expected = f"to be two or more that differ: {reason}"
        raise invalid("seeds", seeds, expected, "Leave it out for 5 seeds.")
    return found


class Runs:
    """The runs of all seeds and arms, with a JSON file that is written after every arm.

    The file may lack arms and seeds, since these are independent. It is refused if it is of another
    comparison, by its identity, or if arms made different numbers of updates.
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
        """Trains missing arms, `number` seeds concurrently, in processes if more than one."""
        job = self._job
        todo = {}  # for each seed, the trained arms, and the state from which they branch
        for seed in self._seeds:
            if any((seed, name) not in self._runs for name in self._names):
                runs = [self._runs[seed, arm] for arm in job.arms if (seed, arm) in self._runs]
                todo[seed] = {run.arm: run.start for run in runs}
        total = len(self._seeds) * (job.num_shared + sum(map(job.num_own, job.arms)))
        left = sum(
            job.num_shared + sum(job.num_own(arm) for arm in job.arms if arm not in done)
            for done in todo.values()
        )
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
        """Raises ValueError if arms made different numbers of updates, but for runs that failed."""
        runs = [run for run in self._runs.values() if run.arm != FIRST]
        arms = [run for run in runs if not math.isnan(run.validation[-1])]
        for run in arms[1:]:
            if run.num_updates != arms[0].num_updates:
                both = [f"{each.num_updates} in arm {each.arm!r} of seed {each.seed}"
                        for each in (arms[0], run)]  # fmt: skip
                raise ValueError(
                    f"Expected arms with equal numbers of updates. Received: {both[0]}, but "
                    f"{both[1]}. Check that the data have the same length each time they are "
                    f"read, and that nothing ends fit early."
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
                f"another path, or delete the file to start again."
            )
    return runs


def _is_part(name: str, found: Any, complete: Any) -> bool:
    if name == "arms" and isinstance(found, dict):
        return found.items() <= complete.items()
    return name == "seeds" and isinstance(found, list) and all(seed in complete for seed in found)


def _parse(data: Any) -> tuple[dict[str, Any], list[Run]]:
    if data["kind"] != _KIND or not isinstance(data["identity"], dict):
        raise ValueError("it is another file")
    return data["identity"], [_parse_run(entry) for entry in data["runs"]]


def _parse_run(entry: Mapping[str, Any]) -> Run:
    values = {**entry, "validation": tuple(map(files.number_or_nan, entry["validation"]))}
    for name in ("test_last", "test_best"):
        values[name] = files.number_or_nan(entry[name])
    for name in ("seed", "best_epoch", "num_updates"):
        if type(entry[name]) is not int:
            raise ValueError(f"{entry[name]!r} is not a whole number")
    run = Run(**values)
    if not 0 <= run.best_epoch < len(run.validation):
        raise ValueError(f"there is no epoch {run.best_epoch}")
    return run
