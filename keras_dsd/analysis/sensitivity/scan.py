"""How much each weight matters: prunes one after another, alone, and asks for the model's value."""

import hashlib
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_dsd.adapters import registry
from keras_dsd.algorithm import masks
from keras_dsd.algorithm.patterns import NM, Pattern, num_covered
from keras_dsd.analysis import evaluation
from keras_dsd.analysis.evaluation import number
from keras_dsd.analysis.sensitivity import results_file
from keras_dsd.analysis.sensitivity.result import Sensitivity
from keras_dsd.analysis.sensitivity.results_file import Scan
from keras_dsd.protocols import PrunableWeight
from keras_dsd.utils import checks
from keras_dsd.utils.checks import shown
from keras_dsd.utils.progress import progress_bar


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
        path: A JSON file to write after every value. Where it exists, the scan goes on from it.
            Defaults to `None`: no file.
        progress: Whether to show a progress bar, where stderr is a terminal, or in a notebook.

    Returns:
        A `Sensitivity`: `.render()`, `.plot()`, `.recommend(...)` for `apply`, `.to_json()`.

    Raises:
        TypeError: An argument is of the wrong type, or `evaluate` returned no number.
        ValueError: `model` did not go through `apply`, has no weights yet, masks in force or
            weights that are not finite; `levels`, `mode` or `path` can't be used; the file is not
            whole, or of another scan; or `evaluate` returned nothing finite for `model` as it is.

    Examples:
        >>> scan = sensitivity(model, lambda model: model.evaluate(x, y, verbose=0))
        >>> model = apply(strip(model), sparsity=scan.recommend(overall=0.3))
    """
    weights = list(registry.adapter_of(model).weights(model))
    evaluation.check_evaluate(evaluate, "model", "model.evaluate(x, y, verbose=0)")
    checks.flag("progress", progress)
    file = evaluation.check_file(path, "scan.json")
    scan = Scan(_check_levels(levels), evaluation.check_mode(mode), *_identify(model, weights))
    if file is not None:
        results_file.go_on(file, scan)
    _run(scan, weights, lambda: evaluate(model), file, progress)
    return scan.result()


def _run(
    scan: Scan,
    weights: Sequence[PrunableWeight],
    evaluate: Callable[[], Any],
    file: pathlib.Path | None,
    progress: bool,
) -> None:
    """Measures what `scan` has no value of yet."""

    def done(words: str) -> None:
        if file is not None:
            results_file.write(file, scan)
        advance(words)

    with progress_bar(progress, scan.num_points, scan.num_done) as advance:
        if scan.baseline is None:
            try:
                scan.baseline = _check_baseline(number(evaluate(), "nothing pruned"))
            finally:
                # Keras keeps a JAX model's values elsewhere meanwhile. Reading one brings all back.
                weights[0].numpy()
            done("nothing pruned")
        for weight, values in zip(weights, scan.values, strict=True):
            if len(values) < len(scan.levels):
                _prune_alone(weight, scan.levels, values, evaluate, done)


def _prune_alone(
    weight: PrunableWeight,
    levels: Sequence[float],
    values: list[float],
    evaluate: Callable[[], Any],
    done: Callable[[str], None],
) -> None:
    """Measures at the levels of which `values` has no value yet, and adds them to it."""
    whole = weight.numpy()
    # As plain as can be: Ctrl-C in the code of a context manager would not restore the weight.
    try:
        for level in levels[len(values) :]:
            pruned = whole.copy()
            pruned[~masks.mask_of(whole, weight, level)] = 0
            weight.assign(pruned)
            words = f"{weight.path} at {level:g}"
            values.append(number(evaluate(), words))
            done(words)
    finally:
        weight.assign(whole)


def _identify(
    model: Any, weights: list[PrunableWeight]
) -> tuple[list[tuple[str, tuple[int, ...], int]], list[str]]:
    """Returns what to call each weight, and digests that tell its values from others."""
    if not weights:
        raise ValueError(
            f"Expected a model that has made its weights. Received: model={model.name!r}, in "
            f"which there is nothing to prune yet. Build or train it first."
        )
    found, digests = [], []
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
        digests.append(_digest(values, weight.pattern))
    return found, digests


def _digest(values: np.ndarray, pattern: Pattern) -> str:
    layout = b"" if pattern is None else str(pattern).encode()
    return hashlib.blake2b(values.tobytes() + layout, digest_size=16).hexdigest()


def _check_baseline(value: float) -> float:
    if math.isnan(value):
        raise ValueError(
            "Expected `evaluate` to return a finite number for the model as it is, to compare "
            "others with. Received: NaN or infinity. Nothing was pruned; see what it computes."
        )
    return value


def _check_levels(levels: Any) -> tuple[float, ...]:
    if isinstance(levels, str | bytes) or not isinstance(levels, Iterable):
        raise TypeError(
            f"Expected `levels` to be a list of sparsities. Received: levels={shown(levels)} of "
            f"type {type(levels).__name__}. Put a single one in a list: levels=[0.5]."
        )
    given = checks.items("levels", levels)
    found = tuple(checks.fraction(f"levels[{i}]", level) for i, level in enumerate(given))
    if not found or any(b <= a for a, b in zip((0.0, *found), found, strict=False)):
        raise ValueError(
            f"Expected `levels` to be sparsities above 0, each larger than the one before. "
            f"Received: levels={shown(given)}. Sort them, and leave out 0 and what comes twice."
        )
    return found
