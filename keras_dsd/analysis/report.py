"""Report of the sparsity of each weight, and of weights that stay dense and why."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_dsd.algorithm.masks import num_zeros, thresholds
from keras_dsd.algorithm.patterns import Block, num_covered
from keras_dsd.protocols import PrunableWeight, SkippedWeight
from keras_dsd.utils import checks
from keras_dsd.utils.files import plain
from keras_dsd.utils.tables import MAX_ROWS, Table, Tabled, draw, percent, shape_text

_HEAD = ("weight", "shape", "size", "share", "target", "sparsity", "threshold", "mask")
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

    def render(self, max_rows: int | None = MAX_ROWS) -> str:
        """Returns a summary of five lines and a table, in plain text of at most 100 columns.

        Args:
            max_rows: Number of weights to show, in the model's order; a line counts the others.
                `None` shows all. Defaults to `20`.
        """
        return super().render(max_rows) if self.weights or self.skipped else _EMPTY

    def summary(self, n: int = MAX_ROWS) -> str:
        """Returns the summary and the `n` largest weights, for models of hundreds of tensors.

        Args:
            n: Number of weights to show; `0` shows the five lines alone. Defaults to `20`.

        Raises:
            TypeError: `n` is not an integer.
            ValueError: `n` is negative.
        """
        checks.whole_number("n", n, least=0, unit="weights")
        largest = sorted(self.weights, key=lambda weight: -weight.size)
        table = dataclasses.replace(self, weights=tuple(largest))._table()
        if not n:
            table = table._replace(head=(), rows=(), lines=())
        return draw(table, n) if self.weights or self.skipped else _EMPTY

    def diff(self, after: "SparsityReport") -> "ReportDiff":
        """Returns what happened to each tensor between this report and a later one.

        Args:
            after: The later report of the same model.

        Raises:
            TypeError: `after` is not a report.
            ValueError: A weight has another shape in it, or no weight is in both.

        Examples:
            >>> before = report(model)
            >>> history = model.fit(x, y, epochs=30, callbacks=[schedule])
            >>> print(before.diff(report(model)))
        """
        if not isinstance(after, SparsityReport):
            hint = "Give what keras_dsd.report(model) returned later."
            raise checks.invalid_type("after", after, "to be a report", hint)
        return ReportDiff(tuple(_changes(self, after)))

    def __repr__(self) -> str:
        return (
            f"<SparsityReport: {len(self.weights)} weights to prune, {percent(self.sparsity)} of "
            f"{self.size:,} values zero; print it>"
        )

    @property
    def _num_zeros(self) -> float:
        return sum(w.measured * w.size for w in self.weights)

    def _table(self) -> Table:
        rows = [
            (w.path, shape_text(w.shape), f"{w.size:,}", percent(w.share),
             "-" if w.asked is None else percent(w.asked), percent(w.measured),
             "-" if w.threshold is None else f"{w.threshold:.4g}", "active" if w.masked else "-")
            for w in self.weights
        ]  # fmt: skip
        reasons = dict.fromkeys(w.reason for w in self.skipped)
        dense = [f"left dense: {self._text_of(reason)}" for reason in reasons]
        edges = [f"edge left dense: {w.uncovered:,} values of {w.path}"
                 for w in self.weights if w.uncovered]  # fmt: skip
        lines = [*self.notes, *edges, *dense]
        return Table(_HEAD, rows, (), (0, 1, 7), list(self._summary()), lines)

    def _summary(self) -> Iterator[tuple[str, str]]:
        targets = [w.asked * w.size for w in self.weights if w.asked is not None]
        is_known = len(targets) == len(self.weights)
        target = f" (target {percent(sum(targets) / max(self.size, 1))})" if is_known else ""
        num_masked = sum(w.masked for w in self.weights)
        ranked = sorted(self.weights, key=lambda weight: weight.measured)
        yield "sparsity", f"{percent(self.sparsity)} of {_counted(self.size, self.weights)}{target}"
        included = f"{self.total_size:,}, with those left dense"
        yield "all weights", f"{percent(self.total_sparsity)} of {included}"
        yield "masks", f"active on {num_masked} of {len(self.weights)} tensors"
        if ranked:
            ends = [f"{percent(w.measured)} ({w.path})" for w in (ranked[0], ranked[-1])]
            is_same = ranked[0].measured == ranked[-1].measured
            even = f"{percent(ranked[0].measured)} in every tensor"
            yield "range", even if is_same else " to ".join(ends)
        yield "left dense", _counted(self.total_size - self.size, self.skipped)

    def _text_of(self, reason: str) -> str:
        paths = [weight.path for weight in self.skipped if weight.reason == reason]
        more = f", … and {len(paths) - 5} more" if len(paths) > 6 else ""
        return f"{', '.join(paths[:5] if more else paths)}{more} ({reason})"


@dataclasses.dataclass(frozen=True)
class WeightChange:
    """One weight in two reports.

    Attributes:
        path: Its path in the model.
        before: Its row in the earlier report; None where that has none.
        after: Its row in the later one; None where that has none.
    """

    path: str
    before: WeightSparsity | None
    after: WeightSparsity | None

    @property
    def num_zeros(self) -> int:
        """How many zeros came; negative where they went. A row that is missing has none."""
        before, after = (
            0 if row is None else round(row.measured * row.size)
            for row in (self.before, self.after)
        )
        return after - before

    @property
    def what(self) -> str:
        """What the tensor did: `"pruned"`, `"regrown"`, `"mask applied"` and so on."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "gone"
        if self.num_zeros:
            return "pruned" if self.num_zeros > 0 else "regrown"
        if self.before.masked != self.after.masked:
            return "mask applied" if self.after.masked else "mask removed"
        return "unchanged"


@dataclasses.dataclass(frozen=True)
class ReportDiff(Tabled):
    """The changes between two reports: what `SparsityReport.diff` returns.

    Attributes:
        weights: The weights of both reports, in the model's order.
    """

    weights: tuple[WeightChange, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: a list of rows, each with `"what"` and the rows of both reports."""
        return {
            "weights": [
                {**plain(change), "what": change.what, "num_zeros": change.num_zeros}
                for change in self.weights
            ]
        }

    def _table(self) -> Table:
        rows = [
            (change.path, f"{(change.after or change.before).size:,}",  # type: ignore[union-attr]
             *("-" if row is None else percent(row.measured)
               for row in (change.before, change.after)),
             f"{change.num_zeros:+,}" if change.num_zeros else "0", change.what)
            for change in self.weights
        ]  # fmt: skip
        head = ("weight", "size", "before", "after", "zeros", "what")
        return Table(head, rows, (), (0, 5), list(self._summary()))

    def _summary(self) -> Iterator[tuple[str, str]]:
        ends = []
        for rows in zip(*((change.before, change.after) for change in self.weights), strict=True):
            found = [row for row in rows if row is not None]
            zeros, size = (sum(w.measured * w.size for w in found), sum(w.size for w in found))
            ends.append(percent(zeros / max(size, 1)))
        yield "sparsity", f"{ends[0]} before, {ends[1]} after"
        for what in ("pruned", "regrown"):
            found = [change for change in self.weights if change.what == what]
            yield what, _counted(sum(abs(change.num_zeros) for change in found), found)
        masked = [
            tuple(row is not None and row.masked for row in (change.before, change.after))
            for change in self.weights
        ]
        applied, removed = masked.count((False, True)), masked.count((True, False))
        yield "masks", f"applied to {applied} tensors, removed from {removed}"
        whats = [change.what for change in self.weights]
        counts = (f"{whats.count(what)} {what}" for what in ("unchanged", "new", "gone"))
        yield "others", ", ".join(counts)


def make_report(
    weights: Iterable[PrunableWeight], skipped: Iterable[SkippedWeight]
) -> SparsityReport:
    """Measures the weights that DSD prunes, one after another, and lists those that it skips."""
    weights, skipped = list(weights), tuple(skipped)
    total = sum(math.prod(w.shape) for w in weights) + sum(w.size for w in skipped)
    pairs = zip(weights, thresholds(weights), strict=True)
    measured = tuple(_measure(weight, threshold, total) for weight, threshold in pairs)
    return SparsityReport(measured, skipped, tuple(_notes(weights)))


def _counted(size: int, tensors: Sequence[object]) -> str:
    return f"{size:,} weights in {len(tensors)} tensors"


def _changes(before: SparsityReport, after: SparsityReport) -> Iterator[WeightChange]:
    rows, others = _by_path(before), _by_path(after)
    if not rows.keys() & others.keys() and (rows or others):
        raise ValueError(
            f"Expected `after` to be of the same model, with some of its weights. Received: "
            f"after={after!r}, and none of them. Give two reports of one model."
        )
    for key in {**rows, **others}:  # in order, new ones last
        row, other = rows.get(key), others.get(key)
        if row is not None and other is not None and row.shape != other.shape:
            raise ValueError(
                f"Expected `after` to have weights of the same shapes. Received: {key[0]!r} of "
                f"shape {other.shape}, which was {row.shape}. Give two reports of one model."
            )
        yield WeightChange(key[0], row, other)


def _by_path(found: SparsityReport) -> dict[tuple[str, int], WeightSparsity]:
    """Returns rows by path, and a number where layers of one name have the same."""
    rows: dict[tuple[str, int], WeightSparsity] = {}
    for weight in found.weights:
        number = sum(path == weight.path for path, _ in rows)
        rows[weight.path, number] = weight
    return rows


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
