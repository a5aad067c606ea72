"""Sensitivity of a model: prunes each weight alone and evaluates the model, and resumes a scan."""

import dataclasses
import functools
import hashlib
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keras_dsd.adapters import registry
from keras_dsd.algorithm import masks
from keras_dsd.algorithm.patterns import NM, num_covered
from keras_dsd.analysis import evaluation
from keras_dsd.analysis.evaluation import number
from keras_dsd.analysis.sensitivity.result import Sensitivity, WeightSensitivity
from keras_dsd.protocols import PrunableWeight
from keras_dsd.utils import checks, files
from keras_dsd.utils.checks import invalid
from keras_dsd.utils.progress import progress_bar

_Weights = list[tuple[str, tuple[int, ...], int]]


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
    scan = _Scan(_check_levels(levels), evaluation.check_mode(mode), *_identify(model, weights))
    if file is not None:
        _resume(file, scan)
    _run(scan, weights, lambda: evaluate(model), file, progress)
    return scan.result()


@dataclasses.dataclass
class _Scan:
    """The progress of a scan, which a file may hold.

    Attributes:
        weights: Path of each weight without the model's name, its shape, and how many of its values
            the pattern covers; in the model's order.
        digests: A digest of the values of each weight.
        values: The values measured so far, by weight and level; NaN where not finite.
    """

    levels: list[float]
    mode: str
    weights: _Weights
    digests: list[str]
    baseline: float = math.nan
    values: list[list[float]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = self.values or [[] for _ in self.weights]

    def result(self) -> Sensitivity:
        """Returns what was measured so far."""
        points = zip(self.weights, self.values, strict=True)
        return Sensitivity(
            baseline=self.baseline,
            levels=tuple(self.levels),
            mode=self.mode,
            points=tuple(
                WeightSensitivity(path, shape, tuple(values), covered)
                for (path, shape, covered), values in points
            ),
        )


def _run(
    scan: _Scan,
    weights: Sequence[PrunableWeight],
    evaluate: Callable[[], object],
    file: pathlib.Path | None,
    progress: bool,
) -> None:
    """Measures the values that `scan` lacks."""

    def done(words: str) -> None:
        if file is not None:
            files.write_json(file, {**scan.result().to_dict(), "digests": scan.digests})
        advance(words)

    def measure(values: list[float], words: str) -> None:
        values.append(number(evaluate(), words))
        done(words)

    is_new = math.isnan(scan.baseline)
    num_points, num_done = len(weights) * len(scan.levels), sum(map(len, scan.values))
    with progress_bar(progress, 1 + num_points, num_done + (not is_new)) as advance:
        if is_new:
            try:
                scan.baseline = number(evaluate(), "nothing pruned")
            finally:
                # Keras keeps a JAX model's values elsewhere meanwhile. Reading one brings all back.
                weights[0].numpy()
            if math.isnan(scan.baseline):
                raise ValueError(
                    "Expected `evaluate` to return a finite number for the model as it is, to "
                    "compare others with. Received: NaN or infinity. See what it computes."
                )
            done("nothing pruned")
        for weight, values in zip(weights, scan.values, strict=True):
            if len(values) < len(scan.levels):
                levels = scan.levels[len(values) :]
                _prune_alone(weight, levels, functools.partial(measure, values))


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


def _identify(model: Any, weights: list[PrunableWeight]) -> tuple[_Weights, list[str]]:
    """Returns `weights` and `digests` of a scan."""
    if not weights:
        raise ValueError(
            f"Expected a model that has made its weights. Received: model={model.name!r}, in "
            f"which there is nothing to prune yet. Build or train it first."
        )
    found: _Weights = []
    digests = []
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
        found.append((weight.short_path, shape, covered))
        pattern = b"" if weight.pattern is None else str(weight.pattern).encode()
        digests.append(hashlib.blake2b(values.tobytes() + pattern, digest_size=16).hexdigest())
    return found, digests


def _check_levels(levels: Iterable[float]) -> list[float]:
    hint = "Put a single one in a list: levels=[0.5]."
    given = checks.listed("levels", levels, "to be a list of sparsities", hint, Iterable)
    found = [checks.fraction(f"levels[{i}]", level) for i, level in enumerate(given)]
    if not found or any(b <= a for a, b in zip((0.0, *found), found, strict=False)):
        expected = "to be sparsities above 0, each larger than the one before"
        hint = "Sort them, and leave out 0 and what comes twice."
        raise invalid("levels", given, expected, hint)
    return found


def _resume(path: pathlib.Path, scan: _Scan) -> None:
    """Brings a scan that has not started to where its file is, if there is one."""
    found = files.read_results(path, _parse, "sensitivity()", "scan")
    if found is None:
        return
    for name in ("levels", "mode", "weights"):
        then, now = getattr(found, name), getattr(scan, name)
        if then != now:
            then, now = _first_difference(then, now) if name == "weights" else (then, now)
            raise ValueError(
                f"Expected the file to be of a scan with the same {name}. Received: "
                f"path={str(path)!r} with {name} {then}, but {now} here. Give another path, or "
                f"delete the file to scan anew."
            )
    digests = zip(scan.weights, found.digests, scan.digests, strict=True)
    changed = [weight for (weight, *_), then, now in digests if then != now]
    if changed:
        raise ValueError(
            f"Expected the weights to have the values that the file's scan began with. Received: "
            f"path={str(path)!r}, since which {changed[0]} and {len(changed) - 1} others changed. "
            f"Load the weights of then to go on, or delete the file to scan these."
        )
    scan.baseline, scan.values = found.baseline, found.values


def _parse(data: Any) -> _Scan:
    levels, points = data["levels"], data["points"]
    found = _Scan(
        levels=list(map(files.number, levels)),
        mode=data["mode"],
        weights=[(p["path"], tuple(p["shape"]), p["covered"]) for p in points],
        digests=data["digests"],
        baseline=files.number(data["baseline"]),
        values=[list(map(files.number_or_nan, point["values"])) for point in points],
    )
    if len(found.digests) != len(points) or any(len(v) > len(levels) for v in found.values):
        raise ValueError("its lists have lengths that do not go together")
    return found


def _first_difference(found: _Weights, wanted: _Weights) -> tuple[str, str]:
    """Returns, in words, what differs first between two lists of paths and shapes."""
    for a, b in zip(found, wanted, strict=False):
        if a != b:
            return f"{a[0]} of shape {a[1]}", f"{b[0]} of shape {b[1]}"
    return f"numbering {len(found)}", str(len(wanted))
