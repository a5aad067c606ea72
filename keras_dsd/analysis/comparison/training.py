"""Trains the arms of a comparison: for each seed, the shared dense phase, then each arm."""

import concurrent.futures
import dataclasses
import importlib
import json
import math
import multiprocessing
import os
import pathlib
import pickle
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

import numpy as np
from absl import logging

from keras_dsd.adapters import registry
from keras_dsd.algorithm.masks import NotFiniteError
from keras_dsd.algorithm.phases import DensePhase, Phase, SparsePhase, epochs_of
from keras_dsd.algorithm.selection import Selection
from keras_dsd.analysis.comparison import dataset
from keras_dsd.analysis.comparison.arms import AVERAGED, FIRST, RANDOM, Arms, starts_with
from keras_dsd.analysis.comparison.dataset import arguments
from keras_dsd.analysis.comparison.result import Run
from keras_dsd.analysis.evaluation import number
from keras_dsd.callback import DSDSchedule, Hooks
from keras_dsd.engine.batch_norm import Batches

_SEED_STEP = 1_000_003  # larger than the distance between any two seeds
_POLL_SECONDS = 0.1
# From a process: a trained arm, a text on an epoch, or the seed that it trains, with its id.
_Message = Run | str | dict[int, int]
_messages: "SimpleQueue[_Message]"  # to the program that started this process


@dataclasses.dataclass(frozen=True)
class Job:
    """All inputs of training, which other processes receive.

    Attributes:
        digests: Digests that identify the data.
        shared: Dense training that arms start with, trained once; empty: none.
        adapter: The adapter of the models.
        num_averaged: Number of last epochs in which the arm `AVERAGED` averages its weights.
    """

    build: Callable[[], Any]
    data: Any
    digests: Mapping[str, str]
    arms: Arms
    shared: tuple[Phase, ...]
    apply_options: Mapping[str, Any]
    reset: str
    batches: Batches | None
    evaluate: Callable[[Any, Any], object]
    mode: str
    fit_options: Mapping[str, Any]
    adapter: str = ""
    num_averaged: int = 0

    @property
    def num_epochs(self) -> int:
        """Number of epochs of every arm."""
        return epochs_of(next(iter(self.arms.values())))

    @property
    def num_shared(self) -> int:
        """Number of epochs that arms share, if any of these arms does."""
        return epochs_of(self.shared) if any(map(self.shares, self.arms)) else 0

    def shares(self, arm: str) -> bool:
        """Returns whether an arm branches from the shared epochs."""
        return bool(self.shared) and starts_with(self.arms[arm], self.shared)

    def num_own(self, arm: str) -> int:
        """Returns the number of epochs that are an arm's own."""
        return self.num_epochs - (self.num_shared if self.shares(arm) else 0)

    @property
    def has_first(self) -> bool:
        """True if the shared start is scored as an arm."""
        starts = [phases[0] for phases in self.arms.values()]
        return self.num_shared > 0 or any(isinstance(phase, SparsePhase) for phase in starts)

    @property
    def state(self) -> Any:
        """The module that reads and writes the state of models."""
        return importlib.import_module(self.adapter).training_state

    def load(self) -> Mapping[str, Any]:
        """Returns the data; a function must return the same data each time."""
        if not callable(self.data):
            return self.data
        found = self.data()
        if dataset.digest(found) != self.digests:
            raise ValueError(
                "Expected data() to return the same data each time. Received: data that differ "
                "from the first. Split with a fixed seed, such as random_state=0."
            )
        return found

    def make(self, seed: int) -> Any:
        """Returns a new model, with the initial weights of a seed."""
        self.state.begin(seed)
        return self.build()

    def apply(self, model: Any) -> Any:
        """Returns the model with the weights that DSD prunes selected."""
        return importlib.import_module(self.adapter).apply(model, Selection(**self.apply_options))


def inspect(job: Job, seed: int) -> tuple[Job, dict[str, str]]:
    """Builds a model to inspect it, before training.

    Returns the job with its adapter, which shares the first phase only if this is exact, and the
    identity of the model and its optimizer.
    """
    adapter = registry.adapter_of(job.build(), "build()").__name__
    job = dataclasses.replace(job, adapter=adapter)
    model = job.make(seed)
    if not job.state.is_built(model) or getattr(model, "optimizer", None) is None:
        raise ValueError(
            f"Expected build() to return a model that is compiled and built. "
            f"Received: build()={model.name!r}, which "
            f"{'is not compiled' if job.state.is_built(model) else 'is not built'}. Start it with "
            f"an Input, or call model.build(shape), and call model.compile(...)."
        )
    if not job.state.is_known(model):
        job = dataclasses.replace(job, shared=())
    config = json.dumps(model.optimizer.get_config(), sort_keys=True, default=_words)
    weights = dataset.digest_of(job.state.weights_of(model))
    importlib.import_module(adapter).strip(job.apply(model))  # applied and stripped, as a check
    return job, {"initial weights": weights, "optimizer": config}


def train_seed(
    job: Job, seed: int, finished: Mapping[str, str], tell: Callable[[str], None]
) -> Iterator[Run]:
    """Trains the arms of a seed, and yields each when it is trained.

    The seed is set before `build()`, and `seed_at` before each `fit` that resumes at an epoch.
    `finished` holds the state from which each earlier arm branches. If the first dense phase now
    ends in another state, as it may on a GPU, these arms are trained again. `tell` is called with a
    message after each epoch.
    """
    model = job.make(seed)
    initial = state = job.state.read(model)
    origin = start = dataset.digest_of(initial)
    shared = None
    if job.num_shared:
        shared = _Segment(job, model, seed, FIRST, tell)
        state = _train(job, shared, job.shared, 0, job.num_shared)
        start = dataset.digest_of(state)
        yield shared.run(start, None)
    elif job.has_first:
        untouched = _Segment(job, model, seed, FIRST, tell)
        untouched.score()
        yield untouched.run(start, None)
    for arm in job.arms:
        branches = job.shares(arm)
        from_ = start if branches else origin
        if finished.get(arm) == from_:
            continue
        earlier, model = model, job.make(seed)
        if model is earlier:
            raise ValueError(
                f"Expected build() to return a new model each time. Received: the same "
                f"{model.name!r} again. Create its layers in build()."
            )
        job.state.write(model, state if branches else initial)
        segment = _Segment(job, model, seed, arm, tell)
        phases = [_drawn(phase, seed) if arm == RANDOM else phase for phase in job.arms[arm]]
        _train(job, segment, phases, job.num_shared if branches else 0, job.num_epochs)
        yield segment.run(from_, shared if branches else None)


def train_seeds(
    job: Job, todo: Mapping[int, Mapping[str, str]], number: int, tell: Callable[[str], None]
) -> Generator[Run, None, None]:
    """Trains `number` seeds concurrently, in processes if more than one; see `train_seed`.

    The error of a seed is raised after the finished arms of the others.
    """
    if number == 1:
        for seed, finished in todo.items():
            yield from train_seed(job, seed, finished, tell)
        return
    context, earlier = multiprocessing.get_context("spawn"), multiprocessing.active_children()
    messages = context.SimpleQueue()
    seeds: dict[int, int] = {}  # in training, by the id of the process
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ProcessPoolExecutor(number, context, _start, (messages,)) as pool,
    ):
        # In a file: a process that can't start would block on a long argument.
        file = pathlib.Path(folder, "job")
        file.write_bytes(pickle.dumps(job))
        futures = {pool.submit(_train_here, file, *each): each[0] for each in todo.items()}
        processes = [p for p in multiprocessing.active_children() if p not in earlier]
        pending = set(futures)
        try:
            while pending:
                done, pending = concurrent.futures.wait(
                    pending, _POLL_SECONDS, concurrent.futures.FIRST_EXCEPTION
                )
                yield from _received(messages, seeds, tell)
                for future in done:
                    if error := future.exception():
                        error.add_note(f"Raised in the process of seed {futures[future]}.")
                        raise error
        except BrokenProcessPool:
            pool.shutdown()
            raise _ended_early(processes, {0: next(iter(todo)), **seeds}) from None
        finally:
            if pending:  # their results would not be received
                for process in processes:
                    process.terminate()
                pool.shutdown(cancel_futures=True)


def _received(
    messages: "SimpleQueue[_Message]", seeds: dict[int, int], tell: Callable[[str], None]
) -> Iterator[Run]:
    """Yields the runs that processes send, and records the seed of each process."""
    while not messages.empty():
        message = messages.get()
        if isinstance(message, Run):
            yield message
        elif isinstance(message, str):
            tell(message)
        else:
            seeds.update(message)


def _ended_early(processes: Sequence[BaseProcess], seeds: Mapping[int, int]) -> RuntimeError:
    """Returns the error for a process that ended, after which the pool terminates the others."""
    died = [p for p in processes if p.exitcode not in (0, -signal.SIGTERM)] or processes
    return RuntimeError(
        f"Expected the process of seed {seeds.get(died[0].pid or 0, seeds[0])} to train it. "
        f"Received: exit code {died[0].exitcode}; its output is on stderr. If it could not start, "
        f"call compare() below `if __name__ == '__main__':`. If it was killed, memory may be too "
        f"small: lower parallel."
    )


def _start(messages: "SimpleQueue[_Message]") -> None:
    """Prepares a process to send messages, and to end with this program."""
    global _messages
    _messages = messages
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train_here(file: pathlib.Path, seed: int, finished: Mapping[str, str]) -> None:
    """Trains a seed in a separate process."""
    _messages.put({os.getpid(): seed})
    try:
        job = pickle.loads(file.read_bytes())
        for run in train_seed(job, seed, finished, _messages.put):
            _messages.put(run)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an exception may hold any object
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        raise


def seed_at(seed: int, epoch: int) -> int:
    """Returns the seed of a `fit` that starts at `epoch`: the seed itself at 0."""
    return (seed + _SEED_STEP * epoch) % 2**32


def _train(
    job: Job, segment: "_Segment", phases: Sequence[Phase], first: int, end: int
) -> list[np.ndarray]:
    """Trains from epoch `first` to before epoch `end`, and returns the state at the end."""
    callbacks = []
    if any(phase != DensePhase(phase.epochs) for phase in phases):
        with warnings.catch_warnings():  # inspect() has warned of the first model
            warnings.filterwarnings("ignore", message="Less than half of")
            segment.model = job.apply(segment.model)
        data, most = job.batches or (None, 1)
        callbacks = [
            DSDSchedule(
                phases=list(phases), reset=job.reset, batch_norm_data=data, batch_norm_batches=most
            )
        ]
    with warnings.catch_warnings():
        if isinstance(phases[-1], SparsePhase):  # as intended
            warnings.filterwarnings("ignore", message="Training ended with pruned weights")
        return segment.train(first, end, callbacks)


def _drawn(phase: Phase, seed: int) -> Phase:
    """Returns a phase whose random masks are those of a seed."""
    return dataclasses.replace(phase, seed=seed) if isinstance(phase, SparsePhase) else phase


class _Segment(Hooks):
    """One call of `fit`, and the callback in it that scores every epoch on validation data."""

    def __init__(
        self, job: Job, model: Any, seed: int, arm: str, tell: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._job, self.seed, self._arm, self._tell = job, seed, arm, tell
        self._average_from = math.inf if arm != AVERAGED else job.num_epochs - job.num_averaged
        self._kept: list[list[np.ndarray]] = []
        self.model = model
        self._first = 0
        self._num_updates_before = job.state.num_updates(model)
        self._data: Mapping[str, Any] = {}
        self._best_weights: list[np.ndarray] = []
        self.values: list[float] = []
        self.best = 0
        self.num_updates = 0
        self.test_last = self.test_best = math.nan

    def train(self, first: int, end: int, callbacks: Sequence[Any]) -> list[np.ndarray]:
        """Trains from epoch `first` to before epoch `end`, and returns the state at the end."""
        state, self._first = self._job.state, first
        # Datasets take their seeds when they are created.
        state.seed(seed_at(self.seed, first))
        self._data = self._job.load()
        state.seed(seed_at(self.seed, first))
        try:
            self.model.fit(
                *arguments(self._data["train"]), **self._job.fit_options, initial_epoch=first,
                epochs=end, verbose=0, callbacks=[*callbacks, self],
            )  # fmt: skip
        except NotFiniteError as error:  # a seed that fails counts where it ends
            logging.warning("compare: %s of seed %d failed. %s", self._arm, self.seed, error)
            self.values += [math.nan] * (end - first - len(self.values) - len(self._kept))
        self.num_updates = state.num_updates(self.model) - self._num_updates_before
        at_end: list[np.ndarray] = state.read(self.model)
        self._score_averages()
        self.test_last = self.test_best = self._value("test")
        if self.best != len(self.values) - 1 and self._best_weights:
            state.set_weights(self.model, self._best_weights)
            self.test_best = self._value("test")
        return at_end

    def score(self) -> None:
        """Scores the model without training it."""
        self._data = self._job.load()
        self.values = [self._value("validation")]
        self.test_last = self.test_best = self._value("test")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes a new model that resumes draw the random numbers of the earlier one."""
        # Before training, Keras runs a model once for its shapes, which draws random numbers.
        if self._first:
            self._job.state.seed(seed_at(self.seed, self._first))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Scores an epoch, or keeps its weights to average them after training."""
        if epoch >= self._average_from:
            self._kept.append(self._job.state.weights_of(self.model))
        else:
            self._note()
        self._tell(f"seed {self.seed}, {self._arm}, epoch {epoch + 1}")

    def _score_averages(self) -> None:
        """Scores the means of the weights that were kept up to each epoch."""
        sums: list[np.ndarray] = []
        for count, weights in enumerate(self._kept, 1):
            sums = [a + b for a, b in zip(sums, weights, strict=True)] if sums else weights
            means = [np.asarray(each / count, each.dtype) for each in sums]
            self._job.state.set_weights(self.model, means)
            self._note()

    def _note(self) -> None:
        """Scores the model, and keeps its weights if they are the best so far."""
        self.values.append(self._value("validation"))
        if len(self.values) == 1 or is_better(self.values[-1], self.values[self.best], self._job):
            self.best = len(self.values) - 1
            self._best_weights = self._job.state.weights_of(self.model)

    def run(self, start: str, shared: "_Segment | None") -> Run:
        """Returns the measurements, appended to those of the shared epochs."""
        values, best, test_best, earlier = self.values, self.best, self.test_best, 0
        if shared is not None:
            values, earlier = [*shared.values, *values], shared.num_updates
            best += len(shared.values)
            if not is_better(values[best], values[shared.best], self._job):
                best, test_best = shared.best, shared.test_best
        return Run(
            self.seed, self._arm, tuple(values), best, self.test_last, test_best,
            self.num_updates + earlier, start,
        )  # fmt: skip

    def _value(self, part: str) -> float:
        call = f"evaluate(model, data[{part!r}])"
        words = f"seed {self.seed}, {self._arm}"
        return number(self._job.evaluate(self.model, self._data[part]), words, call)


def is_better(value: float, other: float, job: Job) -> bool:
    """Returns whether a value is better than another; any value is better than NaN."""
    if math.isnan(value) or math.isnan(other):
        return math.isnan(other) and not math.isnan(value)
    return value < other if job.mode == "min" else value > other


def _words(value: object) -> str:
    """Returns text for a value that JSON can't represent, the same in every process."""
    return str(value) if isinstance(value, np.generic) else type(value).__qualname__
