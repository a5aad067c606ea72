"""How sparse each weight is, and what stays dense and why: data first, then text."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_dsd.patterns import Block, num_covered
from keras_dsd.seam import PrunableWeight
from keras_dsd.text_table import shape_text, table
from keras_dsd.zeros import num_zeros


@dataclasses.dataclass(frozen=True)
class WeightSparsity:
    """One weight that DSD prunes.

    Attributes:
        path: Where it is in the model.
        shape: Its shape.
        asked: The sparsity that `apply` was asked for, a fraction; a phase may have its own.
        measured: The share of its values that are zero now, a fraction; under a mask, of those
            that it prunes: one that it keeps may underflow to zero, and is not pruned then.
        masked: Whether it is zero where the mask of a sparse phase prunes it.
        uncovered: Number of values at its edge that make no whole block or group of the pattern;
            these stay dense.
    """

    path: str
    shape: tuple[int, ...]
    asked: float
    measured: float
    masked: bool
    uncovered: int = 0

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))


@dataclasses.dataclass(frozen=True)
class SkippedWeight:
    """One weight that DSD leaves dense.

    Attributes:
        path: Where it is in the model.
        shape: Its shape.
        reason: Why it stays dense, in words.
    """

    path: str
    shape: tuple[int, ...]
    reason: str

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """What `report` found.

    Attributes:
        weights: The weights that DSD prunes.
        skipped: The trainable weights that it leaves dense, and frozen ones of layers it knows.
        notes: What else there is to know of the numbers, in words.
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
        return sum(w.measured * w.size for w in self.weights) / max(self.size, 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and text."""
        return {
            "weights": [_row(weight) for weight in self.weights],
            "skipped": [_row(weight) for weight in self.skipped],
            "size": self.size,
            "sparsity": self.sparsity,
            "notes": list(self.notes),
        }

    def render(self) -> str:
        """Returns a table in plain text."""
        if not self.weights and not self.skipped:
            return "no weights yet: the model is not built"
        rows: list[tuple[str, ...]] = [("weight", "shape", "size", "asked", "measured", "mask")]
        for w in self.weights:
            held = "held" if w.masked else "-"
            rows.append((w.path, shape_text(w.shape), f"{w.size:,}", f"{w.asked:.2%}",
                         f"{w.measured:.2%}", held))  # fmt: skip
        rows.append(("total", "", f"{self.size:,}", "", f"{self.sparsity:.2%}", ""))
        lines = [*table(rows, left=(0, 1, 5)), *self.notes]
        lines += [f"edge left dense: {w.uncovered:,} values of {w.path}"
                  for w in self.weights if w.uncovered]  # fmt: skip
        lines += [f"left dense: {_text_of(reason, group)}" for reason, group in self._by_reason()]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()

    def _by_reason(self) -> Iterable[tuple[str, list[SkippedWeight]]]:
        groups: dict[str, list[SkippedWeight]] = {}
        for weight in self.skipped:
            groups.setdefault(weight.reason, []).append(weight)
        return groups.items()


def make_report(
    weights: Iterable[PrunableWeight], skipped: Iterable[SkippedWeight]
) -> SparsityReport:
    """Measures `weights`, one after another.

    Args:
        weights: What DSD prunes.
        skipped: What it leaves dense.
    """
    weights = list(weights)
    measured = tuple(_measure(weight) for weight in weights)
    return SparsityReport(measured, tuple(skipped), tuple(_notes(weights)))


def _notes(weights: Sequence[PrunableWeight]) -> Iterator[str]:
    for pattern in dict.fromkeys(w.pattern for w in weights if w.pattern is not None):
        yield f"pattern: {pattern}"
    if any(weight.scope == "global" for weight in weights):
        yield "scope: one ranking over all, so each has its own share of what was asked"
    elif any(_is_of_another_sparsity(weight) for weight in weights):
        yield "the phase prunes by a sparsity of its own, not by what apply was asked"


def _is_of_another_sparsity(weight: PrunableWeight) -> bool:
    """Returns whether a mask in force prunes more or less than `apply` was asked for."""
    mask, pattern = weight.mask, weight.pattern
    if mask is None:
        return False
    at_once = pattern.height * pattern.width if isinstance(pattern, Block) else 1
    asked = weight.sparsity * num_covered(weight.shape, pattern, weight.layout)
    return abs(int(np.count_nonzero(~mask)) - asked) > at_once


def _measure(weight: PrunableWeight) -> WeightSparsity:
    values, mask = weight.numpy(), weight.mask
    return WeightSparsity(
        path=weight.path,
        shape=tuple(weight.shape),
        asked=weight.sparsity,
        measured=num_zeros(values, mask) / max(values.size, 1),
        masked=mask is not None and not mask.all() and not values[~mask].any(),
        uncovered=values.size - num_covered(weight.shape, weight.pattern, weight.layout),
    )


def _row(weight: WeightSparsity | SkippedWeight) -> dict[str, Any]:
    return {**dataclasses.asdict(weight), "shape": list(weight.shape), "size": weight.size}


def _text_of(reason: str, group: list[SkippedWeight]) -> str:
    paths = [weight.path for weight in group]
    named = ", ".join(paths) if len(paths) <= 6 else f"{', '.join(paths[:5])}, ... ({len(paths)})"
    return f"{named} ({reason})"
