"""Sensitivity scan: prunes each weight alone and evaluates the model.

Results are data, a table, a figure, and recommended sparsities. A scan can be resumed.
"""

import bisect
import dataclasses
import functools
import hashlib
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_dsd.adapters import registry
from keras_dsd.algorithm import masks
from keras_dsd.algorithm.patterns import NM, num_covered
from keras_dsd.algorithm.selection import exact
from keras_dsd.analysis import evaluation
from keras_dsd.analysis.evaluation import BETTER, number
from keras_dsd.protocols import PrunableWeight
from keras_dsd.utils import checks, files
from keras_dsd.utils.checks import invalid, shown
from keras_dsd.utils.figures import new_figure
from keras_dsd.utils.files import plain
from keras_dsd.utils.progress import progress_bar
from keras_dsd.utils.tables import Table, Tabled, num_tensors, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOTHING = 1e-290  # of a cost


@dataclasses.dataclass(frozen=True)
class WeightSensitivity:
    """Values of `evaluate` with only one weight pruned.

    Attributes:
        path: Its path in the model, without the model name.
        shape: Its shape.
        values: The value of `evaluate` at each level of the scan, in order; NaN if not finite.
        covered: Number of its values that the pattern may prune; None for all.
    """

    path: str
    shape: tuple[int, ...]
    values: tuple[float, ...]
    covered: int | None = None

    @property
    def size(self) -> int:
        """Number of values in the weight."""
        return math.prod(self.shape)

    @property
    def num_covered(self) -> int:
        """Number of values that the pattern may prune."""
        return self.size if self.covered is None else self.covered


class _Curve(NamedTuple):
    """Costs of pruning one weight of `size` values, `covered` of which its pattern may prune.

    `worse` holds the cost at each level: negative if the value is better, infinite without one.
    """

    size: int
    worse: tuple[float, ...]
    covered: int


@dataclasses.dataclass(frozen=True)
class Sensitivity(Tabled):
    """The result of `sensitivity`.

    Attributes:
        baseline: The value of `evaluate` without pruning.
        levels: The sparsities at which each weight was pruned, ascending fractions in (0, 1).
        mode: `"min"` if smaller values are better, `"max"` if larger values are better.
        points: The weights, in the model's order.
    """

    baseline: float
    levels: tuple[float, ...]
    mode: str
    points: tuple[WeightSensitivity, ...]

    @property
    def size(self) -> int:
        """Number of values in all scanned weights."""
        return sum(point.size for point in self.points)

    def recommend(
        self, max_drop: float | None = None, overall: float | None = None
    ) -> dict[str, float]:
        """Returns a sparsity for each weight, for `apply(sparsity=...)`.

        Each weight is scanned alone, so a model with all of them pruned is usually worse than any
        of these values, before it is trained by DSD.

        Args:
            max_drop: Maximum cost of each weight, pruned alone, in the unit of the value, finite
                and at least 0. Each weight gets the largest level such that no level up to it
                costs more; 0.0 if the first one does.
            overall: Fraction of all scanned weights together to prune. It is distributed so that
                every weight, pruned alone, has the same cost, interpolated between levels, and
                never less than at a smaller level. No weight exceeds the largest level.

        Returns:
            A dict from regular expressions, each of which matches one path, to fractions.

        Raises:
            TypeError: An argument is not a number.
            ValueError: None or both are given, `max_drop` is negative or not finite, or `overall`
                is outside [0, 1) or not reachable with the scanned levels.
        """
        if (max_drop is None) == (overall is None):
            raise ValueError(
                f"Expected exactly one of `max_drop` and `overall`. Received: "
                f"max_drop={shown(max_drop)}, overall={shown(overall)}. Give "
                f"max_drop=0.01 to bound the cost of each weight, or overall=0.3 to prune 30 %."
            )
        curves = self._curves()
        if max_drop is not None:
            allowed = checks.not_negative("max_drop", max_drop)
            chosen = [self._level_within(allowed, curve) for curve in curves.values()]
        else:
            share = checks.fraction("overall", overall)
            chosen = _levels_for(self.levels, list(curves.values()), share)
        # The exact expression matches no longer path, in which `apply` would find the path, and
        # counts as the full path, which frozen weights need.
        return {exact(path): level for path, level in zip(curves, chosen, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and str; None for NaN."""
        points = [
            {**plain(point), "size": point.size, "covered": point.num_covered}
            for point in self.points
        ]
        found: dict[str, Any] = plain(self)
        return {**found, "points": points}

    def _table(self) -> Table:
        rows = [
            (point.path, f"{point.size:,}", *(f"{value:.4g}" for value in point.values))
            for point in self.points
        ]
        head = ("weight", "size", *(f"{100 * level:.4g}%" for level in self.levels))
        return Table(head, rows, (), (0,), list(self._summary()))

    def _summary(self) -> Iterator[tuple[str, str]]:
        lowest, highest = (f"{100 * level:.4g}%" for level in (self.levels[0], self.levels[-1]))
        levels = f"{len(self.levels)} levels, {lowest} to {highest}"
        if len(self.levels) == 1:
            levels = lowest
        yield "baseline", f"{self.baseline:.4g} with nothing pruned ({BETTER[self.mode]})"
        tensors = num_tensors(len(self.points))
        yield "scanned", f"{self.size:,} weights in {tensors} at {levels}"
        curves = self._curves()
        ranked = sorted(curves, key=lambda path: curves[path].worse[-1])
        values = {point.path: point.values for point in self.points}
        for name, path in (("most sensitive", ranked[-1]), ("least sensitive", ranked[0])):
            yield name, f"{path}: {values[path][-1]:.4g} at {highest}"
        free = sum(self._level_within(0.0, each) * each.covered for each in curves.values())
        share = percent(free / max(self.size, 1))
        yield "at no cost", f"{share} of the weights, one tensor pruned at a time"

    def plot(self) -> "Figure":
        """Returns a figure: a line for each weight, and the baseline, dashed.

        The figure belongs to no window; `figure.savefig("scan.png")` writes it.

        Raises:
            ImportError: matplotlib is not installed.
        """
        figure, axes = new_figure(8, 5)
        for point in self.points:
            axes.plot(self.levels, point.values, marker=".", label=point.path)
        axes.axhline(self.baseline, color="black", linestyle="--", label="nothing pruned")
        axes.set_xlabel("sparsity of one weight (fraction)")
        axes.set_ylabel(f"value of evaluate ({BETTER[self.mode]})")
        figure.legend(loc="outside right upper", fontsize="small")
        return figure

    def _level_within(self, allowed: float, curve: _Curve) -> float:
        """Returns the largest level up to which no cost exceeds `allowed`, or 0.0."""
        points = zip(self.levels, curve.worse, strict=True)
        good = itertools.takewhile(lambda point: point[1] <= allowed, points)
        return max((level for level, _ in good), default=0.0)

    def _curves(self) -> dict[str, _Curve]:
        """Returns the costs of each weight, by path.

        Two layers of one Keras model may have the same name. An expression can't distinguish their
        weights, so they count as one, with the higher costs.
        """
        sign = 1.0 if self.mode == "min" else -1.0
        curves: dict[str, _Curve] = {}
        for point in self.points:
            worse = [sign * (value - self.baseline) for value in point.values]
            costs = tuple(math.inf if math.isnan(w) else w for w in worse)
            size, others, covered = curves.get(point.path, _Curve(0, costs, 0))
            curves[point.path] = _Curve(
                size + point.size, tuple(map(max, others, costs)), covered + point.num_covered
            )
        return curves


def _levels_for(levels: Sequence[float], curves: Sequence[_Curve], overall: float) -> list[float]:
    """Returns a level for each weight, so that all weights, pruned alone, have the same cost.

    Together they prune the fraction `overall`: `sum(covered * level) / sum(size)`.
    """
    points, covered = (0.0, *levels), np.array([curve.covered for curve in curves])
    # Costs from level 0 on: at least 0, and never decreasing. Tiny costs count as 0, so that the
    # slopes between two levels are finite.
    costs = [np.maximum.accumulate([0.0, *curve.worse]) for curve in curves]
    costs = [np.where(cost < _NOTHING, 0.0, cost) for cost in costs]
    steps = np.unique(np.concatenate(costs))
    steps = steps[np.isfinite(steps)]

    def levels_at(allowed: float) -> np.ndarray:
        """Returns the largest interpolated levels with at most this cost."""
        return np.array([np.interp(allowed, cost, points) for cost in costs])

    def share(chosen: np.ndarray) -> float:
        return float(covered @ chosen) / max(sum(curve.size for curve in curves), 1)

    if overall > levels[-1]:
        expected = f"to be at most the largest scanned level, {levels[-1]:g}"
        raise invalid(
            "overall", overall, expected, "Give a smaller fraction, or scan larger levels."
        )
    reach = share(levels_at(steps[-1]))
    if overall > reach + 1e-9:  # tolerance of rounding in a sum
        expected = (
            f"to be reachable with the levels at which evaluate returned a finite value, without "
            f"values that a pattern leaves dense at edges: at most {reach:.3g}"
        )
        hint = "Give a smaller fraction, or check why evaluate returned NaN or infinity."
        raise invalid("overall", overall, expected, hint)
    end = bisect.bisect_left(
        steps, overall, hi=len(steps) - 1, key=lambda allowed: share(levels_at(allowed))
    )
    # Levels are linear between two costs; at one cost they may jump, over a range in which more
    # pruning costs no more. So levels below and above the fraction are mixed.
    stages = [np.zeros(len(curves)), levels_at(steps[end])]
    if end:
        before = np.nextafter(steps[end], -np.inf)
        stages[:1] = [levels_at(steps[end - 1]), levels_at(before)]
    pairs = itertools.pairwise(stages)
    below, above = next((pair for pair in pairs if share(pair[1]) >= overall), stages[-2:])
    reached, beyond = share(below), share(above)
    part = (overall - reached) / (beyond - reached) if beyond > reached else 1.0
    mixed: list[float] = np.minimum(below + np.clip(part, 0, 1) * (above - below), above).tolist()
    return mixed


def sensitivity(
    model: Any,
    evaluate: Callable[[Any], float],
    levels: Iterable[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    *,
    mode: str = "min",
    path: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Sensitivity:
    """Measures the cost of pruning each weight alone, at each level.

    Calls `evaluate` without pruning, then for each weight and level with the smallest magnitudes
    (with a pattern, blocks) of only this weight at zero. Afterwards all weights are restored, to
    the bit, also after an exception or Ctrl-C. Copies one weight at a time.

    Args:
        model: A built model or layer that `apply` returned, trained and in a dense phase.
        evaluate: A function of `model` that returns a number, such as the loss on validation data;
            it must not train. NaN and infinity count as the worst value.
        levels: Sparsities, ascending fractions in (0, 1). Defaults to 0.1, 0.2, ... 0.9.
        mode: `"min"` if smaller numbers are better, such as losses; `"max"` if larger ones are,
            such as accuracies. Defaults to `"min"`.
        path: A JSON file to write after every value. If it exists, the scan resumes from it.
            Defaults to `None`: no file.
        progress: Whether to show a progress bar, on a terminal or in a notebook. Defaults to
            `True`.

    Returns:
        A `Sensitivity`: `.render()`, `.plot()`, `.recommend(...)` for `apply`, `.to_json()`.

    Raises:
        TypeError: An argument is of the wrong type, or `evaluate` does not return a number.
        ValueError: `model` was not passed through `apply`, is not built, has active masks or
            weights that are not finite; `levels`, `mode` or `path` is invalid; the file is
            incomplete, or of another scan; or `evaluate` returns no finite value without pruning.

    Examples:
        >>> scan = sensitivity(model, lambda model: model.evaluate(x, y, verbose=0))
        >>> model = apply(strip(model), sparsity=scan.recommend(overall=0.3))
    """
    weights = list(registry.adapter_of(model).weights(model))
    evaluation.check_evaluate(evaluate, "model", "model.evaluate(x, y, verbose=0)")
    checks.flag("progress", progress)
    file = evaluation.check_file(path, "scan.json")
    chosen, direction = _check_levels(levels), evaluation.check_mode(mode)
    points, digests = _identify(model, weights)
    scan = Sensitivity(math.nan, chosen, direction, points)
    if file is not None:
        scan = _resumed(file, scan, digests)
    return _run(scan, digests, weights, lambda: evaluate(model), file, progress)


def _run(
    scan: Sensitivity,
    digests: Sequence[str],
    weights: Sequence[PrunableWeight],
    evaluate: Callable[[], object],
    file: pathlib.Path | None,
    progress: bool,
) -> Sensitivity:
    """Measures the missing values of a scan, writes them to `file`, and returns the scan."""
    measured = [list(point.values) for point in scan.points]

    def result() -> Sensitivity:
        pairs = zip(scan.points, measured, strict=True)
        points = (dataclasses.replace(point, values=tuple(values)) for point, values in pairs)
        return dataclasses.replace(scan, points=tuple(points))

    def done(words: str) -> None:
        if file is not None:
            files.write_json(file, {**result().to_dict(), "digests": digests})
        advance(words)

    def measure(values: list[float], words: str) -> None:
        values.append(number(evaluate(), words))
        done(words)

    is_new = math.isnan(scan.baseline)
    num_points, num_done = len(weights) * len(scan.levels), sum(map(len, measured))
    with progress_bar(progress, 1 + num_points, num_done + (not is_new)) as advance:
        if is_new:
            try:
                scan = dataclasses.replace(scan, baseline=number(evaluate(), "nothing pruned"))
            finally:
                # In fit, Keras keeps the values of a JAX model elsewhere. Reading one updates all.
                weights[0].numpy()
            if math.isnan(scan.baseline):
                raise ValueError(
                    "Expected `evaluate` to return a finite number without pruning. Received: NaN "
                    "or infinity. Check the model and evaluate."
                )
            done("nothing pruned")
        for weight, values in zip(weights, measured, strict=True):
            if len(values) < len(scan.levels):
                levels = scan.levels[len(values) :]
                _prune_alone(weight, levels, functools.partial(measure, values))
    return result()


def _prune_alone(
    weight: PrunableWeight, levels: Sequence[float], measure: Callable[[str], None]
) -> None:
    """Calls `measure` with the weight pruned at each level, and restores it."""
    complete = weight.numpy()
    # No context manager: Ctrl-C in its code would not restore the weight.
    try:
        for level in levels:
            pruned = complete.copy()
            pruned[~masks.mask_of(complete, weight, level)] = 0
            weight.assign(pruned)
            measure(f"{weight.path} at {level:g}")
    finally:
        weight.assign(complete)


def _identify(
    model: Any, weights: list[PrunableWeight]
) -> tuple[tuple[WeightSensitivity, ...], list[str]]:
    """Returns the weights without values of `evaluate`, and a digest of the values of each."""
    if not weights:
        raise ValueError(
            f"Expected a built model. Received: model={model.name!r}, without weights to prune. "
            f"Build or train it first."
        )
    points, digests = [], []
    for weight in weights:
        if weight.mask is not None:
            raise ValueError(
                f"Expected a model in a dense phase, as pruned weights cost nothing to prune. "
                f"Received: model={model.name!r}, with an active mask of {weight.path}. Scan it "
                f"before the sparse phase, or resume fit until this phase is over."
            )
        if isinstance(weight.pattern, NM):
            raise ValueError(
                f"Expected weights that can be pruned at every level. Received: {weight.path!r} "
                f"with pattern={weight.pattern!r}, which fixes the sparsity. Apply without it."
            )
        values = weight.numpy()
        masks.check_finite(values, weight.path)
        shape = tuple(map(int, weight.shape))
        covered = num_covered(shape, weight.pattern, weight.layout)
        points.append(WeightSensitivity(weight.short_path, shape, (), covered))
        pattern = b"" if weight.pattern is None else str(weight.pattern).encode()
        digests.append(hashlib.blake2b(values.tobytes() + pattern, digest_size=16).hexdigest())
    return tuple(points), digests


def _check_levels(levels: Iterable[float]) -> tuple[float, ...]:
    hint = "Put a single level in a list: levels=[0.5]."
    given = checks.listed("levels", levels, "to be a list of sparsities", hint, Iterable)
    found = [checks.fraction(f"levels[{i}]", level) for i, level in enumerate(given)]
    if not found or any(b <= a for a, b in zip((0.0, *found), found, strict=False)):
        expected = "to be sparsities above 0, in ascending order"
        hint = "Sort them, and remove 0 and duplicates."
        raise invalid("levels", given, expected, hint)
    return tuple(found)


def _resumed(path: pathlib.Path, scan: Sensitivity, digests: Sequence[str]) -> Sensitivity:
    """Returns a scan with the values in its file, if the file exists."""
    read = files.read_results(path, _parse, "sensitivity()", "scan")
    if read is None:
        return scan
    found, digests_then = read
    both: list[tuple[str, object, object]] = [
        ("levels", list(found.levels), list(scan.levels)), ("mode", found.mode, scan.mode),
        *(("weights", f"{a.path} of shape {a.shape}", f"{b.path} of shape {b.shape}")
          for a, b in zip(found.points, scan.points, strict=False)),
        ("weights numbering", len(found.points), len(scan.points)),
        ("covered values", [a.num_covered for a in found.points],
         [b.num_covered for b in scan.points]),
    ]  # fmt: skip
    for name, then, now in both:
        if then != now:
            raise ValueError(
                f"Expected the file to be of a scan with the same {name}. Received: "
                f"path={str(path)!r} with {name} {then}, but {now} here. Give another path, or "
                f"delete the file to scan again."
            )
    pairs = zip(scan.points, digests_then, digests, strict=True)
    changed = [point.path for point, then, now in pairs if then != now]
    if changed:
        raise ValueError(
            f"Expected the weights of the scan in the file. Received: path={str(path)!r}, from "
            f"other values of {changed[0]} and {len(changed) - 1} others. Load the weights of "
            f"this scan to resume it, or delete the file to scan again."
        )
    return found


def _parse(data: Any) -> tuple[Sensitivity, list[str]]:
    """Returns the scan in a file so far, and the digests of its weights."""
    points = (
        WeightSensitivity(
            point["path"], tuple(point["shape"]),
            tuple(map(files.number_or_nan, point["values"])), point["covered"],
        )
        for point in data["points"]
    )  # fmt: skip
    levels = tuple(map(files.number, data["levels"]))
    found = Sensitivity(files.number(data["baseline"]), levels, data["mode"], tuple(points))
    num_most = max((len(point.values) for point in found.points), default=0)
    if len(data["digests"]) != len(found.points) or num_most > len(levels):
        raise ValueError("its lists have inconsistent lengths")
    return found, data["digests"]
