"""What weights were at one moment of a run: numbers, no arrays."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_dsd.engine.observers import FIRST_REDENSE_EPOCH, LAST_REDENSE_EPOCH, MOMENTS
from keras_dsd.utils.checks import shown
from keras_dsd.visualization.histogram import Histogram, total

REDENSE = (FIRST_REDENSE_EPOCH, LAST_REDENSE_EPOCH)


@dataclasses.dataclass(frozen=True)
class WeightSnapshot:
    """One weight at one moment.

    Attributes:
        path: Where it is in the model, without the model's own name.
        shape: Its shape.
        num_pruned: How many of its values the mask in force prunes; 0 where there is none.
        threshold: The smallest magnitude that the last mask kept as it was made: those below it
            were pruned. None before that, where a pattern chose otherwise, and where a run that
            went on did not see it.
        values: All values.
        stayed: Those that the mask in force keeps or, in the dense phase after it, that it kept.
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

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return {
            "path": self.path,
            "shape": list(self.shape),
            "num_pruned": self.num_pruned,
            "threshold": self.threshold,
            "values": self.values.to_dict(),
            "stayed": None if self.stayed is None else self.stayed.to_dict(),
            "returned": None if self.returned is None else self.returned.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "WeightSnapshot":
        """Returns what `to_dict` was called on."""
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
        name: What the moment is called, such as `"end of sparse"`.
        epoch: How many epochs had been trained.
        phase: Index of the sparse phase that begins or ends, or of the dense phase after it.
        weights: The weights, in the model's order.
        note: What is not known of them and why, in words, or nothing.
    """

    name: str
    epoch: int
    phase: int
    weights: tuple[WeightSnapshot, ...]
    note: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the weights, each once."""
        return tuple(dict.fromkeys(weight.path for weight in self.weights))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and text."""
        weights = [weight.to_dict() for weight in self.weights]
        return {"name": self.name, "epoch": self.epoch, "phase": self.phase,
                "weights": weights, "note": self.note}  # fmt: skip

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Snapshot":
        """Returns what `to_dict` was called on."""
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
        """What orders moments of a run: the phase, and which of its moments."""
        return self.phase, MOMENTS.index(self.name)

    @property
    def sparse_phase(self) -> int:
        """Index of the sparse phase that it is around."""
        return self.phase - (self.name in REDENSE)

    def select(self, path: str | None) -> tuple[WeightSnapshot, ...]:
        """Returns the weights of a path, or all for None."""
        return tuple(w for w in self.weights if path in (None, w.path))


def merged(histograms: Sequence[Histogram | None]) -> Histogram | None:
    """Returns one histogram of all weights; None where they are not known, of a moment all."""
    known = [each for each in histograms if each is not None]
    return total(known) if known else None


def read(path: pathlib.Path) -> tuple[str, tuple[Snapshot, ...]]:
    """Returns the phases and the snapshots of such a file; nothing where there is none.

    Raises:
        ValueError: It can't be read, is something else, or is not whole.
    """
    try:
        data = json.loads(path.read_bytes().decode("utf-8"))
        return str(data["timeline"]), tuple(map(Snapshot.from_dict, data["snapshots"]))
    except FileNotFoundError:
        return "", ()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"Expected `path` to be a file that WeightHistory wrote, or a new one. Received: "
            f"path={shown(str(path))}, which can't be read, is not whole or something else "
            f"({shown(error)}). Delete it to begin anew, or give another path."
        ) from error
