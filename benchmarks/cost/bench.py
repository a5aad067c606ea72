"""Measures what DSD costs, and writes docs/benchmarks.md.

It resumes from benchmarks/cost/results; `--again` measures all again. Leave the machine
alone meanwhile: about two hours on two cores. Where nvidia-smi finds a GPU, Keras 3 on JAX and
PyTorch is measured there as well.

    make bench
    make bench ARGS="--only=step_time-jax --again"
"""

import contextlib
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

import tables
from absl import app, flags
from jobs import Job, jobs
from rich.progress import Progress

HERE = pathlib.Path(__file__).parent
_ONLY = flags.DEFINE_string("only", "", "What to measure: a regular expression on a job's name.")
_AGAIN = flags.DEFINE_bool("again", False, "Measure again what has been measured.")
_RESULTS = flags.DEFINE_string("results", str(HERE / "results"), "Where results are kept.")
_PAGE = flags.DEFINE_string("page", str(tables.PAGE), "The page to write.")
_EXTRA = flags.DEFINE_list("extra", [], "Flags that every program is given, such as --rounds=1.")
PACKAGES = (
    "keras",
    "tf_keras",
    "tensorflow",
    "tensorflow-model-optimization",
    "jax",
    "torch",
    "numpy",
)


def main(argv: list[str]) -> None:
    """Runs what is missing, then writes the page."""
    del argv
    every = jobs(has_gpu=bool(gpus()))
    wanted = [job for job in every if re.search(_ONLY.value, job.name)]
    if not wanted:
        names = "\n".join(job.name for job in every)
        sys.exit(f"{names}\nExpected a part of one of these. Received: --only={_ONLY.value}")
    results = pathlib.Path(_RESULTS.value)
    results.mkdir(parents=True, exist_ok=True)
    missing = [j for j in wanted if _AGAIN.value or not (results / f"{j.name}.json").exists()]
    load = os.getloadavg()[0]
    if missing and load > 1:
        print(f"Something else is running (load {load:.1f}): times will be off.", file=sys.stderr)
    failed = []
    with Progress() as progress:
        task = progress.add_task("", total=len(missing))
        for job in missing:
            progress.update(task, description=job.name)
            if error := measure(job, results / f"{job.name}.json"):
                failed.append(f"{job.name} failed:\n{error}")
            progress.advance(task)
    tables.write(pathlib.Path(_PAGE.value), results)
    print(f"{len(missing)} measured, {len(wanted) - len(missing)} kept: {results}, {_PAGE.value}")
    if failed:
        sys.exit("\n".join(failed))


def measure(job: Job, file: pathlib.Path) -> str:
    """Runs a program and keeps what it printed; returns what it said where it failed."""
    began = datetime.datetime.now().astimezone()
    load = os.getloadavg()[0]
    command = [sys.executable, str(HERE / f"{job.kind}.py"), *job.flags, *_EXTRA.value]
    done = subprocess.run(command, env=job.environment, capture_output=True, text=True)
    if done.returncode:
        return done.stderr[-2000:]
    found = {
        "job": job.name, "kind": job.kind, "flavour": job.flavour, "subject": job.subject,
        "variant": job.variant, "machine": machine(job.on_gpu), "versions": versions(),
        "date": began.date().isoformat(), "load before": round(load, 1),
        "found": json.loads(done.stdout.splitlines()[-1]),
    }  # fmt: skip
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return ""


def gpus() -> list[str]:
    """Returns the names of the NVIDIA GPUs."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[:-1]


def machine(on_gpu: bool) -> str:
    """Returns a description of the machine."""
    info = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = re.findall(r"model name\s*:\s*(.+)", info) or [platform.machine()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cpu = f"{len(os.sched_getaffinity(0))} cores of {names[0]}, {memory:.0f} GiB"
    return f"{gpus()[0]}, {cpu}" if on_gpu else cpu


def versions() -> dict[str, str]:
    """Returns the versions that matter; a machine with a GPU may lack TensorFlow."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


if __name__ == "__main__":
    app.run(main)
