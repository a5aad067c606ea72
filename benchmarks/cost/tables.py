"""Writes docs/benchmarks.md, out of what was measured: a table for each name that stands on it.

python benchmarks/cost/tables.py
"""

import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import growth
import numpy as np
from jobs import NETWORKS, STEPS

sys.path.append(str(pathlib.Path(__file__).parents[1]))

import filling

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "benchmarks.md"
FIGURE = "figures/benchmarks/growth.png"
ALT = (
    "Seconds against size, on logarithmic axes: a row of panels each for the number of layers, of "
    "weights and of devices, a panel each for what the table has a column of"
)
FLAVOURS = {
    "tf_keras": "tf_keras", "tensorflow": "Keras 3, TensorFlow", "jax": "Keras 3, JAX",
    "torch": "Keras 3, PyTorch",
}  # fmt: skip
PHASES = ("dense", "sparse", "re-dense")
LIMITS = {"dense": 1.0, "sparse": 1.02, "re-dense": 1.0}
Result = Mapping[str, Any]
Results = Sequence[Result]


def write(page: pathlib.Path, results: pathlib.Path) -> None:
    """Rewrites the tables of a page, and its figure."""
    every = read_all(results)
    page.write_text(filled(page.read_text(encoding="utf-8"), every), encoding="utf-8")
    if growth.lines(every):
        figure = page.parent / FIGURE
        figure.parent.mkdir(parents=True, exist_ok=True)
        growth.draw(every, figure, FLAVOURS)


def read_all(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns what was measured, in the order of the files' names."""
    return [json.loads(each.read_text("utf-8")) for each in sorted(folder.glob("*.json"))]


def filled(page: str, results: Results) -> str:
    """Returns a page with its tables rewritten; a table whose name ends in -gpu is of a GPU."""

    def table(name: str) -> str:
        kind, _, device = name.partition("-")
        of_device = [each for each in results if each["job"].endswith("-gpu") == (device == "gpu")]
        lines = list(TABLES[kind](of_device))
        nothing = "There was none." if device else "Not measured."
        return "\n".join(lines or [nothing]) + "\n"

    return filling.filled(page, table)


def machine(results: Results) -> Iterable[str]:
    """Yields a line for each machine, or each set of versions, with the letter that rows have."""
    yield from [""] * bool(results)
    for letter, rows in by_machine(results).items():
        loads = np.quantile([each["load before"] for each in rows], [0.5, 1])
        versions = ", ".join(f"{name} {number}" for name, number in rows[0]["versions"].items())
        yield (
            f"- {letter}{': ' * bool(letter)}{rows[0]['machine']}; {versions}; {_days(rows)}. "
            f"Load of the machine before each program: median {loads[0]:.1f}, at most "
            f"{loads[1]:.1f}."
        )


def by_machine(results: Results) -> dict[str, list[Result]]:
    """Returns what each machine has measured, by a letter; by none where there is one machine."""
    found: dict[str, list[Result]] = {}
    for each in sorted(results, key=lambda each: str(each["date"])):
        found.setdefault(f"{each['machine']} {each['versions']}", []).append(each)
    letters = "ABCDEFGH" if len(found) > 1 else [""]
    return dict(zip(letters, found.values(), strict=False))


def measured(rows: Results, results: Results) -> str:
    """Returns where and when rows were measured: the letters of machines, and days."""
    known = {each["job"] for each in rows}
    letters = [
        letter
        for letter, of_machine in by_machine(results).items()
        if known & {each["job"] for each in of_machine}
    ]
    return f"{', '.join(letters)} {_days(rows)}".strip()


def _days(rows: Results) -> str:
    dates = sorted({each["date"] for each in rows})
    return " to ".join(dict.fromkeys((dates[0], dates[-1])))


def steps(results: Results) -> Iterable[str]:
    """Yields the tables of step times: one for each Keras, plain and mirrored."""
    mirrored = ", two devices under MirroredStrategy"
    for words, variants in {"": ("", "sgd", "jit"), mirrored: ("mirrored",)}.items():
        for flavour, title in FLAVOURS.items():
            of_flavour = chosen(results, kind="step_time", flavour=flavour)
            rows = [row for row in of_flavour if row["variant"] in variants]
            if rows:
                yield from [f"**{title}{words}**", "", *_step_table(rows, results), ""]


def _step_table(rows: Results, results: Results) -> Iterable[str]:
    names = [*PHASES, "TF-MOT"] if "TF-MOT" in rows[0]["found"]["ratios"] else PHASES
    yield f"| network | plain step | {' | '.join(names)} | measured |"
    yield "|---|---|---|" + "---|" * len(names)
    for row in by_subject(rows, (*STEPS, "dropout")):
        ratios = row["found"]["ratios"]
        cells = (_ratio(ratios[name], LIMITS.get(name)) for name in names)
        plain = 1e3 * np.median(row["found"]["plain"])
        how = {"sgd": ", SGD", "jit": ", jit_compile"}
        name = row["subject"] + how.get(row["variant"], "")
        when = measured([row], results)
        yield f"| {name} | {plain:.3g} ms | {' | '.join(cells)} | {when} |"


def fits(results: Results) -> Iterable[str]:
    """Yields the table of whole fits and of going between phases."""
    if not chosen(results, kind="whole_fit"):
        return
    yield (
        "| | network | first step of plain `fit` | to sparse, DSD | of which masks | TF-MOT | "
        "to re-dense, DSD | TF-MOT | whole `fit`: DSD to plain | TF-MOT to plain | measured |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for flavour, title in FLAVOURS.items():
        rows = chosen(results, kind="whole_fit", flavour=flavour, variant="")
        for row in by_subject(rows, NETWORKS):
            cells = " | ".join(_fit_cells(row["found"]))
            yield f"| {title} | {row['subject']} | {cells} | {measured([row], results)} |"


def _fit_cells(found: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterable[str]:
    plain, ours, theirs = found["plain"], found["DSD"], found.get("TF-MOT", {})
    yield _seconds(plain["first"])
    yield _seconds(ours["to sparse"])
    yield _seconds(ours["masks"])
    yield _seconds(theirs.get("to sparse"))
    yield _seconds(ours["to re-dense"])
    yield _seconds(theirs.get("to re-dense"))
    for way in (ours, theirs):
        yield _ratio(np.divide(way["total"], plain["total"])) if way else "—"


def masks(results: Results) -> Iterable[str]:
    """Yields the table of masks: weights a second, and time beside numpy.partition's."""
    rows = sorted(chosen(results, kind="masks"), key=lambda row: int(row["subject"]))
    if not rows:
        return
    yield "| | " + " | ".join(f"{int(row['subject']):,} weights" for row in rows) + " |"
    yield "|---|" + "---|" * len(rows)
    for name in rows[0]["found"]["seconds"]:
        yield f"| {name} | " + " | ".join(_mask_cell(row["found"], name) for row in rows) + " |"
    yield "| measured | " + " | ".join(measured([row], results) for row in rows) + " |"


def _mask_cell(found: Mapping[str, Any], name: str) -> str:
    seconds = found["seconds"].get(name)
    if seconds is None:
        return ""
    speed = f"{found['size'] / np.median(seconds) / 1e6:,.3g} M/s"
    memory = f", {found['memory'][name]:.1f} B" if name in found["memory"] else ""
    numpys = found["seconds"]["numpy.partition"]
    return f"{speed}{memory}; {_ratio(np.divide(seconds, numpys))}"


def memory(results: Results) -> Iterable[str]:
    """Yields the table of memory: plain, and what DSD adds in each phase."""
    rows = chosen(results, kind="memory")
    if not rows:
        return
    has_device = bool(rows[0]["found"]["device"])
    measures = ("live", "device") if has_device else ("live", "resident")
    yield (
        "| | network | phase | "
        + " | ".join(f"{MEASURES[name]}, plain | DSD adds" for name in measures)
        + " | measured |"
    )
    yield "|---|---|---|---|" + "---|---|" * len(measures)
    for flavour, title in FLAVOURS.items():
        for subject in sorted({row["subject"] for row in rows if row["flavour"] == flavour}):
            of_both = chosen(rows, flavour=flavour, subject=subject)
            if len({row["variant"].partition("-")[0] for row in of_both}) < 2:
                continue  # one of them is not measured yet
            for index, phase in enumerate(PHASES):
                cells = (_memory_cells(of_both, name, index) for name in measures)
                when = measured(of_both, results)
                yield f"| {title} | {subject} | {phase} | {' | '.join(cells)} | {when} |"


MEASURES = {"live": "arrays", "resident": "most of the process", "device": "most of the GPU"}


def _memory_cells(rows: Results, name: str, index: int) -> str:
    of_way = {
        way: [row["found"][name][index] for row in rows if row["variant"].startswith(way)]
        for way in ("nodsd", "dsd")
    }
    size = max(row["found"]["size"] for row in rows)
    plain = float(np.median(of_way["nodsd"]))
    added = np.array(of_way["dsd"]) - plain
    text = f"{plain / 2**20:,.0f} MiB | {np.median(added) / size:.2f} B a weight"
    if name != "live":
        text += f" ({added.min() / size:.2f} to {added.max() / size:.2f})"
    return text.replace("-", "\N{MINUS SIGN}")


def devices(results: Results) -> Iterable[str]:
    """Yields the table of sharded kernels: what each device holds, and what the host is sent."""
    rows = chosen(results, kind="devices")
    if not rows:
        return
    yield (
        "| devices | a device: kernels | masks | to the host: boundary | epoch end | "
        "masks made in | epoch end in | step | sparse step | training steps compiled | measured |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for row in sorted(rows, key=_devices_of):
        yield f"| {' | '.join([*_device_cells(row), measured([row], results)])} |"


def _devices_of(row: Result) -> tuple[bool, int]:
    kind, _, number = row["variant"].partition("-")
    return kind == "processes", int(number)


def _device_cells(row: Result) -> Iterable[str]:
    found = row["found"]
    of_processes, count = _devices_of(row)
    yield f"{count}, of {count if of_processes else 1} process{'es' * of_processes}"
    yield f"{found['kernels']:,} B"
    yield f"{found['masks']:,} B"
    for when in ("boundary", "epoch"):
        yield f"{found[when + ' bytes']:,} B in {found[when + ' transfers']}"
    yield f"{found['boundary']:.2f} s"
    yield from (f"{1e3 * found[name]:.3g} ms" for name in ("epoch end", "step", "sparse step"))
    yield f"{found['compiled']}"


def models(results: Results) -> Iterable[str]:
    """Yields the table of what a process keeps of each model that was trained and thrown away."""
    rows = chosen(results, kind="models")
    if not rows:
        return
    yield "| | arrays, plain | with DSD | process, plain | with DSD | measured |"
    yield "|---|---|---|---|---|---|"
    for flavour, title in FLAVOURS.items():
        of_flavour = {row["variant"]: row for row in chosen(rows, flavour=flavour)}
        if of_flavour.keys() >= {"nodsd", "dsd"}:
            cells = (
                f"{of_flavour[way]['found'][name] / 2**20:.1f} MiB"
                for name in ("live", "resident")
                for way in ("nodsd", "dsd")
            )
            when = measured(list(of_flavour.values()), results)
            numbers = " | ".join(cells).replace("-", "\N{MINUS SIGN}")
            yield f"| {title} | {numbers} | {when} |"


def growing(results: Results) -> Iterable[str]:
    """Yields the table of fitted exponents, and the figure."""
    found = growth.lines(results)
    if not found:
        return
    yield "| what grows | | " + " | ".join(growth.MEASURES.values()) + " | measured |"
    yield "|---|---|---|" + "---|" * len(growth.MEASURES)
    for (axis, flavour), of_measure in found.items():
        cells = (growth.exponent(of_measure[name]) for name in growth.MEASURES)
        of_line = [
            each
            for each in chosen(results, kind="whole_fit", flavour=flavour)
            if growth.size_on(axis, each)
        ]
        when = measured(of_line, results)
        yield f"| {growth.AXES[axis]} | {FLAVOURS[flavour]} | {' | '.join(cells)} | {when} |"
    yield from ["", f"![{ALT}]({FIGURE})"]


def chosen(results: Results, **fields: str) -> list[Result]:
    """Returns the results whose fields are these."""
    return [each for each in results if all(each[name] == fields[name] for name in fields)]


def by_subject(rows: Results, names: Sequence[str]) -> list[Result]:
    """Returns the results of the networks that are named, in that order."""
    known = [row for row in rows if row["subject"] in names]
    return sorted(known, key=lambda row: names.index(row["subject"]))


def _ratio(values: Sequence[float], limit: float | None = None) -> str:
    """Returns median and quartiles, bold where all three are above a limit."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    text = f"{middle:.3f} ({low:.3f} to {high:.3f})"
    return f"**{text}**" if limit is not None and low > limit else text


def _seconds(values: Sequence[float] | None) -> str:
    if values is None:
        return "—"
    return f"{np.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


TABLES: dict[str, Callable[[Results], Iterable[str]]] = {
    "machine": machine, "steps": steps, "fits": fits, "masks": masks, "memory": memory,
    "growing": growing, "devices": devices, "models": models,
}  # fmt: skip

if __name__ == "__main__":
    write(PAGE, PAGE.parents[1] / "benchmarks" / "cost" / "results")
