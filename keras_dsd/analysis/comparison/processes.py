"""Trains seeds in processes of their own, each of which sends what it has trained."""

import multiprocessing
import pathlib
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import wait
from typing import Any

from keras_dsd.analysis.comparison.result import Run
from keras_dsd.analysis.comparison.training import Job, train_seed


def check_importable(job: Job, number: int) -> None:
    """Checks that other processes can be given a job, where there are any.

    Args:
        job: What is to be trained.
        number: How many processes; one is this one.

    Raises:
        ValueError: They can't.
    """
    if number == 1:
        return
    try:
        pickle.dumps((job.build, job.evaluate, job.data, job.apply_options, job.fit_options))
    except Exception as error:  # whatever is in there may raise anything
        raise ValueError(
            f"Expected what other processes can be given, as parallel is above 1. Received: "
            f"what can't be pickled ({error}). Define build, evaluate and a function "
            f"that returns the data at the top of a file; lambdas are in none. Or leave parallel "
            f"out."
        ) from error
    main = sys.modules["__main__"]
    for name in ("build", "evaluate", "data"):
        function = getattr(job, name)
        if getattr(function, "__module__", None) == "__main__" and not hasattr(main, "__file__"):
            raise ValueError(
                f"Expected `{name}` to be importable by other processes, as parallel is above 1. "
                f"Received: {name}={function!r}, of a notebook or prompt. Put it into a file and "
                f"import it from there, or leave parallel out."
            )


def train_seeds(
    job: Job, todo: Mapping[int, Mapping[str, str]], number: int, tell: Callable[[str], None]
) -> Iterator[Run]:
    """Trains seeds, several at a time, and yields each arm when it is trained.

    Args:
        job: What to train.
        todo: For each seed, the arms that were trained earlier, as `train_seed` takes them.
        number: How many processes at a time.
        tell: Called after each epoch, with words on it.

    Raises:
        RuntimeError: A process ended before it was done. What it raised itself is raised here.
    """
    # In a file: what goes through a pipe to a process that can't begin is waited for without end.
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "job")
        file.write_bytes(pickle.dumps(job))
        yield from _train_from(file, todo, number, tell)


def _train_from(
    file: pathlib.Path,
    todo: Mapping[int, Mapping[str, str]],
    number: int,
    tell: Callable[[str], None],
) -> Iterator[Run]:
    context = multiprocessing.get_context("spawn")
    waiting = list(todo)
    running: dict[Any, tuple[int, Any]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < number:
                ours, theirs = context.Pipe(duplex=False)
                seed = waiting.pop(0)
                process = context.Process(target=_work, args=(file, seed, todo[seed], theirs))
                process.start()
                theirs.close()
                running[ours] = (seed, process)
            for connection in wait(list(running)):
                seed, process = running[connection]
                kind, value = _receive(connection, seed, process)
                if kind == "epoch":
                    tell(value)
                elif kind == "run":
                    yield value
                elif kind == "error":
                    raise value
                else:
                    del running[connection]
                    process.join()
    finally:
        for _, process in running.values():
            process.terminate()


def _receive(connection: Any, seed: int, process: Any) -> tuple[str, Any]:
    try:
        return connection.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"Expected the process of seed {seed} to train it. Received: its end, with exit code "
            f"{process.exitcode}; stderr has what it said. Where it could not begin, call "
            f"compare() below `if __name__ == '__main__':`; where it was killed, there may be too "
            f"little memory for so many: lower parallel."
        ) from None


def _work(file: pathlib.Path, seed: int, finished: Mapping[str, str], connection: Any) -> None:
    """Trains a seed in a process of its own."""
    try:
        job = pickle.loads(file.read_bytes())
        for run in train_seed(job, seed, finished, lambda words: connection.send(("epoch", words))):
            connection.send(("run", run))
        connection.send(("done", None))
    except Exception as error:  # to be raised where somebody sees it
        connection.send(("error", _sendable(error)))


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception may be made of anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
