"""WeightHistory: histograms of weights around the boundaries of a run, for figures and a file."""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_dsd.algorithm.masks import comparable
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine import observers
from keras_dsd.engine.observers import MOMENTS, Moment, Observer
from keras_dsd.protocols import PrunableWeight
from keras_dsd.utils import checks, files
from keras_dsd.visualization.histogram import Histogram, histogram

REDENSE = (observers.FIRST_REDENSE_EPOCH, observers.LAST_REDENSE_EPOCH)
_UNSEEN = "which weights returned is not known: the run went on after they had returned"


@dataclasses.dataclass(frozen=True)
class WeightSnapshot:
    """One weight at one moment.

    Attributes:
        path: Its path in the model, without the model's own name.
        shape: Its shape.
        num_pruned: How many of its values the active mask prunes; 0 where there is none.
        threshold: The smallest magnitude that the last mask kept as it was made: those below it
            were pruned. None before that, where a pattern chose otherwise, and where a run that
            resumed did not see it.
        values: All values.
        stayed: Those that the active mask keeps or, in the dense phase after it, that it kept.
            None where there was no mask.
        returned: Those that it prunes, or that it pruned and that train again. None likewise.
    """

    path: str
    shape: tuple[int, ...]
    num_pruned: int
    threshold: float | None
    values: Histogram
    stayed: Histogram | None
    returned: Histogram | None

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "WeightSnapshot":
        """Returns the snapshot that plain values describe."""
        parts = {
            name: None if data[name] is None else Histogram.from_dict(data[name])
            for name in ("values", "stayed", "returned")
        }
        made = cls(**{**data, **parts, "shape": tuple(data["shape"])})
        if made.values.size != made.size or not isinstance(made.path, str):
            raise ValueError(f"{made.path!r} does not have {made.size} values")
        return made


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All weights that DSD prunes, at one moment.

    Attributes:
        name: Name of the moment, such as `"end of sparse"`.
        epoch: How many epochs had been trained.
        phase: Index of the sparse phase that starts or ends, or of the dense phase after it.
        weights: The weights, in the model's order.
        note: What is unknown of them and why, or nothing.
    """

    name: str
    epoch: int
    phase: int
    weights: tuple[WeightSnapshot, ...]
    note: str = ""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Snapshot":
        """Returns the snapshot that plain values describe."""
        weights = tuple(WeightSnapshot.from_dict(weight) for weight in data["weights"])
        made = cls(**{**data, "weights": weights})
        if made.name not in MOMENTS or not type(made.epoch) is type(made.phase) is int:
            raise ValueError(f"there is no moment {made.name!r} ({made.epoch}, {made.phase})")
        return made

    @property
    def shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Path and shape of each weight."""
        return [(weight.path, weight.shape) for weight in self.weights]

    @property
    def place(self) -> tuple[int, int]:
        """The order of the moment in a run: the phase, and which of its moments."""
        return self.phase, MOMENTS.index(self.name)

    @property
    def sparse_phase(self) -> int:
        """Index of the sparse phase that it is around."""
        return self.phase - (self.name in REDENSE)

    def select(self, path: str | None) -> tuple[WeightSnapshot, ...]:
        """Returns the weights of a path, or all for None."""
        return tuple(w for w in self.weights if path in (None, w.path))


class _Masks(NamedTuple):
    """The masks of a sparse phase, which outlast the calls of `fit` that a run takes.

    Attributes:
        moment: When they were seen last.
        shapes: Path and shape of each weight.
        bits: The packed mask of each weight.
    """

    moment: Moment
    shapes: list[tuple[str, tuple[int, ...]]]
    bits: list[np.ndarray]

    def are_of(self, moment: Moment, shapes: list[tuple[str, tuple[int, ...]]]) -> bool:
        """Returns whether they are those of the sparse phase before `moment`, in the same run."""
        is_over = moment.name == observers.BEFORE_PRUNING
        seen = self.moment.name == (observers.AFTER_PRUNING if is_over else observers.END_OF_SPARSE)
        return seen and self.moment.phase == moment.phase - 1 and self.shapes == shapes


class WeightHistory(Observer):
    """Keeps how the values of weights are spread, at each moment around a boundary of phases.

    A moment is kept as counts: of all values and, apart, of those that the last mask kept and that
    it pruned, until the dense phase after it ends. Meanwhile the mask is kept too, one bit for each
    weight. `dsd.plots` draws what was kept.

    Args:
        path: A JSON file to write after each moment, and to resume from where it exists: so it is
            also how the weights of a run that is over are read. Defaults to `None`: none.

    Raises:
        TypeError: `path` is no path.
        ValueError: `path` is something that `WeightHistory` did not write, or not complete.

    Examples:
        >>> weights = WeightHistory()
        >>> schedule = dsd.DSDSchedule(10, 10, 10, observers=[weights])
        >>> model.fit(x, y, epochs=30, callbacks=[schedule])
        >>> dsd.plots.weight_distributions(weights).savefig("weights.png")
    """

    def __init__(self, path: "str | os.PathLike[str] | None" = None) -> None:
        self.path = checks.path("path", path, "file", "weights.json")
        kept = None
        if self.path is not None:
            kept = files.read_results(self.path, _parse, "WeightHistory")
        self._timeline, self._snapshots = kept or ("", ())
        # Of the last sparse phase; None before it, and after the dense one that follows.
        self._masks: _Masks | None = None

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The snapshots, in order."""
        return self._snapshots

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and text."""
        return {"timeline": self._timeline, "snapshots": files.plain(self._snapshots)}

    def to_json(self) -> str:
        """Returns `to_dict` as JSON."""
        return json.dumps(self.to_dict())

    def on_begin(self, timeline: Timeline) -> None:
        """Sees that what was kept is of a run with these phases, and that it can be written.

        Raises:
            ValueError: It is of other phases.
            OSError: The file can't be written.
        """
        if self._snapshots and self._timeline != str(timeline):
            raise ValueError(
                f"Expected a WeightHistory of a run with the same phases ({timeline}), or a new "
                f"one. Received: one of other phases ({self._timeline}), "
                f"path={checks.shown(None if self.path is None else str(self.path))}. Make a new "
                f"one, with another path."
            )
        self._timeline = str(timeline)
        self._write()

    def on_moment(self, moment: Moment, weights: Sequence[PrunableWeight]) -> None:
        """Keeps what weights are at a moment."""
        same = [(weight.short_path, tuple(weight.shape)) for weight in weights]
        if moment.name in (observers.AFTER_PRUNING, observers.END_OF_SPARSE):
            active = ((weight.mask, weight.shape) for weight in weights)
            bits = [np.packbits(np.ones(s, bool) if m is None else m) for m, s in active]
            self._masks = _Masks(moment, same, bits)
        elif not (self._masks and self._masks.are_of(moment, same)):
            self._masks = None  # of a run that stopped, and that this one does not resume
        is_unseen = moment.name != observers.BEFORE_PRUNING and self._masks is None
        now = Snapshot(moment.name, moment.epoch, moment.phase, (), _UNSEEN * is_unseen)
        # A run that is made anew, or on another model, continues nothing of an earlier one.
        earlier = tuple(s for s in self._snapshots if s.place < now.place and s.shapes == same)
        thresholds: list[float | None] = [None] * len(weights)
        for snapshot in earlier:
            if (snapshot.name, snapshot.phase) == (observers.AFTER_PRUNING, now.sparse_phase):
                thresholds = [weight.threshold for weight in snapshot.weights]
        found = tuple(
            self._snapshot(weight, index, thresholds[index], moment.name == observers.AFTER_PRUNING)
            for index, weight in enumerate(weights)
        )
        self._snapshots = (*earlier, dataclasses.replace(now, weights=found))
        if moment.name == observers.LAST_REDENSE_EPOCH:
            self._masks = None
        self._write()

    def _snapshot(
        self, weight: PrunableWeight, index: int, threshold: float | None, is_new: bool
    ) -> WeightSnapshot:
        values, active = weight.numpy(), weight.mask
        mask = None
        if self._masks is not None:
            bits = np.unpackbits(self._masks.bits[index], count=values.size)
            mask = bits.view(bool).reshape(values.shape)
        if is_new and mask is not None and weight.pattern is None:
            threshold = float(np.abs(comparable(values[mask])).min()) if mask.any() else None
        return WeightSnapshot(
            path=weight.short_path,
            shape=tuple(values.shape),
            num_pruned=0 if active is None else values.size - int(np.count_nonzero(active)),
            threshold=threshold,
            values=histogram(values, None, threshold),
            stayed=None if mask is None else histogram(values, mask, threshold),
            returned=None if mask is None else histogram(values, ~mask, threshold),
        )

    def _write(self) -> None:
        if self.path is not None:
            files.write_json(self.path, self.to_dict(), indent=None)


def _parse(data: Any) -> tuple[str, tuple[Snapshot, ...]]:
    return str(data["timeline"]), tuple(map(Snapshot.from_dict, data["snapshots"]))
