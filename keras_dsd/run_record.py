"""What a run has measured so far: all that its place in the timeline follows from."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_dsd.timeline import Timeline
from keras_dsd.whole_files import replace

_HISTORY = "dsd_history.json"


class RunRecord:
    """What `until` monitors, epoch by epoch, and the best weights of a phase that asks for them.

    Kept in a folder too, if there is one: what it holds is written whole or not at all, and a run
    that a kill stopped finds in it what it needs to go on from any earlier epoch.

    Args:
        timeline: The phases.
        folder: The folder, or None.
    """

    def __init__(self, timeline: Timeline, folder: pathlib.Path | None) -> None:
        self._timeline = timeline
        self._folder = folder
        self._best: dict[int, list[np.ndarray]] = {}
        self.history: list[dict[str, float]] = []

    def go_on(self, epoch: int) -> bool:
        """Brings the history to where `epoch` begins.

        Args:
            epoch: Counted from 0.

        Returns:
            Whether what is needed of it is there; False where just the epoch before is missing:
            the run was stopped after another callback had saved that and before it was recorded.

        Raises:
            ValueError: What earlier epochs measured is needed, and there is no record of it.
        """
        if len(self.history) < epoch and self._timeline.monitors:
            self.history = self._read(epoch)
        missing = epoch - len(self.history)
        self.history = self.history[:epoch] + [{} for _ in range(missing)]
        return missing <= 0 or not self._timeline.monitors

    def add(self, logs: Mapping[str, Any], weights: Callable[[], list[np.ndarray]]) -> None:
        """Notes an epoch's logs.

        Args:
            logs: What it measured.
            weights: Returns all weights of the model; called if they are the best of the phase.
        """
        found = {name: float(logs[name]) for name in self._timeline.monitors if name in logs}
        epoch = len(self.history)
        self.history.append(found)
        if self.best_epoch(epoch) == epoch:
            self._keep(epoch, weights())
        if self._folder is not None and self._timeline.monitors:
            data = {"timeline": str(self._timeline), "history": self.history}
            replace(self._folder / _HISTORY, lambda file: file.write(json.dumps(data).encode()))

    def best_epoch(self, epoch: int) -> int | None:
        """Returns the best epoch so far of the phase of `epoch`, if it is to be restored."""
        starts = self._timeline.starts(self.history[:epoch])
        until = self._timeline.phases[len(starts) - 1].until
        if until is None or not until.restore_best:
            return None
        best = until.best(until.values(self.history[starts[-1] : epoch + 1]))
        return None if best is None else starts[-1] + best

    def best_weights(self, epoch: int, like: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the weights that were kept of `epoch`.

        Args:
            epoch: What `best_epoch` returned.
            like: Arrays of the same dtypes.

        Raises:
            ValueError: They were kept by a run that stopped, and there is no file of them.
        """
        if epoch in self._best:
            return self._best[epoch]
        path = None if self._folder is None else self._folder / _best_name(epoch)
        if path is None or not path.exists():
            raise ValueError(
                f"Expected the best weights of the phase, to restore them. Received: no record of "
                f"those of epoch {epoch + 1}, with backup_dir={_text(self._folder)}. Give the "
                f"backup_dir of the run that stopped, or go on without restore_best."
            )
        with np.load(path, allow_pickle=False) as stored:
            arrays = [stored[f"arr_{index}"] for index in range(len(stored.files))]
        # NumPy writes bfloat16 as bytes without a name.
        return [
            a if a.dtype == b.dtype else a.view(b.dtype) for a, b in zip(arrays, like, strict=True)
        ]

    def _keep(self, epoch: int, weights: list[np.ndarray]) -> None:
        self._best = {epoch: weights}
        if self._folder is not None:
            replace(self._folder / _best_name(epoch), lambda file: np.savez(file, *weights))
            # The one before stays: a run may go on from before this epoch.
            for path in sorted(self._folder.glob(_best_name("*")))[:-2]:
                path.unlink(missing_ok=True)  # another worker may share the folder

    def _read(self, epoch: int) -> list[dict[str, float]]:
        path = None if self._folder is None else self._folder / _HISTORY
        missing = (
            f"Expected a record of what the {epoch} epochs before measured, as `until` decides by "
            f"it. Received: backup_dir={_text(self._folder)}, "
        )
        advice = "Give DSDSchedule the backup_dir of the run that stopped, or begin anew."
        if path is None or not path.exists():
            raise ValueError(f"{missing}which has none. {advice}")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            history = [{str(k): float(v) for k, v in logs.items()} for logs in data["history"]]
            timeline = data["timeline"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{missing}where {_HISTORY} is not whole ({error}). {advice}"
            ) from error
        if timeline != str(self._timeline):
            raise ValueError(
                f"{missing}which is of other phases: {timeline}; here they are {self._timeline}. "
                f"{advice}"
            )
        if len(history) < epoch - 1:
            raise ValueError(f"{missing}which has {len(history)} epochs. {advice}")
        return history


def _best_name(epoch: int | str) -> str:
    return f"dsd_best_{epoch if isinstance(epoch, str) else f'{epoch:06d}'}.npz"


def _text(folder: pathlib.Path | None) -> str:
    return "None" if folder is None else repr(str(folder))
