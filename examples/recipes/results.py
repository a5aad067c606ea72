"""Results of the runs of a recipe: a file for each, and a table like that of the paper."""

import json
import pathlib
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from recipes.problems import ProblemError

Result = dict[str, Any]
ROWS = {"dsd": "DSD", "llr": "LLR", "dense": "Dense"}


class Record:
    """The results file of a run, rewritten at the end of each part.

    Args:
        path: The file, from which the run resumes.
        settings: The settings of the run.

    Raises:
        ProblemError: The file is of a run with other settings.
    """

    def __init__(self, path: pathlib.Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.result: Result = {"settings": dict(settings), "parts": {}, "is_complete": False}
        if path.exists():
            self.result = read(path)
            _check_same(path, self.result["settings"], dict(settings))

    def set(self, **items: Any) -> None:
        """Stores items in addition to `settings` and `parts`."""
        self.result |= items
        self._write()

    def end_part(self, name: str, **items: Any) -> None:
        """Stores the results of a part."""
        self.result["parts"][name] = items
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".tmp")
        beside.write_text(json.dumps(self.result, indent=1) + "\n")
        beside.replace(self._path)  # written atomically


def read(path: pathlib.Path) -> Result:
    """Returns what a run wrote."""
    result: Result = json.loads(path.read_text())
    return result


def _check_same(path: pathlib.Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ProblemError(
                f"Expected the settings of the run in {path.parent}: {name}="
                f"{before.get(name)!r}. Received: {name}={now.get(name)!r}. Give the same to "
                f"resume it, or to compare its arms; or another --workdir."
            )


def check_alike(workdir: pathlib.Path, settings: Mapping[str, Any]) -> None:
    """Checks that all runs below `workdir` go into one table with a new one.

    Raises:
        ProblemError: One differs in more than arm and seed.
    """
    for path in sorted(workdir.glob("seed-*/*/results.json")):
        others = read(path)["settings"]
        _check_same(path, {**others, "arm": settings["arm"], "seed": settings["seed"]}, settings)


def complete_in(workdir: pathlib.Path) -> list[Result]:
    """Returns the complete runs below `workdir`."""
    found = [read(path) for path in sorted(workdir.glob("seed-*/*/results.json"))]
    return [result for result in found if result["is_complete"]]


class Table:
    """Rows like those of the paper: baseline, sparse, DSD, controls, and gains of DSD.

    Args:
        results: Complete runs of one recipe; those of several seeds are averaged.
        better: `"min"` or `"max"` for each metric; the metrics are the columns.
    """

    def __init__(self, results: Iterable[Result], better: Mapping[str, str]) -> None:
        self._results = list(results)
        self._better = dict(better)
        measured = self._measured()
        self.rows = measured | self._gains(measured)

    def to_dict(self) -> dict[str, Any]:
        """Returns each row's values by metric and seed, in percent."""
        return {"better": self._better, "rows": self.rows}

    def to_markdown(self) -> str:
        """Returns the table as Markdown; a cell is the mean, ± the standard deviation of seeds."""
        names = list(self._better)
        lines = [["", *names, "seeds"]]
        for row, cells in self.rows.items():
            values = [list(cells[name].values()) for name in names]
            lines.append([row, *map(_cell, values), str(len(values[0]))])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        return "\n".join(
            "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
            for line in lines
        )

    def _measured(self) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for arm, title in ROWS.items():
            for result in (each for each in self._results if each["settings"]["arm"] == arm):
                parts, seed = result["parts"], result["settings"]["seed"]
                for name in parts if arm == "dsd" else list(parts)[-1:]:
                    row = _title(name, parts) if arm == "dsd" else title
                    self._add(rows, row, seed, parts[name]["metrics"])
        return rows

    def _add(self, rows: dict[str, Any], row: str, seed: int, metrics: Mapping[str, float]) -> None:
        cells = rows.setdefault(row, {name: {} for name in self._better})
        for name in self._better:
            cells[name][str(seed)] = metrics[name]

    def _gains(self, measured: dict[str, Any]) -> dict[str, Any]:
        baseline = next((row for row in measured if row.startswith("Baseline")), None)
        gains: dict[str, Any] = {}
        if "DSD" not in measured:
            return gains
        if baseline is not None:
            gains["Gain over the baseline, absolute"] = self._gain(measured, baseline, _absolute)
            gains["Gain over the baseline, relative"] = self._gain(measured, baseline, _relative)
        controls = [title for title in ("LLR", "Dense") if title in measured]
        for title in controls:
            against = f"Gain over {title}, absolute"
            cells = self._gain(measured, title, _absolute)
            if all(cells.values()):  # a seed at least that both have
                gains[against] = cells
        return gains

    def _gain(
        self, rows: dict[str, Any], control: str, of: Callable[[float, float], float]
    ) -> dict[str, Any]:
        """Returns the gain of DSD for each seed; positive is better for every metric."""
        gain: dict[str, Any] = {}
        for name, direction in self._better.items():
            sign = 1 if direction == "max" else -1
            ours, theirs = rows["DSD"][name], rows[control][name]
            gain[name] = {s: sign * of(ours[s], theirs[s]) for s in ours if s in theirs}
        return gain


def _title(name: str, parts: Mapping[str, Any]) -> str:
    if name == list(parts)[-1]:
        return "DSD"
    if name in ("start", "dense"):
        return "Baseline"
    share = parts[name]["sparsity"]
    return f"{name.capitalize()} ({share:.0%})" if name.startswith("sparse") else name.capitalize()


def _absolute(ours: float, theirs: float) -> float:
    return ours - theirs


def _relative(ours: float, theirs: float) -> float:
    return 100 * (ours - theirs) / theirs if theirs else 0.0


def _cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{round(statistics.mean(values), 2) + 0.0:.2f}{spread}"  # 0.00 without a sign
