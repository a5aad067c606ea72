"""Monitored values and best weights of a run, from which the current phase is derived."""

import os
import pathlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat

from keras_dsd.algorithm.position import STEPS, Start
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine.array_files import ArrayFiles
from keras_dsd.protocols import Model, WeightCopies
from keras_dsd.utils import checks
from keras_dsd.utils.files import read_json, write_json

_HISTORY = "dsd_history.json"


class RunHistory:
    """Monitored values of each epoch, and the best weights of a phase with `restore_best`.

    With a folder, both are also written there, each file atomically. A killed run resumes from it
    at any earlier epoch.

    Attributes:
        epochs: The monitored values in the logs of each epoch so far and, if steps are counted, the
            number of steps by its end.
        origin: Number of steps that the optimizer had counted before the first one of the run.
        warned: Kinds of the warnings that the run has issued. A run may take many calls of `fit`,
            each of which would otherwise issue them again.
    """

    def __init__(self, timeline: Timeline, folder: pathlib.Path | None) -> None:
        self._timeline = timeline
        self._folder = folder
        self._best: dict[int, WeightCopies] = {}
        self._best_files = ArrayFiles(
            folder, "dsd_best", "the best weights of the phase, to restore them",
            "Pass the backup_dir of the interrupted run, or resume without restore_best.",
        )  # fmt: skip
        self._state: dict[int, WeightCopies] = {}
        self._state_files = ArrayFiles(
            folder, "dsd_state", "what the training steps of the previous epoch left",
            "Pass the backup_dir of the interrupted run to DSDSchedule, which stands before "
            "BackupAndRestore, or resume at the first epoch of an earlier phase.",
        )  # fmt: skip
        self.epochs: list[dict[str, float]] = []
        self.origin = 0
        self.warned: set[str] = set()

    def last_of(self, model: Model) -> "RunHistory":
        """Returns the history of the last run of `model` if it has the same phases and folder.

        Otherwise this history becomes that of the model. So the same schedule, or an equal one,
        resumes the run of an earlier `fit`.
        """
        found = _HISTORIES.get(model)
        if found is None or (found._timeline, found._folder) != (self._timeline, self._folder):
            found = _HISTORIES[model] = self
        return found

    def phase_starts(self, step: int | None = None) -> list[Start]:
        """Returns the starts of the phases up to the next epoch, or `step`."""
        return self._timeline.points(self.epochs, step)

    @property
    def _is_kept(self) -> bool:
        """True if the phase depends on values of earlier epochs."""
        return bool(self._timeline.monitors) or self._timeline.needs_steps

    def steps_before(self, epoch: int) -> int | None:
        """Returns the known number of steps of the run before an epoch, or None.

        The previous epoch of a killed run may be missing.
        """
        known = [int(logs[STEPS]) for logs in self.epochs[:epoch] if STEPS in logs]
        return known[-1] if known else None

    def fill_steps(self, ends: Sequence[int]) -> None:
        """Adds the number of steps by the end of each epoch, if it is unknown."""
        for logs, steps in zip(self.epochs, ends, strict=True):
            logs.setdefault(STEPS, steps)

    def check(self) -> None:
        """Creates the folder if anything will be written to it.

        Raises:
            ValueError: It is not a folder, or not writable.
        """
        if self._folder is None or not self._is_kept:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise PermissionError("it is not writable")
        except OSError as error:
            expected = "to be a writable folder"
            hint, note = "Pass another folder, or make this one writable.", f": {error}"
            raise checks.invalid("backup_dir", str(self._folder), expected, hint, note) from error

    def resume(self, epoch: int, weights: Callable[[], WeightCopies]) -> bool:
        """Brings the history to the start of `epoch`; `weights` returns those of the model.

        Returns:
            True if the history is complete. False if only the previous epoch is missing, because
            the run was killed after another callback saved this epoch and before it was added.

        Raises:
            ValueError: Monitored values or best weights of earlier epochs are needed, but can't be
                read. The history is unchanged.
        """
        epochs = self.epochs
        if len(epochs) < epoch and (self._timeline.monitors or self._has_record):
            epochs, self.origin = self._read(epoch)
        if epoch == 0:
            self._best, self._state, self.warned, self.origin = {}, {}, set(), 0
        num_missing = epoch - len(epochs)
        epochs = epochs[:epoch] + [{} for _ in range(num_missing)]
        best = self._best_of(epochs, epoch - 1) if epoch else None
        if best is not None and best not in self._best:
            now = weights()
            # Without a file, the run may still resume at the start of the epoch after the best.
            is_now = best == epoch - 1 and not self._best_files.has(best, now)
            self._best = {best: now if is_now else self._best_files.read(best, now)}
        self.epochs = epochs
        return num_missing <= 0 or not self._timeline.monitors

    def add(
        self,
        logs: Mapping[str, SupportsFloat],
        weights: Callable[[], WeightCopies],
        step: int | None = None,
    ) -> None:
        """Adds the logs of an epoch; `weights` is called if it is the best epoch of the phase.

        `step` is the number of steps of the run so far, if they are counted.
        """
        found = {
            name: checks.as_float(f"logs[{name!r}]", logs[name])
            for name in self._timeline.monitors
            if name in logs
        }
        if step is not None:
            found[STEPS] = step
        epoch, epochs = len(self.epochs), [*self.epochs, found]
        if self._best_of(epochs, epoch) == epoch:
            self._keep(epoch, weights())
        if self._folder is not None and self._is_kept:
            data: dict[str, Any] = {"timeline": str(self._timeline), "history": epochs}
            if self._timeline.needs_steps:
                data["origin"] = self.origin
            write_json(self._folder / _HISTORY, data, indent=None)
        self.epochs = epochs

    def unmeasured(self, index: int, start: int, end: int) -> str | None:
        """Returns a warning if no epoch of a phase had the monitored value in its logs."""
        until = self._timeline.phases[index].until
        epochs = self.epochs[start:end]
        if until is None or any(until.monitor in each for each in epochs):
            return None
        return (
            f"A phase ends when {until.monitor!r} stops improving, but {until.monitor!r} was in "
            f"the logs of none of its {len(epochs)} epochs. For a name that starts with val_, pass "
            f"validation_data to fit. Otherwise put the callback that logs it before DSDSchedule, "
            f"or pass it to DSDLoop.end_epoch()."
        )

    def epoch_to_restore(self) -> int | None:
        """Returns the best epoch of a `restore_best` phase that ends now, or None if the last."""
        last = len(self.epochs) - 1
        best = self._best_of(self.epochs, last) if last >= 0 else None
        return None if best == last else best

    def _best_of(self, epochs: list[dict[str, float]], epoch: int) -> int | None:
        points = self._timeline.points_at_end(epochs, epoch)
        until, start = self._timeline.phases[len(points) - 1].until, points[-1].epoch
        if until is None or not until.restore_best:
            return None
        best = until.best(until.values(epochs[start : epoch + 1]))
        return None if best is None else start + best

    def best_weights(self, epoch: int) -> WeightCopies:
        """Returns the weights of the epoch that `epoch_to_restore` returned."""
        return self._best[epoch]

    def forget_best(self) -> None:
        """Frees the memory of the best weights at the end of the run."""
        self._best = {}

    def _keep(self, epoch: int, weights: WeightCopies) -> None:
        self._best_files.write(epoch, weights)
        self._best = {epoch: weights}

    def keep_state(self, epoch: int, arrays: WeightCopies, is_written: bool) -> None:
        """Keeps what the steps before an epoch have left: for another `fit`, or another process."""
        if is_written:
            self._state_files.write(epoch, arrays)
        self._state = {epoch: arrays}

    def state(self, epoch: int, like: WeightCopies) -> WeightCopies:
        """Returns what `keep_state` was given for an epoch, here or in an earlier process.

        Raises:
            ValueError: It is unknown.
        """
        if epoch not in self._state:
            self._state = {epoch: self._state_files.read(epoch, like)}
        return self._state[epoch]

    @property
    def _has_record(self) -> bool:
        return self._is_kept and self._folder is not None and (self._folder / _HISTORY).exists()

    def _read(self, epoch: int) -> tuple[list[dict[str, float]], int]:
        """Returns the epochs that `add` wrote in an earlier run, and its origin."""
        path = None if self._folder is None else self._folder / _HISTORY
        missing = (
            f"Expected the monitored values of the previous {epoch} epochs, which `until` needs. "
            f"Received: backup_dir={_text(self._folder)}, "
        )
        advice = "Pass the backup_dir of the interrupted run to DSDSchedule, or start a new run."
        if path is None or not path.exists():
            raise ValueError(f"{missing}which holds none. {advice}")
        try:
            epochs, timeline, origin = read_json(path, _parse)
        except ValueError as error:
            raise ValueError(
                f"{missing}where {_HISTORY} is incomplete ({error}). {advice}"
            ) from error
        if timeline != str(self._timeline):
            here = f"instead of {self._timeline}"
            raise ValueError(f"{missing}from other phases: {timeline}, {here}. {advice}")
        if len(epochs) < epoch - 1:
            raise ValueError(f"{missing}which holds {len(epochs)} epochs. {advice}")
        return epochs, origin


# A history must not refer to its model, which would then never be freed.
_HISTORIES: "weakref.WeakKeyDictionary[Model, RunHistory]" = weakref.WeakKeyDictionary()


def _parse(data: Any) -> tuple[list[dict[str, float]], str, int]:
    epochs = [{str(name): float(value) for name, value in logs.items()} for logs in data["history"]]
    return epochs, data["timeline"], int(data.get("origin", 0))


def _text(folder: pathlib.Path | None) -> str:
    return "None" if folder is None else repr(str(folder))
