"""docs/benchmarks.md shows what was measured, and the programs that measure it run."""

import importlib
import importlib.util
import json
import math
import os
import subprocess
import sys

import pytest

from tests.helpers import benchmarks

TITLES = {
    "tf_keras": "tf_keras", "tensorflow": "Keras 3, TensorFlow", "jax": "Keras 3, JAX",
    "torch": "Keras 3, PyTorch",
}  # fmt: skip
FLAVOURS = tuple(TITLES)


@pytest.fixture(scope="module")
def cost():
    names = ("tables", "growth", "jobs", "networks", "filling")
    with benchmarks.imported(benchmarks.COST, *names) as found:
        yield found


def result(kind, flavour, subject, found, variant="", **other):
    job = "-".join(part for part in (kind, flavour, subject, variant) if part)
    return {
        "job": job, "kind": kind, "flavour": flavour, "subject": subject, "variant": variant,
        "machine": "2 cores", "versions": {"Python": "3.11"}, "date": "2026-01-02",
        "load before": 0.1, "found": found, **other,
    }  # fmt: skip


def steps(sparse):
    ratios = {"dense": [0.98, 1.0, 1.03], "sparse": sparse, "re-dense": [1.0, 1.0, 1.0]}
    return {"plain": [0.002, 0.002, 0.004], "ratios": ratios}


def table(name):
    return f"# Words\n\n<!-- {name} -->\nold\n<!-- end -->\n"


def test_the_page_shows_what_the_files_hold(cost):
    tables = cost["tables"]
    text = tables.PAGE.read_text(encoding="utf-8")
    results = tables.read_all(benchmarks.COST / "results")
    assert tables.filled(text, results) == text, "run python benchmarks/cost/tables.py"


def test_everything_that_is_measured_is_on_the_page(cost):
    names = cost["filling"].names_in(cost["tables"].PAGE.read_text(encoding="utf-8"))
    assert {name.removesuffix("-gpu") for name in names} == set(cost["tables"].TABLES)


@pytest.mark.parametrize(
    ("sparse", "shown"),
    [
        ([1.0, 1.01, 1.05], "1.010 (1.005 to 1.030)"),
        ([1.03, 1.05, 1.07], "**1.050 (1.040 to 1.060)**"),
        ([0.7, 0.8, 0.9], "0.800 (0.750 to 0.850)"),
    ],
)
def test_a_ratio_is_bold_where_it_misses_the_limit(cost, sparse, shown):
    text = cost["tables"].filled(table("steps"), [result("step_time", "jax", "mlp", steps(sparse))])
    assert f"| mlp | 2 ms | 1.000 (0.990 to 1.015) | {shown} |" in text


def test_steps_with_sgd_stand_beside_those_with_adam(cost):
    of_both = [result("step_time", "jax", "mlp", steps([1.0]), variant) for variant in ("", "sgd")]
    text = cost["tables"].filled(table("steps"), of_both)
    assert "| mlp | 2 ms |" in text and "| mlp, SGD | 2 ms |" in text


def test_what_a_gpu_took_stands_by_itself(cost):
    of_both = [
        result("step_time", "jax", "mlp", steps([1.0])),
        result("step_time", "jax", "lstm", steps([1.0]), job="step_time-jax-lstm-gpu"),
    ]
    text = cost["tables"].filled(table("steps") + table("steps-gpu"), of_both)
    on_cpu, on_gpu = text.split("# Words")[1:]
    assert "| mlp |" in on_cpu and "| lstm |" not in on_cpu
    assert "| lstm |" in on_gpu and "| mlp |" not in on_gpu


def test_a_flavour_has_one_colour_in_all_panels(cost, tmp_path, monkeypatch):
    from matplotlib import pyplot

    took = {name: [1.0] for name in ("first", "masks", "to sparse", "step", "sparse step")}
    found = {"plain": took, "DSD": took}
    results = [
        result("whole_fit", flavour, f"{kind}-{number}", found)
        for kind, flavours in (("layers", ("jax", "torch")), ("units", ("tf_keras", "torch")))
        for flavour in flavours for number in (10, 100)
    ]  # fmt: skip
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    cost["growth"].draw(results, tmp_path / "growth.png", cost["tables"].FLAVOURS)
    monkeypatch.undo()
    drawn = pyplot.gcf()
    lines = {(each.get_label(), each.get_color()) for panel in drawn.axes for each in panel.lines}
    pyplot.close(drawn)
    assert len(lines) == len({label for label, _ in lines}) == len({c for _, c in lines}) == 3


def test_rows_name_their_machine_and_day(cost):
    """A row may be measured again elsewhere: each ratio is of one process, seconds are not."""
    rows = [
        result("step_time", "jax", "mlp", steps([1.0]), machine="4 cores", date="2026-01-03"),
        result("step_time", "jax", "conv", steps([1.0])),
        result("step_time", "jax", "lstm", steps([1.0]), versions={"Python": "3.12"}),
    ]
    text = cost["tables"].filled(table("machine") + table("steps"), rows)
    assert "- A: 2 cores; Python 3.11; 2026-01-02." in text
    assert "- B: 2 cores; Python 3.12; 2026-01-02." in text
    assert "- C: 4 cores; Python 3.11; 2026-01-03." in text
    for line in text.splitlines():
        for name, when in {"mlp": "C 2026-01-03", "conv": "A 2026-01-02", "lstm": "B"}.items():
            assert not line.startswith(f"| {name} |") or when in line


def test_memory_is_what_dsd_adds_for_each_weight(cost):
    plain = {"size": 0, "resident": [2**21] * 3, "live": [2**20] * 3, "device": []}
    ours = {"size": 1000, "resident": [2**21 + 500] * 3, "device": []}
    ours["live"] = [2**20, 2**20 + 1000, 2**20]
    rows = [
        result("memory", "jax", "mlp", found, variant=f"{way}-{repeat}")
        for way, found in (("nodsd", plain), ("dsd", ours)) for repeat in range(3)
    ]  # fmt: skip
    text = cost["tables"].filled(table("memory"), rows)
    added = ["0.00", "1.00", "0.00"]
    for phase, live in zip(("dense", "sparse", "re-dense"), added, strict=True):
        assert f"| {phase} | 1 MiB | {live} B a weight | 2 MiB | 0.50 B a weight" in text


def test_sharded_kernels_are_shown_by_devices_and_processes(cost):
    found = {"kernels": 4000, "masks": 1000, "boundary bytes": 672, "boundary transfers": 18,
             "epoch bytes": 48, "epoch transfers": 1, "boundary": 1.5, "epoch end": 0.001,
             "step": 0.002, "sparse step": 0.003, "compiled": 2}  # fmt: skip
    variants = ("processes-2", "devices-8", "devices-2")
    rows = [result("devices", "jax", "units-1000", found, each) for each in variants]
    lines = cost["tables"].filled(table("devices"), rows).splitlines()
    cells = "| 4,000 B | 1,000 B | 672 B in 18 | 48 B in 1 | 1.50 s | 1 ms | 2 ms | 3 ms | 2 |"
    shown = [line.partition(" | ")[0] for line in lines if cells in line]
    assert shown == ["| 2, of 1 process", "| 8, of 1 process", "| 2, of 2 processes"]


def test_what_a_process_keeps_is_shown_of_both_ways(cost):
    kept = {way: {"live": mib * 2**20, "resident": mib * 2**21}
            for way, mib in (("nodsd", 20), ("dsd", 25))}  # fmt: skip
    rows = [result("models", "jax", "units-1400", each, way) for way, each in kept.items()]
    rows += [result("models", "torch", "units-1400", kept["dsd"], "dsd")]  # the other is to come
    text = cost["tables"].filled(table("models"), rows)
    assert "| Keras 3, JAX | 20.0 MiB | 25.0 MiB | 40.0 MiB | 50.0 MiB |" in text
    assert "PyTorch" not in text


def test_masks_are_shown_beside_numpy_s(cost):
    seconds = {"numpy.partition": [0.5, 0.5], "TF-MOT": [5.0, 5.0], "single weights": [0.25, 0.25]}
    memory = {"numpy.partition": 4.0, "single weights": 1.0}
    found = {"size": 10**6, "seconds": seconds, "memory": memory}
    large = {"size": 10**9, "seconds": {"numpy.partition": [1.0]}, "memory": {}}
    rows = [result("masks", "", "1000000", found), result("masks", "", "1000000000", large)]
    text = cost["tables"].filled(table("masks"), rows)
    assert "| TF-MOT | 0.2 M/s; 10.000 (10.000 to 10.000) |  |" in text
    assert "| single weights | 4 M/s, 1.0 B; 0.500 (0.500 to 0.500) |  |" in text


def test_the_exponent_is_that_of_the_power(cost):
    growth = cost["growth"]
    found = {
        count: {"plain": {"first": [0.0, 9.0, count**0.25], "step": [1e-3 * count**0.5]},
                "DSD": {"masks": [1e-3 * count], "to sparse": [count], "sparse step": [count**2]}}
        for count in (10, 100, 1000)
    }  # fmt: skip
    rows = [result("whole_fit", "jax", f"layers-{count}", each) for count, each in found.items()]
    (((axis, flavour), points),) = growth.lines(rows).items()
    assert (axis, flavour) == ("layers", "jax")
    shown = {name: growth.exponent(points[name]) for name in growth.MEASURES}
    assert shown == {
        "first": "0.25 ± 0.00", "masks": "1.00 ± 0.00", "to sparse": "1.00 ± 0.00",
        "step": "0.50 ± 0.00", "sparse step": "2.00 ± 0.00",
    }  # fmt: skip


def test_all_that_is_promised_is_measured(cost):
    jobs = cost["jobs"].jobs(has_gpu=True)
    assert len({job.name for job in jobs}) == len(jobs)
    steps_of = {(j.flavour, j.subject, j.variant) for j in jobs if j.kind == "step_time"}
    for network in ("mlp", "conv", "lstm", "transformer", "resnet50", "vgg16", "wide_mlp"):
        assert {(flavour, network, "") for flavour in FLAVOURS} <= steps_of
        assert {(f, network, "mirrored") for f in ("tf_keras", "tensorflow")} <= steps_of
    assert {job.flavour for job in jobs if job.on_gpu} == {"jax", "torch"}
    assert not any(job.on_gpu for job in cost["jobs"].jobs(has_gpu=False))
    for job in jobs:
        assert (job.environment.get("CUDA_VISIBLE_DEVICES") == "") != job.on_gpu


ALL = [(f, kind) for f in FLAVOURS for kind in ("step_time", "whole_fit")]
ALL += [(flavour, "mirrored") for flavour in ("tf_keras", "tensorflow")]
# Each flavour, and each program.
CHOSEN = {
    ("tf_keras", "mirrored"), ("tensorflow", "whole_fit"), ("jax", "step_time"),
    ("torch", "step_time"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("flavour", "what"), [
    pytest.param(*each, marks=[] if each in CHOSEN else pytest.mark.exhaustive) for each in ALL
])  # fmt: skip
def test_the_programs_measure(flavour, what, tmp_path):
    if flavour == "torch" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed; `make torch` installs it")
    is_mirrored = what == "mirrored"
    name = f"step_time-{flavour}-mlp-mirrored" if is_mirrored else f"{what}-{flavour}-mlp"
    steps = f"^{name}$"
    text, files = measured(tmp_path, f"--only={steps}", "--extra=--rounds=1")
    assert (f"| {TITLES[flavour]} | mlp | " if what == "whole_fit" else "| mlp | ") in text
    assert [file.stem for file in files] == [name]
    before = {file: file.stat().st_mtime_ns for file in files}
    _, files = measured(tmp_path, f"--only={steps}")
    assert {file: file.stat().st_mtime_ns for file in files} == before, "what is there is kept"


@pytest.mark.slow
def test_memory_is_measured(tmp_path):
    text, files = measured(tmp_path, r"--only=^memory-jax-wide_mlp-\w+-0$", "--extra=--steps=1")
    assert len(files) == 2
    assert "| Keras 3, JAX | wide_mlp | sparse | " in text


@pytest.mark.slow
@pytest.mark.parametrize("what", ["devices-2", "processes-2"])
def test_sharded_kernels_are_measured(what, tmp_path):
    text, (file,) = measured(tmp_path, f"--only=^devices-jax-units-1000-{what}$")
    found = json.loads(file.read_text())["found"]
    assert (found["boundary bytes"], found["epoch bytes"], found["compiled"]) == (672, 48, 2)
    assert found["kernels"] == 4 * found["masks"] and "| 672 B in 18 | 48 B in 1 |" in text


def test_a_name_that_matches_no_job_is_reported(tmp_path):
    with pytest.raises(AssertionError, match="a part of one of these. Received: --only=nothing"):
        measured(tmp_path, "--only=nothing")


def measured(folder, *flags):
    """Returns the page that is written, and the files of what was measured."""
    page = folder / "page.md"
    page.write_text("".join(map(table, ("machine", "steps", "fits", "memory", "devices"))))
    bench(page, folder / "results", *flags)
    files = list((folder / "results").glob("*.json"))
    for file in files:
        values = numbers(json.loads(file.read_text())["found"])
        assert values and all(map(math.isfinite, values))
    return page.read_text(), files


def bench(page, results, *flags):
    arguments = [benchmarks.COST / "bench.py", f"--page={page}", f"--results={results}", *flags]
    kept = {k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "KERAS_DSD_PATH")}
    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=kept)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]


def numbers(found):
    if isinstance(found, dict | list):
        of_parts = found.values() if isinstance(found, dict) else found
        return [number for part in of_parts for number in numbers(part)]
    return [found]
