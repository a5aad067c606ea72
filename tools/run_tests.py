"""Runs the suite once for each path to Keras, and adds the results up.

Importing TF-MOT changes what tf.keras means, and the backend of Keras 3 is settled when Keras is
imported. So each path is a separate pytest; what needs no framework, or takes flags as a program
does, is another. Unknown arguments are passed to pytest:

    python tools/run_tests.py --only=jax -m "not slow" -k algorithm
    python tools/run_tests.py --only=torch/all_backends --only=tf_keras/unit
"""

import argparse
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
# In the order of their starts: the longest first.
PATHS = {
    "tf_keras": {"KERAS_DSD_PATH": "tf_keras", "KERAS_BACKEND": "tensorflow"},
    "jax": {"KERAS_DSD_PATH": "keras", "KERAS_BACKEND": "jax"},
    "tensorflow": {"KERAS_DSD_PATH": "keras", "KERAS_BACKEND": "tensorflow"},
    "torch": {"KERAS_DSD_PATH": "keras", "KERAS_BACKEND": "torch"},
}
# The networks are small: threads of several paths would wait for each other. XLA compiles the
# steps of each test: hastily, and only once where they are equal, in one run and in the next.
QUICK = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".build" / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
OF_KERAS_3 = ["all_backends", "keras3"]
# The folders of each pytest.
TESTS = {
    "tf_keras": [["all_backends", "tf_keras"], ["unit", "docs"], ["recipes"]],
    "jax": [OF_KERAS_3],
    "tensorflow": [OF_KERAS_3, ["recipes"]],
    "torch": [OF_KERAS_3],
}
NO_TESTS = 5  # pytest's exit code where none was collected
NUM_SLOWEST = 25


class Result(NamedTuple):
    """Numbers of passed, failed and skipped tests of a path, with further messages.

    `times` has the seconds and the name of each.
    """

    counts: Counter[str]
    remark: str = ""
    times: tuple[tuple[float, str], ...] = ()

    def merged(self, other: "Result") -> "Result":
        """Returns the result of both."""
        remark = "; ".join(filter(None, (self.remark, other.remark)))
        return Result(self.counts + other.counts, remark, self.times + other.times)


class Run:
    """pytest on folders of one path, given `further` arguments; it writes into `folder`."""

    def __init__(
        self, path: str, tests: Sequence[str], further: Sequence[str], folder: pathlib.Path
    ) -> None:
        self.path = path
        self._tests = [f"tests/{each}" for each in tests]
        self._began = time.monotonic()
        name = "-".join([path, *tests])
        self._output = folder / f"{name}.txt"
        self._results = folder / f"{name}.xml"
        # A separate cache, so that --last-failed refers to this path.
        own = [f"--junit-xml={self._results}", "-o", f"cache_dir=.pytest_cache/{name}"]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *self._tests, *own, *further],
                cwd=ROOT, env={**QUICK, **os.environ, **PATHS[path]}, process_group=0,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def has_ended(self) -> bool:
        """Returns whether pytest is done."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Ends pytest, and what its tests started, if it still runs."""
        if not self.has_ended():
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()

    def report(self) -> Result:
        """Prints what pytest printed, and returns how it went."""
        took = time.monotonic() - self._began
        print(f"\n==== {self.path}, {' '.join(self._tests)}: took {took:.0f} s")
        print(self._output.read_text(encoding="utf-8", errors="replace"), flush=True)
        return result_of(self._process.returncode, self._results)


def result_of(code: int, results: pathlib.Path) -> Result:
    """Returns how a pytest went that ended with `code` and should have written `results`."""
    ended = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    try:
        cases = ElementTree.parse(results).findall(".//testcase")
    except (FileNotFoundError, ElementTree.ParseError):
        return Result(Counter(failed=1), f"CRASHED: {ended} before it could report")
    counts = Counter(_outcome({child.tag for child in case}) for case in cases)
    times = tuple(
        (float(case.get("time", 0)), f"{case.get('classname')}::{case.get('name')}")
        for case in cases
    )
    if code in (0, NO_TESTS) or (code == 1 and counts["failed"]):
        return Result(counts, times=times)
    return Result(counts | Counter(failed=1), f"BROKEN OFF: {ended}", times)


def _outcome(tags: set[str]) -> str:
    return "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"


def summary(counts: Counter[str]) -> str:
    """Returns the counts as a line."""
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


def slowest(results: Mapping[str, Result]) -> str:
    """Returns lines of the slowest tests, with the fixtures that they were first to need."""
    times = [(*each, path) for path, result in results.items() for each in result.times]
    longest = sorted(times, reverse=True)[:NUM_SLOWEST]
    return "\n".join(f"{seconds:7.2f} s  {path}  {name}" for seconds, name, path in longest)


def parts_of(only: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns each path with the folders of each pytest: first the first of every path.

    Args:
        only: Paths, or paths and folders such as `"jax/all_backends"`; none: all.
    """
    longest = max(map(len, TESTS.values()))
    parts = [(p, TESTS[p][i]) for i in range(longest) for p in PATHS if i < len(TESTS[p])]
    chosen = [
        (path, [each for each in folders if not only or {path, f"{path}/{each}"} & {*only}])
        for path, folders in parts
    ]
    return [(path, folders) for path, folders in chosen if folders]


def run(
    parts: Sequence[tuple[str, Sequence[str]]], jobs: int, further: Sequence[str]
) -> dict[str, Result]:
    """Runs pytest on parts, `jobs` at a time, and returns the result of each path."""
    waiting, running = list(parts), list[Run]()
    results = {path: Result(Counter()) for path in PATHS if path in dict(parts)}
    with tempfile.TemporaryDirectory() as folder:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    path, folders = waiting[0]
                    print(f"{path}, {' '.join(folders)}: running", flush=True)
                    running.append(Run(*waiting.pop(0), further, pathlib.Path(folder)))
                for ended in [each for each in running if each.has_ended()]:
                    running.remove(ended)
                    results[ended.path] = results[ended.path].merged(ended.report())
                time.sleep(0.1)
        finally:
            for each in running:
                each.end()
                each.report()
    return results


def main(arguments: Sequence[str]) -> int:
    """Runs what the arguments ask for, prints a summary, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--jobs", type=int, default=2, help="how many paths at a time")
    names = [*PATHS, *(f"{path}/{each}" for path, folders in parts_of(()) for each in folders)]
    parser.add_argument(
        "--only", action="append", choices=names, metavar="PATH[/FOLDER]",
        help=f"may be repeated; a path is one of {', '.join(PATHS)}",
    )  # fmt: skip
    options, further = parser.parse_known_args(arguments)
    chosen = parts_of(options.only or ())
    has_torch = importlib.util.find_spec("torch") is not None
    able = [part for part in chosen if has_torch or part[0] != "torch"]
    results = run(able, max(options.jobs, 1), further)
    print(f"\n==== The slowest tests\n{slowest(results)}\n\n==== All paths")
    for path, (counts, remark, _) in results.items():
        said = remark or ("" if counts else "no tests")
        print(f"{path}: {summary(counts)}" + (f" ({said})" if said else ""))
    if len(able) < len(chosen):
        print("torch: LEFT OUT, since PyTorch is not installed; `make torch` installs it")
    total = sum((result.counts for result in results.values()), Counter())
    print(summary(total), flush=True)
    return int(total["failed"] > 0 or not total)  # an empty run fails


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("Interrupted: what was still running has been ended.")
