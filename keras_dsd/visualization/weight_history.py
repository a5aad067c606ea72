"""WeightHistory: histograms of weights around the phase changes of a run, for figures and files."""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_dsd.algorithm.device_masks import measure, smallest_kept
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine import observers
from keras_dsd.engine.observers import MOMENTS, Moment, Observer
from keras_dsd.protocols import PrunableWeight, Tensor
from keras_dsd.utils import checks, files
from keras_dsd.visualization.histogram import Histogram, histogram_of

REDENSE = (observers.FIRST_REDENSE_EPOCH, observers.LAST_REDENSE_EPOCH)
_UNSEEN = "regrown weights are unknown: the run resumed after they had regrown"


@dataclasses.dataclass(frozen=True)
class WeightSnapshot:
    """One weight at one moment.

    Attributes:
        path: Its path in the model, without the model name.
        shape: Its shape.
        num_pruned: Number of pruned values; 0 without an active mask.
        threshold: Smallest magnitude that the last mask kept when it was computed: smaller ones
            were pruned. None before that, with a pattern, and if a resumed run did not record it.
        values: All values.
        stayed: Values that the active mask keeps or, in the dense phase after it, kept. None
            without a mask.
        returned: Values that the mask prunes or, in the dense phase after it, pruned. None without
            a mask.
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
        epoch: Number of epochs trained.
        phase: Index of the sparse phase that starts or ends, or of the dense phase after it.
        weights: The weights, in the model's order.
        note: Remark on unknown values, or empty.
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
        """Order of the moment in a run: its phase, and its index in the phase."""
        return self.phase, MOMENTS.index(self.name)

    @property
    def sparse_phase(self) -> int:
        """Index of the sparse phase of the moment."""
        return self.phase - (self.name in REDENSE)

    def select(self, path: str | None) -> tuple[WeightSnapshot, ...]:
        """Returns the weights of a path, or all for None."""
        return tuple(w for w in self.weights if path in (None, w.path))


class _Packed(NamedTuple):
    """A mask in this machine's memory, eight values a byte."""

    bits: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, mask: np.ndarray) -> "_Packed":
        """Packs a mask."""
        return cls(np.packbits(mask), mask.shape)

    def mask(self) -> np.ndarray:
        """Returns the mask."""
        bits = np.unpackbits(self.bits, count=math.prod(self.shape))
        return bits.view(bool).reshape(self.shape)


class _Masks(NamedTuple):
    """The masks of a sparse phase, stored across the calls of `fit` of a run.

    Attributes:
        moment: The last moment with these masks.
        shapes: Path and shape of each weight.
        kept: The mask of each weight: packed, or a tensor where the weight is on devices.
    """

    moment: Moment
    shapes: list[tuple[str, tuple[int, ...]]]
    kept: list[_Packed | Tensor]

    def are_of(self, moment: Moment, shapes: list[tuple[str, tuple[int, ...]]]) -> bool:
        """Returns whether they are those of the sparse phase before `moment`, in the same run."""
        is_over = moment.name == observers.BEFORE_PRUNING
        seen = self.moment.name == (observers.AFTER_PRUNING if is_over else observers.END_OF_SPARSE)
        return seen and self.moment.phase == moment.phase - 1 and self.shapes == shapes


class WeightHistory(Observer):
    """Records histograms of the weights at each moment around a phase change.

    Each moment has a histogram of all values and, until the end of the re-dense phase, separate
    ones of kept and pruned values. For these, the mask is stored too: with one bit per weight or,
    for weights on accelerators and on devices of several processes, one byte on their devices.
    `dsd.plots` draws the histograms.

    If several processes train one model, pass one to each of them; the first process writes.

    Args:
        path: A JSON file to write after each moment, and to resume from if it exists; also to read
            the weights of a finished run. Defaults to `None`: no file.

    Raises:
        TypeError: `path` is not a path.
        ValueError: `path` is incomplete, or a file that `WeightHistory` did not write.

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
        # Of the last sparse phase; None before it, and after the dense phase that follows.
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
        """Checks that the snapshots are of a run with these phases, and that the file is writable.

        Raises:
            ValueError: The snapshots are of other phases.
            OSError: The file can't be written.
        """
        if self._snapshots and self._timeline != str(timeline):
            raise ValueError(
                f"Expected a new WeightHistory, or one of a run with the same phases ({timeline}). "
                f"Received: one of other phases ({self._timeline}), "
                f"path={checks.shown(None if self.path is None else str(self.path))}. Create a new "
                f"one, with another path."
            )
        self._timeline = str(timeline)
        self._write()

    def on_moment(self, moment: Moment, weights: Sequence[PrunableWeight]) -> None:
        """Records the weights at a moment."""
        same = [(weight.short_path, tuple(weight.shape)) for weight in weights]
        if moment.name in (observers.AFTER_PRUNING, observers.END_OF_SPARSE):
            self._masks = _Masks(moment, same, list(map(_copy_of_mask, weights)))
        elif not (self._masks and self._masks.are_of(moment, same)):
            self._masks = None  # of an interrupted run, which this one does not resume
        is_unseen = moment.name != observers.BEFORE_PRUNING and self._masks is None
        now = Snapshot(moment.name, moment.epoch, moment.phase, (), _UNSEEN * is_unseen)
        # A restarted run, or one of another model, does not continue an earlier one.
        earlier = tuple(s for s in self._snapshots if s.place < now.place and s.shapes == same)
        thresholds: list[float | None] = [None] * len(weights)
        for snapshot in earlier:
            if (snapshot.name, snapshot.phase) == (observers.AFTER_PRUNING, now.sparse_phase):
                thresholds = [weight.threshold for weight in snapshot.weights]
        active = measure(weights)
        found = tuple(
            self._snapshot(
                weight, index, active[index].num_pruned, thresholds[index],
                moment.name == observers.AFTER_PRUNING,
            )
            for index, weight in enumerate(weights)
        )  # fmt: skip
        self._snapshots = (*earlier, dataclasses.replace(now, weights=found))
        if moment.name == observers.LAST_REDENSE_EPOCH:
            self._masks = None
        self._write()

    def _snapshot(
        self, weight: PrunableWeight, index: int, num_pruned: int, threshold: float | None,
        is_new: bool,
    ) -> WeightSnapshot:  # fmt: skip
        kept = None if self._masks is None else self._masks.kept[index]
        mask = kept.mask() if isinstance(kept, _Packed) else kept
        if is_new and mask is not None and weight.pattern is None:
            threshold = smallest_kept(weight, weight.mask_tensor())
        stayed = returned = None
        if mask is not None:
            stayed, returned = (
                histogram_of(weight, mask, is_kept, threshold=threshold)
                for is_kept in (True, False)
            )
        return WeightSnapshot(
            path=weight.short_path,
            shape=tuple(weight.shape),
            num_pruned=num_pruned,
            threshold=threshold,
            values=histogram_of(weight, threshold=threshold),
            stayed=stayed,
            returned=returned,
        )

    def _write(self) -> None:
        if self.path is not None and self.is_chief:
            files.write_json(self.path, self.to_dict(), indent=None)


def _copy_of_mask(weight: PrunableWeight) -> _Packed | Tensor:
    """Returns the active mask, or one that keeps all; packed where NumPy can read it."""
    values, mask = weight.tensor(), weight.mask_tensor()
    if weight.arrays.is_on_host(values):
        kept = weight.mask
        return _Packed.of(np.ones(weight.shape, bool) if kept is None else kept)
    return weight.arrays.all_kept(values) if mask is None else weight.arrays.copy(mask)


def _parse(data: Any) -> tuple[str, tuple[Snapshot, ...]]:
    return str(data["timeline"]), tuple(map(Snapshot.from_dict, data["snapshots"]))
