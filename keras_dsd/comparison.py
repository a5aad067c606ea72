"""DSD against plain training of the same budget, for a user's own model and data."""

import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keras_dsd import (
    checks,
    comparison_arms,
    comparison_data,
    comparison_file,
    comparison_processes,
    comparison_statistics,
    evaluation,
)
from keras_dsd.checks import shown
from keras_dsd.comparison_arms import ARMS, FIRST
from keras_dsd.comparison_data import arguments
from keras_dsd.comparison_result import Comparison, Run
from keras_dsd.comparison_run import Job, inspect, train_seed
from keras_dsd.patterns import Pattern
from keras_dsd.progress_bar import progress_bar
from keras_dsd.schedule import DSDSchedule
from keras_dsd.selection import DEFAULT_SPARSITY, Selection, Sparsity
from keras_dsd.timeline import Phase

# compare() sets these itself; state that a callback has would not be the same in every arm.
_OWN = {
    "x", "y", "sample_weight", "epochs", "initial_epoch", "verbose", "callbacks",
    "validation_data", "validation_split", "validation_freq", "validation_steps",
    "validation_batch_size",
}  # fmt: skip


def compare(
    build: Callable[[], Any],
    data: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    *,
    phases: Sequence[Phase] | DSDSchedule,
    sparsity: Sparsity = DEFAULT_SPARSITY,
    exclude: Sequence[str] = (),
    pattern: Pattern = None,
    scope: str = "layer",
    seeds: int | Iterable[int] = 5,
    arms: Iterable[str] = ARMS,
    evaluate: Callable[[Any, Any], float] | None = None,
    mode: str = "min",
    fit_options: Mapping[str, Any] | None = None,
    max_shared_rows: float = 0.0,
    path: str | os.PathLike[str] | None = None,
    parallel: int = 1,
    progress: bool = True,
) -> Comparison:
    """Trains a model with DSD and plainly, from the same weights and as long, and says which won.

    Arms: `"dense"`, plain training at its own learning rates; `"llr"`, dense at the learning rates
    that DSD has, the paper's own control; `"sparse"`, pruned once and never returned; `"dsd"`. All
    begin with the same dense phase, which is trained once for each seed. Every arm is scored at its
    last epoch and at its epoch best on validation data; the control is the best of them there; what
    is reported comes from test data, which nothing is chosen on.

    Args:
        build: Returns a new model, built and compiled, of either Keras. Random seeds are set
            before it is called.
        data: `{"train": (x, y), "validation": (x, y), "test": (x, y)}`; in place of a tuple also a
            dataset that can be read again. Or a function that returns such a dict, the same each
            time: it is called before every `fit`, so that datasets shuffle alike in every arm.
        phases: Those of DSD, none with `until`: a list, of `keras_dsd.timelines` also; or a
            `DSDSchedule`, of which `reset` and `batch_norm_data` count too.
        sparsity: As `apply` takes it.
        exclude: Likewise.
        pattern: Likewise.
        scope: Likewise.
        seeds: How many, counted from 0, or a list of them; at least 2.
        arms: Which of the four; `"dsd"` and one other at least. One that would be the same as
            another is left out. Defaults to all.
        evaluate: Takes the model and one of the values of `data`, and returns a number. It must not
            train. Defaults to `None`: the loss that `model.evaluate` returns.
        mode: `"min"` where smaller numbers are better, `"max"` where larger ones are.
        fit_options: What `fit` is given besides, such as `{"batch_size": 64}`.
        max_shared_rows: Which share of the rows of one part of the data, such as test, may be in
            another too, a fraction. Rows of datasets are not looked at. Defaults to `0.0`.
        path: A JSON file to write whenever an arm is trained. Where it exists, the comparison goes
            on from it. Defaults to `None`: no file.
        parallel: How many seeds to train at a time, each in a process of its own, which has to
            import `build`. Defaults to `1`: one after another, here.
        progress: Whether to show a progress bar, where stderr is a terminal, or in a notebook.

    Returns:
        A `Comparison`: `print(it)` is a table and the verdict; `.plot()`, `.to_json()`.

    Raises:
        ImportError: SciPy is not installed.
        TypeError: An argument is of the wrong type, or `evaluate` returned no number.
        ValueError: An argument can't be used; test data are in the others; the file is not whole
            or of another comparison; or an arm made fewer updates than others.

    Examples:
        >>> result = compare(build, data, phases=timelines.dsd(10, 10, 10))

    Reference:
        Han et al., 2017, arXiv:1607.04381.
    """
    comparison_statistics.scipy_stats()
    _check_callable("build", build, "that returns a new compiled model")
    Selection(sparsity, exclude, pattern, scope)
    evaluation.check_mode(mode)
    options = _check_options(fit_options)
    numbers = _check_seeds(seeds)
    file = evaluation.check_file(path, "comparison.json")
    checks.flag("progress", progress)
    schedule = phases if isinstance(phases, DSDSchedule) else None
    chosen = comparison_arms.make_arms(schedule.timeline.phases if schedule else phases, arms)
    if evaluate is not None:
        evaluation.check_evaluate(evaluate, "model, data", "model.evaluate(*data, verbose=0)[1]")
    read = data() if callable(data) else data
    shared_rows = comparison_data.check_data(read, _share(max_shared_rows))
    job = Job(
        build=build,
        data=data,
        digests=comparison_data.digest(read),
        arms=chosen,
        num_shared=comparison_arms.num_shared(chosen),
        apply_options=dict(sparsity=sparsity, exclude=exclude, pattern=pattern, scope=scope),
        reset=schedule.reset if schedule else "pruned",
        batches=schedule.batches if schedule else None,
        evaluate=evaluate or functools.partial(_loss, options.get("batch_size")),
        mode=mode,
        fit_options=options,
    )
    number = checks.whole_number("parallel", parallel, least=1, unit="processes")
    if number > 1:
        comparison_processes.check_importable(job)
    job, identity = inspect(job, numbers[0])
    runs = _Runs(job, numbers, file, {**_identify(job, numbers), **identity})
    runs.train(number, progress)
    return Comparison(
        metric=_name_of(evaluate),
        mode=mode,
        arms={name: comparison_arms.words_of(phases) for name, phases in job.arms.items()},
        runs=runs.in_order(),
        shared_rows=shared_rows,
    )


class _Runs:
    """What was trained so far, and its file."""

    def __init__(
        self,
        job: Job,
        seeds: Sequence[int],
        file: pathlib.Path | None,
        identity: Mapping[str, Any],
    ) -> None:
        self._job, self._seeds, self._file, self._identity = job, seeds, file, identity
        found = [] if file is None else comparison_file.read(file, identity)
        self._runs = {(run.seed, run.arm): run for run in found}
        self._check_budget()

    def train(self, number: int, progress: bool) -> None:
        """Trains what is missing, `number` seeds at a time."""
        todo = {seed: self._finished(seed) for seed in self._seeds}
        todo = {seed: done for seed, done in todo.items() if len(done) < len(self._job.arms)}
        rest = self._job.num_epochs - self._job.num_shared
        total = len(self._seeds) * (self._job.num_shared + len(self._job.arms) * rest)
        left = sum(
            self._job.num_shared + (len(self._job.arms) - len(done)) * rest
            for done in todo.values()
        )
        with progress_bar(progress, total, total - left) as tell:
            if number > 1:
                for run in comparison_processes.train_seeds(self._job, todo, number, tell):
                    self._add(run)
            else:
                for seed, done in todo.items():
                    for run in train_seed(self._job, seed, done, tell):
                        self._add(run)

    def in_order(self) -> tuple[Run, ...]:
        """Returns all of them, by seed and arm."""
        names = [*([FIRST] if self._job.num_shared else []), *self._job.arms]
        return tuple(self._runs[seed, name] for seed in self._seeds for name in names)

    def _finished(self, seed: int) -> dict[str, str]:
        """Returns the arms of a seed that were trained, and what state each parted from."""
        arms = [self._runs[seed, name] for name in self._job.arms if (seed, name) in self._runs]
        return {run.arm: run.start for run in arms}

    def _add(self, run: Run) -> None:
        self._runs[run.seed, run.arm] = run
        self._check_budget()
        if self._file is not None:
            comparison_file.write(self._file, self._identity, list(self._runs.values()))

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


def _identify(job: Job, seeds: Sequence[int]) -> dict[str, Any]:
    """Returns what tells a comparison from others, as JSON has it."""
    return {
        "arms": {name: comparison_arms.words_of(phases) for name, phases in job.arms.items()},
        "seeds": list(seeds),
        "mode": job.mode,
        "data": dict(job.digests),
        "evaluate": _name_of(job.evaluate),
        "apply": {name: _words(value) for name, value in job.apply_options.items()},
        "reset": job.reset,
        "batches for BatchNormalization": job.batches.number if job.batches else None,
        "fit_options": {name: _words(value) for name, value in sorted(job.fit_options.items())},
    }


def _words(value: Any) -> str:
    return _name_of(value) if callable(value) else repr(value)


def _name_of(evaluate: Any) -> str:
    if evaluate is None or isinstance(evaluate, functools.partial):
        return "loss"
    name = getattr(evaluate, "__name__", type(evaluate).__name__)
    return "value" if name == "<lambda>" else str(name)


def _loss(batch_size: int | None, model: Any, part: Any) -> Any:
    """Returns the loss, of what `evaluate` of a model returns."""
    found = model.evaluate(*arguments(part), batch_size=batch_size, verbose=0)
    return found[0] if isinstance(found, list | tuple) else found


def _check_callable(name: str, value: Any, words: str) -> None:
    if not callable(value):
        raise TypeError(
            f"Expected `{name}` to be a function {words}. Received: {name}={shown(value)} of type "
            f"{type(value).__name__}. Give the function itself, which is called for every arm."
        )


def _check_options(options: Any) -> dict[str, Any]:
    if not isinstance(options, Mapping | None):
        raise TypeError(
            f"Expected `fit_options` to be a dict. Received: fit_options={shown(options)} of type "
            f"{type(options).__name__}. Give one, such as {{'batch_size': 64}}."
        )
    found = dict(options or {})
    if _OWN & set(found):
        raise ValueError(
            f"Expected `fit_options` without what compare() gives fit itself. Received: "
            f"{', '.join(sorted(_OWN & set(found)))}. Leave it out; phases give the epochs, data "
            f"their tuples, and a LearningRateSchedule stands for a callback that sets the rate."
        )
    return found


def _check_seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, Iterable) and not isinstance(seeds, str | bytes):
        given = checks.items("seeds", seeds)
        most = 2**32 - 1
        found = [checks.whole_number(f"seeds[{i}]", seed, least=0, unit="a seed", most=most)
                 for i, seed in enumerate(given)]  # fmt: skip
    else:
        found = list(range(checks.whole_number("seeds", seeds, least=0, unit="seeds")))
    if len(found) < 2 or len(set(found)) != len(found):
        raise ValueError(
            f"Expected `seeds` to be two or more that differ: one alone can't show that a "
            f"difference is more than chance. Received: seeds={shown(seeds)}. Leave it out for 5."
        )
    return found


def _share(value: Any) -> float:
    return 1.0 if value == 1 else checks.fraction("max_shared_rows", value)
