"""What a run has measured so far: all that its place in the timeline follows from."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine.messages import warn_user
from keras_dsd.utils import checks
from keras_dsd.utils.checks import shown
from keras_dsd.utils.files import replace

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

    def check(self) -> None:
        """Makes the folder, if something is to be written to it.

        Raises:
            ValueError: It is no folder, or can't be written to.
        """
        if self._folder is None or not self._timeline.monitors:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            is_writable = os.access(self._folder, os.W_OK | os.X_OK)
        except OSError as error:
            raise ValueError(_unusable(self._folder, str(error))) from error
        if not is_writable:
            raise ValueError(_unusable(self._folder, "it can't be written to"))

    def go_on(self, epoch: int, weights: Callable[[], list[np.ndarray]]) -> bool:
        """Brings the history to where `epoch` begins.

        Args:
            epoch: Counted from 0.
            weights: Returns all weights of the model as they are now.

        Returns:
            Whether what is needed of it is there; False where just the epoch before is missing:
            the run was stopped after another callback had saved that and before it was recorded.

        Raises:
            ValueError: What earlier epochs measured is needed, and there is no record of it.
        """
        history = self.history
        if len(history) < epoch and self._timeline.monitors:
            history = self._read(epoch)
        missing = epoch - len(history)
        history = history[:epoch] + [{} for _ in range(missing)]
        best = self._best_of(history, epoch - 1) if epoch else None
        if best is not None and best not in self._best:
            now = weights()
            self._best = {best: now if best == epoch - 1 else self._read_best(best, now)}
        self.history = history
        return missing <= 0 or not self._timeline.monitors

    def add(self, logs: Mapping[str, Any], weights: Callable[[], list[np.ndarray]]) -> None:
        """Notes an epoch's logs.

        Args:
            logs: What it measured.
            weights: Returns all weights of the model; called if they are the best of the phase.
        """
        found = {
            name: checks.as_float(f"logs[{name!r}]", logs[name])
            for name in self._timeline.monitors
            if name in logs
        }
        epoch, history = len(self.history), [*self.history, found]
        if self._best_of(history, epoch) == epoch:
            self._keep(epoch, weights())
        if self._folder is not None and self._timeline.monitors:
            data = {"timeline": str(self._timeline), "history": history}
            replace(self._folder / _HISTORY, lambda file: file.write(json.dumps(data).encode()))
        self.history = history

    def warn_if_unmeasured(self, index: int, start: int, end: int) -> None:
        """Warns where a phase was to end by what no epoch of it, in [start, end), measured."""
        until = self._timeline.phases[index].until
        logs = self.history[start:end]
        if until is not None and not any(until.monitor in each for each in logs):
            warn_user(
                f"A phase is to end when {until.monitor!r} stops improving, but "
                f"{until.monitor!r} was in the logs of none of the {len(logs)} epochs that it "
                f"took. Give fit validation_data for a name that begins with val_, or put what "
                f"measures it before DSDSchedule in the list of callbacks; or give it to "
                f"DSDLoop.end_epoch({{...}})."
            )

    def best_epoch(self, epoch: int) -> int | None:
        """Returns the best epoch so far of the phase of `epoch`, if it is to be restored."""
        return self._best_of(self.history, epoch)

    def _best_of(self, history: list[dict[str, float]], epoch: int) -> int | None:
        starts = self._timeline.starts(history[:epoch])
        until = self._timeline.phases[len(starts) - 1].until
        if until is None or not until.restore_best:
            return None
        best = until.best(until.values(history[starts[-1] : epoch + 1]))
        return None if best is None else starts[-1] + best

    def best_weights(self, epoch: int) -> list[np.ndarray]:
        """Returns the weights that were kept of what `best_epoch` returned."""
        return self._best[epoch]

    def _read_best(self, epoch: int, like: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the weights that a run which stopped kept, as arrays like those given."""
        path = None if self._folder is None else self._folder / _best_name(epoch)
        missing = "Expected the best weights of the phase, to restore them. Received: "
        advice = "Give the backup_dir of the run that stopped, or go on without restore_best."
        if path is None or not path.exists():
            raise ValueError(
                f"{missing}no record of those of epoch {epoch + 1}, with "
                f"backup_dir={_text(self._folder)}. {advice}"
            )
        try:
            # NumPy leaves a file open that it opened and can't read.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = [stored[f"arr_{index}"] for index in range(len(stored.files))]
        except Exception as error:  # of a file that is cut or of something else, anything may come
            raise ValueError(
                f"{missing}path={str(path)!r}, which is not whole or something else "
                f"({shown(error)}). {advice}"
            ) from error
        # NumPy writes bfloat16 as bytes without a name.
        named = [
            a.view(b.dtype) if a.dtype == f"V{b.itemsize}" else a
            for a, b in zip(arrays, like, strict=False)
        ]
        found, wanted = ([f"{a.dtype}{a.shape}" for a in each] for each in (named, like))
        if len(arrays) != len(like) or found != wanted:
            raise ValueError(
                f"{missing}path={str(path)!r}, which is of another model, with weights "
                f"{shown(found)}; here they are {shown(wanted)}. {advice}"
            )
        return named

    def _keep(self, epoch: int, weights: list[np.ndarray]) -> None:
        if self._folder is not None:
            replace(self._folder / _best_name(epoch), lambda file: np.savez(file, *weights))
            # The one before stays: a run may go on from before this epoch.
            for path in sorted(self._folder.glob(_best_name("*")))[:-2]:
                path.unlink(missing_ok=True)  # another worker may share the folder
        self._best = {epoch: weights}

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
        except Exception as error:  # of a file that is cut or of something else, anything may come
            raise ValueError(
                f"{missing}where {_HISTORY} is not whole ({shown(error)}). {advice}"
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


def _unusable(folder: pathlib.Path, why: str) -> str:
    return (
        f"Expected `backup_dir` to be a folder that can be written to. Received: "
        f"backup_dir={str(folder)!r}: {why}. Give another, or let it be written to."
    )


def _text(folder: pathlib.Path | None) -> str:
    return "None" if folder is None else repr(str(folder))
