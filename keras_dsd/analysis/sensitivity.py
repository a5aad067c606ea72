"""Sensitivity of a model: each weight pruned alone, and the model evaluated; resumes a scan.

The results are data, then text, a figure, and recommended sparsities.
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
from keras_dsd.utils.tables import Table, Tabled, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NOTHING = 1e-290  # of a cost


@dataclasses.dataclass(frozen=True)
class WeightSensitivity:
    """Values of `evaluate` with one weight pruned, and nothing else.

    Attributes:
        path: Its path in the model, without the model's own name.
        shape: Its shape.
        values: The value of `evaluate` at each of the scan's levels, in their order; NaN where
            that was not finite.
        covered: How many of its values the pattern may prune; None: all.
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

    `worse` says how much worse the value is at each level; negative where it is better, infinite
    where there is none.
    """

    size: int
    worse: tuple[float, ...]
    covered: int


@dataclasses.dataclass(frozen=True)
class Sensitivity(Tabled):
    """The measurements of `sensitivity`.

    Attributes:
        baseline: The value of `evaluate` with nothing pruned.
        levels: The sparsities at which each weight was pruned, ascending fractions in (0, 1).
        mode: `"min"` where smaller values are better, `"max"` where larger ones are.
        points: The weights, in the model's order.
    """

    baseline: float
    levels: tuple[float, ...]
    mode: str
    points: tuple[WeightSensitivity, ...]

    @property
    def size(self) -> int:
        """Number of values in all weights that were scanned."""
        return sum(point.size for point in self.points)

    def recommend(
        self, max_drop: float | None = None, overall: float | None = None
    ) -> dict[str, float]:
        """Returns a sparsity for each weight, as `apply(sparsity=...)` takes it.

        Each weight was scanned alone, so the model with all of them pruned is most often worse
        than any of the values shown here; training by DSD is to make up for that.

        Args:
            max_drop: How much worse than the baseline each weight, pruned alone, may make the
                value, in the value's own unit, finite and at least 0. Each gets the largest level
                up to which no level did worse; 0.0 where the first one did.
            overall: The share of all scanned weights together that is to be pruned, a fraction.
                It is spread so that every weight, pruned alone, makes the value equally worse:
                between levels on a straight line, and never less than a smaller level did. No
                weight goes above the largest level.

        Returns:
            A dict from regular expressions, each of which matches one path, to fractions.

        Raises:
            TypeError: An argument is no number.
            ValueError: None or both are given, `max_drop` is negative or not finite, `overall` is
                outside [0, 1), or more than can be reached with the levels that were scanned.
        """
        if (max_drop is None) == (overall is None):
            raise ValueError(
                f"Expected exactly one of `max_drop` and `overall`. Received: "
                f"max_drop={shown(max_drop)}, overall={shown(overall)}. Give "
                f"max_drop=0.01 to bound what each weight costs, or overall=0.3 to spread 30 %."
            )
        curves = self._curves()
        if max_drop is not None:
            allowed = checks.not_negative("max_drop", max_drop)
            chosen = [self._level_within(allowed, curve) for curve in curves.values()]
        else:
            share = checks.fraction("overall", overall)
            chosen = _levels_for(self.levels, list(curves.values()), share)
        # The exact pattern matches no longer path, in which `apply` would find the bare path, and
        # counts as the full path where only that does, as for frozen weights.
        return {exact(path): level for path, level in zip(curves, chosen, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and text; None for NaN."""
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
        yield "scanned", f"{self.size:,} weights in {len(self.points)} tensors at {levels}"
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
        axes.set_xlabel("sparsity of one weight, the others as they are (fraction)")
        axes.set_ylabel(f"value of evaluate ({BETTER[self.mode]})")
        figure.legend(loc="outside right upper", fontsize="small")
        return figure

    def _level_within(self, allowed: float, curve: _Curve) -> float:
        """Returns the largest level up to which nothing is worse by more than `allowed`, or 0.0."""
        points = zip(self.levels, curve.worse, strict=True)
        good = itertools.takewhile(lambda point: point[1] <= allowed, points)
        return max((level for level, _ in good), default=0.0)

    def _curves(self) -> dict[str, _Curve]:
        """Returns how much worse each weight makes the value, by path.

        Nothing keeps two layers of one Keras model from having the same name. A pattern can't tell
        such weights apart, so they count as one, as sensitive as the more sensitive of them.
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
    """Returns a level for each weight, so that each, pruned alone, is equally much worse.

    Together they prune the share `overall`: `sum(covered * level) / sum(size)`.
    """
    points, covered = (0.0, *levels), np.array([curve.covered for curve in curves])
    # Of each level, from level 0 on: at least nothing, and never less again. What is next to
    # nothing counts as nothing, so that the slopes between two levels are finite.
    costs = [np.maximum.accumulate([0.0, *curve.worse]) for curve in curves]
    costs = [np.where(cost < _NOTHING, 0.0, cost) for cost in costs]
    steps = np.unique(np.concatenate(costs))
    steps = steps[np.isfinite(steps)]

    def levels_at(allowed: float) -> np.ndarray:
        """Returns the largest levels, on lines between those scanned, that cost so much."""
        return np.array([np.interp(allowed, cost, points) for cost in costs])

    def share(chosen: np.ndarray) -> float:
        return float(covered @ chosen) / max(sum(curve.size for curve in curves), 1)

    if overall > levels[-1]:
        expected = f"to be at most the largest level that was scanned, {levels[-1]:g}"
        raise invalid("overall", overall, expected, "Ask for less, or scan up to larger levels.")
    reach = share(levels_at(steps[-1]))
    if overall > reach + 1e-9:  # what rounding may make of a sum
        expected = (
            f"to be within reach of the levels at which evaluate returned a finite value, without "
            f"what a pattern leaves dense at edges; they add up to {reach:.3g}"
        )
        hint = "Ask for less, or find out why evaluate returned NaN or infinity."
        raise invalid("overall", overall, expected, hint)
    end = bisect.bisect_left(
        steps, overall, hi=len(steps) - 1, key=lambda allowed: share(levels_at(allowed))
    )
    # Between two steps levels are on straight lines; at one they may jump, over a stretch where
    # pruning more costs nothing more. So what is below and what is above the share is mixed.
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
    """Measures how much worse pruning makes a model, for each weight alone and at each level.

    Calls `evaluate` with nothing pruned, then for each weight and level with the smallest
    magnitudes of that weight (or blocks, where `apply` was given a pattern) at zero and all else
    as it was. Afterwards the weights are as they were, to the bit, also after an exception or
    Ctrl-C. Copies one weight at a time.

    Args:
        model: A built model, or layer, that `apply` returned, trained and in a dense phase.
        evaluate: Takes `model` and returns a number, such as the loss on data that it was not
            trained on; it must not train. NaN and infinity count as the worst there is.
        levels: The sparsities, ascending fractions in (0, 1). Defaults to 0.1, 0.2, ... 0.9.
        mode: `"min"` where smaller numbers are better, such as losses; `"max"` where larger ones
            are, such as accuracies. Defaults to `"min"`.
        path: A JSON file to write after every value. Where it exists, the scan resumes from it.
            Defaults to `None`: no file.
        progress: Whether to show a progress bar, where stderr is a terminal, or in a notebook.

    Returns:
        A `Sensitivity`: `.render()`, `.plot()`, `.recommend(...)` for `apply`, `.to_json()`.

    Raises:
        TypeError: An argument is of the wrong type, or `evaluate` returned no number.
        ValueError: `model` did not go through `apply`, has no weights yet, active masks or
            weights that are not finite; `levels`, `mode` or `path` can't be used; the file is not
            complete, or of another scan; or `evaluate` returned nothing finite for `model` itself.

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
    """Returns a scan with the values that it lacks, which are measured, and written to `file`."""
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
                # Keras keeps a JAX model's values elsewhere meanwhile. Reading one brings all back.
                weights[0].numpy()
            if math.isnan(scan.baseline):
                raise ValueError(
                    "Expected `evaluate` to return a finite number for the model as it is, to "
                    "compare others with. Received: NaN or infinity. See what it computes."
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
    # As plain as can be: Ctrl-C in the code of a context manager would not restore the weight.
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
    """Returns the weights, without values of `evaluate`, and a digest of each one's own values."""
    if not weights:
        raise ValueError(
            f"Expected a model that has made its weights. Received: model={model.name!r}, in "
            f"which there is nothing to prune yet. Build or train it first."
        )
    points, digests = [], []
    for weight in weights:
        if weight.mask is not None:
            raise ValueError(
                f"Expected a model in a dense phase: what is pruned already costs nothing to "
                f"prune. Received: model={model.name!r}, with a mask in force on {weight.path}. "
                f"Scan it before the sparse phase, or go on with fit until that is over."
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
    hint = "Put a single one in a list: levels=[0.5]."
    given = checks.listed("levels", levels, "to be a list of sparsities", hint, Iterable)
    found = [checks.fraction(f"levels[{i}]", level) for i, level in enumerate(given)]
    if not found or any(b <= a for a, b in zip((0.0, *found), found, strict=False)):
        expected = "to be sparsities above 0, each larger than the one before"
        hint = "Sort them, and leave out 0 and what comes twice."
        raise invalid("levels", given, expected, hint)
    return tuple(found)


def _resumed(path: pathlib.Path, scan: Sensitivity, digests: Sequence[str]) -> Sensitivity:
    """Returns a scan that has not started as its file has it, if there is one."""
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
                f"delete the file to scan anew."
            )
    pairs = zip(scan.points, digests_then, digests, strict=True)
    changed = [point.path for point, then, now in pairs if then != now]
    if changed:
        raise ValueError(
            f"Expected the weights to have the values that the file's scan began with. Received: "
            f"path={str(path)!r}, since which {changed[0]} and {len(changed) - 1} others changed. "
            f"Load the weights of then to go on, or delete the file to scan these."
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
        raise ValueError("its lists have lengths that do not go together")
    return found, data["digests"]
