"""Report of the sparsity of each weight, and of weights that stay dense, with reasons."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from keras_dsd.algorithm.device_masks import Measured, measure, thresholds
from keras_dsd.algorithm.patterns import Block, num_covered
from keras_dsd.protocols import PrunableWeight, SkippedWeight
from keras_dsd.utils import checks
from keras_dsd.utils.files import plain
from keras_dsd.utils.tables import MAX_ROWS, Table, Tabled, draw, num_tensors, percent, shape_text

_HEAD = ("weight", "shape", "size", "share", "target", "sparsity", "threshold", "mask")
_EMPTY = "no weights yet: the model is not built"


@dataclasses.dataclass(frozen=True)
class WeightSparsity:
    """One weight that DSD prunes.

    Attributes:
        path: Its path in the model.
        shape: Its shape.
        target: Target sparsity, the fraction set by `apply`; a phase may have another one. None if
            unknown, as in a file.
        measured: Measured fraction of zeros; under a mask, of pruned zeros, as a kept value may
            underflow to zero.
        masked: True if it is zero where an active mask prunes it.
        uncovered: Number of values at its edge that fill no block or group of the pattern, and
            stay dense.
        threshold: Smallest kept magnitude, or pooled magnitude of a block: of the active mask or,
            without one, of a sparse phase that starts now. None with N:M, and if it is undefined,
            as with NaN in the weight.
        share: Its fraction of all values in the report, including dense weights.
    """

    path: str
    shape: tuple[int, ...]
    target: float | None
    measured: float
    masked: bool
    uncovered: int = 0
    threshold: float | None = None
    share: float = 0.0

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def asked(self) -> float | None:
        """`target`, by its earlier name."""
        return self.target


@dataclasses.dataclass(frozen=True, repr=False)
class SparsityReport(Tabled):
    """The sparsity of a model: the result of `report`.

    Attributes:
        weights: The weights that DSD prunes.
        skipped: The trainable weights that stay dense, and frozen weights of known layers.
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
        """Measured fraction of zeros among them."""
        return self._num_zeros / max(self.size, 1)

    @property
    def total_size(self) -> int:
        """Number of values in all weights of the report, including dense ones."""
        return self.size + sum(weight.size for weight in self.skipped)

    @property
    def total_sparsity(self) -> float:
        """Measured zeros in the weights that DSD prunes, as a fraction of all values."""
        return self._num_zeros / max(self.total_size, 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and str.

        `"weights"` and `"skipped"` are lists of rows: `pandas.DataFrame(found["weights"])`. Rows
        have `"target"` also by its earlier name, `"asked"`.
        """
        return {
            "weights": [
                {**plain(weight), "asked": weight.target, "size": weight.size}
                for weight in self.weights
            ],
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
            n: Number of weights to show; `0` shows only the summary. Defaults to `20`.

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
        """Returns the changes of each tensor between this report and a later one.

        Args:
            after: The later report of the same model.

        Raises:
            TypeError: `after` is not a report.
            ValueError: A weight has different shapes in the two, or no weight is in both.

        Examples:
            >>> before = report(model)
            >>> history = model.fit(x, y, epochs=30, callbacks=[schedule])
            >>> print(before.diff(report(model)))
        """
        if not isinstance(after, SparsityReport):
            hint = "Give a later result of keras_dsd.report(model)."
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
             "-" if w.target is None else percent(w.target), percent(w.measured),
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
        targets = [w.target * w.size for w in self.weights if w.target is not None]
        is_known = len(targets) == len(self.weights)
        target = f" (target {percent(sum(targets) / max(self.size, 1))})" if is_known else ""
        num_masked = sum(w.masked for w in self.weights)
        ranked = sorted(self.weights, key=lambda weight: weight.measured)
        yield "sparsity", f"{percent(self.sparsity)} of {_counted(self.size, self.weights)}{target}"
        included = f"{self.total_size:,}, with those left dense"
        yield "all weights", f"{percent(self.total_sparsity)} of {included}"
        yield "masks", f"active on {num_masked} of {num_tensors(len(self.weights))}"
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
        before: Its row in the earlier report, or None.
        after: Its row in the later report, or None.
    """

    path: str
    before: WeightSparsity | None
    after: WeightSparsity | None

    @property
    def num_zeros(self) -> int:
        """Change of the number of zeros. A missing row has no zeros."""
        before, after = (
            0 if row is None else round(row.measured * row.size)
            for row in (self.before, self.after)
        )
        return after - before

    @property
    def what(self) -> str:
        """Kind of the change: `"pruned"`, `"regrown"`, `"mask applied"` and others."""
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
    """Changes between two reports: the result of `SparsityReport.diff`.

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
        yield "masks", f"applied to {num_tensors(applied)}, removed from {removed}"
        whats = [change.what for change in self.weights]
        counts = (f"{whats.count(what)} {what}" for what in ("unchanged", "new", "gone"))
        yield "others", ", ".join(counts)


def make_report(
    weights: Iterable[PrunableWeight], skipped: Iterable[SkippedWeight]
) -> SparsityReport:
    """Measures the weights that DSD prunes, one after another, and lists skipped weights."""
    weights, skipped = list(weights), tuple(skipped)
    total = sum(math.prod(w.shape) for w in weights) + sum(w.size for w in skipped)
    found = measure(weights)
    each = zip(weights, found, thresholds(weights), strict=True)
    measured = tuple(_sparsity_of(*of_weight, total) for of_weight in each)
    return SparsityReport(measured, skipped, tuple(_notes(weights, found)))


def _counted(size: int, tensors: Sequence[object]) -> str:
    return f"{size:,} weights in {num_tensors(len(tensors))}"


def _changes(before: SparsityReport, after: SparsityReport) -> Iterator[WeightChange]:
    rows, others = _by_path(before), _by_path(after)
    if not rows.keys() & others.keys() and (rows or others):
        raise ValueError(
            f"Expected `after` to be a report of the same model. Received: "
            f"after={after!r}, without any of its weights. Give two reports of one model."
        )
    for key in {**rows, **others}:  # in order, new ones last
        row, other = rows.get(key), others.get(key)
        if row is not None and other is not None and row.shape != other.shape:
            raise ValueError(
                f"Expected `after` to have weights of the same shapes. Received: {key[0]!r} of "
                f"shape {other.shape}, before {row.shape}. Give two reports of one model."
            )
        yield WeightChange(key[0], row, other)


def _by_path(found: SparsityReport) -> dict[tuple[str, int], WeightSparsity]:
    """Returns rows by path and number, as layers of one name may have equal paths."""
    rows: dict[tuple[str, int], WeightSparsity] = {}
    for weight in found.weights:
        number = sum(path == weight.path for path, _ in rows)
        rows[weight.path, number] = weight
    return rows


def _notes(weights: Sequence[PrunableWeight], found: Sequence[Measured]) -> Iterator[str]:
    for pattern in dict.fromkeys(w.pattern for w in weights if w.pattern is not None):
        yield f"pattern: {pattern}"
    if any(weight.scope == "global" for weight in weights):
        yield "scope: one ranking over all weights, so sparsities differ from the target"
    elif any(map(_is_of_another_sparsity, weights, found)):
        yield "the phase has another sparsity than the target of apply"


def _is_of_another_sparsity(weight: PrunableWeight, found: Measured) -> bool:
    """Returns whether an active mask differs from the target of `apply`."""
    if not weight.is_masked:
        return False
    pattern = weight.pattern
    at_once = pattern.height * pattern.width if isinstance(pattern, Block) else 1
    target = weight.sparsity * num_covered(weight.shape, pattern, weight.layout)
    return abs(found.num_pruned - target) > at_once


def _sparsity_of(
    weight: PrunableWeight, found: Measured, threshold: float | None, total: int
) -> WeightSparsity:
    size = math.prod(weight.shape)
    return WeightSparsity(
        path=weight.path,
        shape=tuple(weight.shape),
        target=weight.sparsity,
        measured=found.num_zeros / max(size, 1),
        masked=0 < found.num_pruned == found.num_zeros,
        uncovered=size - num_covered(weight.shape, weight.pattern, weight.layout),
        threshold=None if found.num_not_finite else threshold,
        share=size / max(total, 1),
    )
