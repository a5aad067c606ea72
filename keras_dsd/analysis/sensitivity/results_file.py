"""The file that a scan of sensitivities goes on from: JSON, written anew at every point."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_dsd.analysis.sensitivity.result import Sensitivity, WeightSensitivity
from keras_dsd.utils import json_files


@dataclasses.dataclass
class Scan:
    """How far a scan is.

    Attributes:
        levels: The sparsities to measure at, ascending fractions.
        mode: `"min"` or `"max"`.
        weights: Path of each weight without the model's name, its shape, and how many of its values
            the pattern covers; in the model's order.
        digests: What tells the values of each weight from others.
        baseline: The value with nothing pruned; None before it is measured.
        values: The values measured so far, by weight and level; NaN where not finite.
    """

    levels: tuple[float, ...]
    mode: str
    weights: list[tuple[str, tuple[int, ...], int]]
    digests: list[str]
    baseline: float | None = None
    values: list[list[float]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = self.values or [[] for _ in self.weights]

    @property
    def num_points(self) -> int:
        """Number of values to measure, the baseline among them."""
        return 1 + len(self.weights) * len(self.levels)

    @property
    def num_done(self) -> int:
        """Number of values measured so far."""
        return (self.baseline is not None) + sum(map(len, self.values))

    def result(self) -> Sensitivity:
        """Returns what was measured so far."""
        points = zip(self.weights, self.values, strict=True)
        return Sensitivity(
            baseline=math.nan if self.baseline is None else self.baseline,
            levels=self.levels,
            mode=self.mode,
            points=tuple(
                WeightSensitivity(path, shape, tuple(values), covered)
                for (path, shape, covered), values in points
            ),
        )


def write(path: pathlib.Path, scan: Scan) -> None:
    """Replaces the file in one go, so that whenever the process ends, a whole one is there."""
    json_files.write(path, {**scan.result().to_dict(), "digests": scan.digests})


def go_on(path: pathlib.Path, scan: Scan) -> None:
    """Takes what the file holds into `scan`, if there is a file.

    Args:
        path: The file.
        scan: One that has not begun.

    Raises:
        ValueError: The file is of another scan, or it is no such file; `scan` is as it was.
    """
    if not path.exists():
        return
    found = json_files.read(path, _parse, "sensitivity()", "scan")
    _check_same(path, "levels", list(found.levels), list(scan.levels))
    _check_same(path, "mode", found.mode, scan.mode)
    _check_same(path, "weights", found.weights, scan.weights)
    _check_same_values(path, found, scan)
    scan.baseline, scan.values = found.baseline, found.values


def _parse(data: Any) -> Scan:
    levels, points = data["levels"], data["points"]
    found = Scan(
        levels=tuple(map(json_files.number, levels)),
        mode=data["mode"],
        weights=[(p["path"], tuple(p["shape"]), p["covered"]) for p in points],
        digests=data["digests"],
        baseline=json_files.number(data["baseline"]),
        values=[list(map(json_files.number_or_nan, point["values"])) for point in points],
    )
    if len(found.digests) != len(points) or any(len(v) > len(levels) for v in found.values):
        raise ValueError("its lists have lengths that do not go together")
    return found


def _check_same(path: pathlib.Path, name: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        both = _first_difference(found, wanted) if name == "weights" else (found, wanted)
        raise ValueError(
            f"Expected the file to be of a scan with the same {name}. Received: path={str(path)!r} "
            f"with {name} {both[0]}, but {both[1]} here. Give another path, or delete the file to "
            f"scan anew."
        )


def _first_difference(found: Sequence[Any], wanted: Sequence[Any]) -> tuple[str, str]:
    """Returns, in words, what differs first between two lists of paths and shapes."""
    for a, b in zip(found, wanted, strict=False):
        if a != b:
            return f"{a[0]} of shape {a[1]}", f"{b[0]} of shape {b[1]}"
    return f"numbering {len(found)}", str(len(wanted))


def _check_same_values(path: pathlib.Path, found: Scan, scan: Scan) -> None:
    digests = zip(scan.weights, found.digests, scan.digests, strict=True)
    changed = [path for (path, *_), then, now in digests if then != now]
    if changed:
        raise ValueError(
            f"Expected the weights to have the values that the file's scan began with. Received: "
            f"path={str(path)!r}, since which {changed[0]} and {len(changed) - 1} others changed. "
            f"Load the weights of then to go on, or delete the file to scan these."
        )
