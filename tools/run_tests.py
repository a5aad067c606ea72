"""Runs the suite once for each path to Keras, and adds the results up.

Importing TF-MOT changes what tf.keras means, and the backend of Keras 3 is settled when Keras is
imported. So each path is a pytest of its own: one for each of its folders, which keeps all cores
busy to the end. What this program does not know goes on to pytest:

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
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
# In the order in which they begin: the longest first, so that nothing long is left for the end.
PATHS = {
    "jax": {"KERAS_DSD_PATH": "keras", "KERAS_BACKEND": "jax"},
    "tf_keras": {"KERAS_DSD_PATH": "tf_keras", "KERAS_BACKEND": "tensorflow"},
    "tensorflow": {"KERAS_DSD_PATH": "keras", "KERAS_BACKEND": "tensorflow"},
    "torch": {"KERAS_DSD_PATH": "keras", "KERAS_BACKEND": "torch"},
}
# The networks are small: threads of several paths would wait for each other. XLA compiles each
# test's steps anew: hastily, and once where they are the same.
QUICK = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
OF_KERAS_3 = ["tests/all_backends", "tests/keras3"]
TESTS = {
    "jax": OF_KERAS_3,
    "tf_keras": [
        "tests/all_backends",
        "tests/tf_keras",
        "tests/unit",
        "tests/docs",
        "tests/recipes",
    ],
    "tensorflow": [*OF_KERAS_3, "tests/recipes"],
    "torch": OF_KERAS_3,
}
NO_TESTS = 5  # pytest's exit code where none was collected


class Result(NamedTuple):
    """How many tests of a path passed, failed and were skipped, and what else there is to say."""

    counts: Counter[str]
    remark: str = ""

    def merged(self, other: "Result") -> "Result":
        """Returns the result of both."""
        return Result(
            self.counts + other.counts, "; ".join(filter(None, (self.remark, other.remark)))
        )


class Run:
    """pytest on one folder of one path, given `further` arguments; it writes into `folder`."""

    def __init__(self, path: str, tests: str, further: Sequence[str], folder: pathlib.Path) -> None:
        self.path = path
        self._tests = tests
        self._began = time.monotonic()
        name = f"{path}-{pathlib.Path(tests).name}"
        self._output = folder / f"{name}.txt"
        self._results = folder / f"{name}.xml"
        # A cache of its own: --last-failed then means what failed here.
        own = [f"--junit-xml={self._results}", "-o", f"cache_dir=.pytest_cache/{name}"]
        quick = {**QUICK, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", tests, *own, *further],
                cwd=ROOT, env={**quick, **os.environ, **PATHS[path]}, process_group=0,
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
        print(f"\n==== {self.path}, {self._tests}: took {took:.0f} s")
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
    if code in (0, NO_TESTS) or (code == 1 and counts["failed"]):
        return Result(counts)
    return Result(counts | Counter(failed=1), f"BROKEN OFF: {ended}")


def _outcome(tags: set[str]) -> str:
    return "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"


def summary(counts: Counter[str]) -> str:
    """Returns the counts as a line."""
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


def parts_of(only: Sequence[str]) -> list[tuple[str, str]]:
    """Returns each path with each of its folders: first the first folder of every path.

    Args:
        only: Paths, or paths and folders such as `"jax/all_backends"`; none: all.
    """
    longest = max(map(len, TESTS.values()))
    parts = [(p, TESTS[p][i]) for i in range(longest) for p in PATHS if i < len(TESTS[p])]
    return [
        (path, folder)
        for path, folder in parts
        if not only or {path, _name(path, folder)} & {*only}
    ]


def _name(path: str, folder: str) -> str:
    return f"{path}/{pathlib.Path(folder).name}"


def run(parts: Sequence[tuple[str, str]], jobs: int, further: Sequence[str]) -> dict[str, Result]:
    """Runs pytest on parts, `jobs` at a time, and returns the result of each path."""
    waiting, running = list(parts), list[Run]()
    results = {path: Result(Counter()) for path in PATHS if path in dict(parts)}
    with tempfile.TemporaryDirectory() as folder:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    print(f"{', '.join(waiting[0])}: running", flush=True)
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
    names = [*PATHS, *(_name(*part) for part in parts_of(()))]
    parser.add_argument(
        "--only", action="append", choices=names, metavar="PATH[/FOLDER]",
        help=f"may be repeated; a path is one of {', '.join(PATHS)}",
    )  # fmt: skip
    options, further = parser.parse_known_args(arguments)
    chosen = parts_of(options.only or ())
    has_torch = importlib.util.find_spec("torch") is not None
    able = [part for part in chosen if has_torch or part[0] != "torch"]
    results = run(able, max(options.jobs, 1), further)
    print("\n==== All paths")
    for path, (counts, remark) in results.items():
        said = remark or ("" if counts else "no tests")
        print(f"{path}: {summary(counts)}" + (f" ({said})" if said else ""))
    if len(able) < len(chosen):
        print("torch: LEFT OUT, since PyTorch is not installed; `make torch` installs it")
    total = sum((result.counts for result in results.values()), Counter())
    print(summary(total), flush=True)
    return int(total["failed"] > 0 or not total)  # that nothing ran is no success


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("Interrupted: what was still running has been ended.")
