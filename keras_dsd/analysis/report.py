"""Report of the sparsity of each weight, and of weights that stay dense and why."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_dsd.algorithm.masks import num_zeros, thresholds
from keras_dsd.algorithm.patterns import Block, num_covered
from keras_dsd.protocols import PrunableWeight, SkippedWeight
from keras_dsd.utils.files import plain
from keras_dsd.utils.tables import Table, Tabled, shape_text

_HEAD = ("weight", "shape", "size", "share", "asked", "measured", "threshold", "mask")
_EMPTY = "no weights yet: the model is not built"


@dataclasses.dataclass(frozen=True)
class WeightSparsity:
    """One weight that DSD prunes.

    Attributes:
        path: Its path in the model.
        shape: Its shape.
        asked: The target sparsity that `apply` was given, a fraction; a phase may have its own.
            None where that is not known, as of a file.
        measured: The share of its values that are zero now, a fraction; under a mask, of those
            that it prunes: one that it keeps may underflow to zero, and is not pruned then.
        masked: Whether it is zero where the mask of a sparse phase prunes it.
        uncovered: Number of values at its edge that make no complete block or group of the
            pattern; these stay dense.
        threshold: The smallest magnitude that is kept, of a block the smallest pooled one: that
            the active mask keeps or, without one, that a sparse phase would keep if it started
            now. None with N:M, and where it can't be told, as with NaN in the weight.
        share: Its part of all values in the report, of what is left dense too, a fraction.
    """

    path: str
    shape: tuple[int, ...]
    asked: float | None
    measured: float
    masked: bool
    uncovered: int = 0
    threshold: float | None = None
    share: float = 0.0

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True, repr=False)
class SparsityReport(Tabled):
    """The sparsity of a model: what `report` returns.

    Attributes:
        weights: The weights that DSD prunes.
        skipped: The trainable weights that it leaves dense, and frozen ones of layers it knows.
        notes: Remarks on the numbers.
    """

    weights: tuple[WeightSparsity, ...]
    skipped: tuple[SkippedWeight, ...]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of values in the weights that DSD prunes."""
        return sum(weight.size for weight in self.weights)

    @property
    def sparsity(self) -> float:
        """Share of zeros among them, a fraction, measured."""
        return self._num_zeros / max(self.size, 1)

    @property
    def total_size(self) -> int:
        """Number of values in all weights here, those left dense too."""
        return self.size + sum(weight.size for weight in self.skipped)

    @property
    def total_sparsity(self) -> float:
        """Share of all these that is zero in the weights that DSD prunes, a fraction, measured."""
        return self._num_zeros / max(self.total_size, 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and text.

        `"weights"` and `"skipped"` are lists of rows: `pandas.DataFrame(found["weights"])`.
        """
        return {
            "weights": [{**plain(weight), "size": weight.size} for weight in self.weights],
            "skipped": [{**plain(weight), "size": weight.size} for weight in self.skipped],
            "size": self.size, "sparsity": self.sparsity,
            "total_size": self.total_size, "total_sparsity": self.total_sparsity,
            "notes": list(self.notes),
        }  # fmt: skip

    def render(self) -> str:
        """Returns a table in plain text, however wide."""
        return super().render() if self.weights or self.skipped else _EMPTY

    def __repr__(self) -> str:
        return (
            f"<SparsityReport: {len(self.weights)} weights to prune, {self.sparsity:.2%} of "
            f"{self.size:,} values zero; print it>"
        )

    @property
    def _num_zeros(self) -> float:
        return sum(w.measured * w.size for w in self.weights)

    def _table(self) -> Table:
        rows = [
            (w.path, shape_text(w.shape), f"{w.size:,}", f"{w.share:.2%}",
             "-" if w.asked is None else f"{w.asked:.2%}", f"{w.measured:.2%}",
             "-" if w.threshold is None else f"{w.threshold:.4g}", "held" if w.masked else "-")
            for w in self.weights
        ]  # fmt: skip
        reasons = dict.fromkeys(w.reason for w in self.skipped)
        dense = [f"left dense: {self._text_of(reason)}" for reason in reasons]
        edges = [f"edge left dense: {w.uncovered:,} values of {w.path}"
                 for w in self.weights if w.uncovered]  # fmt: skip
        return Table(_HEAD, rows, list(self._totals()), (0, 1, 7), [*self.notes, *edges, *dense])

    def _totals(self) -> Iterator[tuple[str, ...]]:
        left = self.total_size - self.size
        of_all = [("left dense", left, ""), ("all", self.total_size, f"{self.total_sparsity:.2%}")]
        rows = [("total", self.size, f"{self.sparsity:.2%}"), *(of_all if self.skipped else ())]
        for name, size, measured in rows:
            share = f"{size / max(self.total_size, 1):.2%}"
            yield (name, "", f"{size:,}", share, "", measured, "", "")

    def _text_of(self, reason: str) -> str:
        paths = [weight.path for weight in self.skipped if weight.reason == reason]
        more = f", ... ({len(paths)})" if len(paths) > 6 else ""
        return f"{', '.join(paths[:5] if more else paths)}{more} ({reason})"


def make_report(
    weights: Iterable[PrunableWeight], skipped: Iterable[SkippedWeight]
) -> SparsityReport:
    """Measures the weights that DSD prunes, one after another, and lists those that it skips."""
    weights, skipped = list(weights), tuple(skipped)
    total = sum(math.prod(w.shape) for w in weights) + sum(w.size for w in skipped)
    pairs = zip(weights, thresholds(weights), strict=True)
    measured = tuple(_measure(weight, threshold, total) for weight, threshold in pairs)
    return SparsityReport(measured, skipped, tuple(_notes(weights)))


def _notes(weights: Sequence[PrunableWeight]) -> Iterator[str]:
    for pattern in dict.fromkeys(w.pattern for w in weights if w.pattern is not None):
        yield f"pattern: {pattern}"
    if any(weight.scope == "global" for weight in weights):
        yield "scope: one ranking over all, so each has its own share of what was asked"
    elif any(_is_of_another_sparsity(weight) for weight in weights):
        yield "the phase prunes by a sparsity of its own, not by what apply was asked"


def _is_of_another_sparsity(weight: PrunableWeight) -> bool:
    """Returns whether an active mask prunes more or less than `apply` was asked for."""
    mask, pattern = weight.mask, weight.pattern
    if mask is None:
        return False
    at_once = pattern.height * pattern.width if isinstance(pattern, Block) else 1
    asked = weight.sparsity * num_covered(weight.shape, pattern, weight.layout)
    return abs(int(np.count_nonzero(~mask)) - asked) > at_once


def _measure(weight: PrunableWeight, threshold: float | None, total: int) -> WeightSparsity:
    values, mask = weight.numpy(), weight.mask
    return WeightSparsity(
        path=weight.path,
        shape=tuple(weight.shape),
        asked=weight.sparsity,
        measured=num_zeros(values, mask) / max(values.size, 1),
        masked=mask is not None and not mask.all() and not values[~mask].any(),
        uncovered=values.size - num_covered(weight.shape, weight.pattern, weight.layout),
        threshold=threshold,
        share=values.size / max(total, 1),
    )
