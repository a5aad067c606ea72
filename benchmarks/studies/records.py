"""The results of a task of the protocol: one compressed JSON file, written after each piece."""

import gzip
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from protocol import FIRST_TUNING_SEED, Run, Setting

_CURVES = ("validation", "test", "train")
_DIGITS = 5


class Records:
    """The runs in a file, and which pieces of a task, a seed at a setting, are done.

    Args:
        path: The file; it need not exist.
        identity: What tells the task from others.

    Raises:
        ValueError: The file is of another task, or of other settings.
    """

    def __init__(self, path: pathlib.Path, identity: Mapping[str, Any]) -> None:
        self._path, self.identity = path, dict(identity)
        self.runs: list[Run] = []
        self._done: list[list[Any]] = []
        if path.exists():
            found = json.loads(gzip.decompress(path.read_bytes()))
            for name, now in self.identity.items():
                was = found["identity"].get(name, now)
                # Each piece says its own seed and setting, so there may be more of them.
                grows = name == "seeds" or (name == "bases" and all(each in now for each in was))
                if was != now and not grows:
                    raise ValueError(
                        f"Expected {path} to be of the same task. Received: {name} {was!r}, "
                        f"but {now!r} here. Move the file away."
                    )
            self._done = found["done"]
            self.runs = [_parse(entry) for entry in found["runs"]]

    @property
    def tuning(self) -> list[Run]:
        """The runs of tuning seeds."""
        return [run for run in self.runs if run.seed >= FIRST_TUNING_SEED]

    @property
    def reported(self) -> list[Run]:
        """The runs of seeds that are reported."""
        return [run for run in self.runs if run.seed < FIRST_TUNING_SEED]

    def has(self, seed: int, base: Sequence[float]) -> bool:
        """Returns whether a seed is done at a setting of learning rate and L2."""
        return [seed, list(base)] in self._done

    @property
    def tuned(self) -> list[bool]:
        """The pieces of the tuning, seeds at settings: True for each that is done."""
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.identity["tuning seeds"])
        return [self.has(seed, base) for seed in seeds for base in self.identity["bases"]]

    def missing(self, seed: int, chosen: Mapping[str, Setting]) -> dict[str, Setting]:
        """Returns the arms, with their settings, that a seed lacks."""
        done = {(run.arm, run.setting) for run in self.runs if run.seed == seed}
        return {arm: setting for arm, setting in chosen.items() if (arm, setting) not in done}

    def add(self, runs: Iterable[Run], base: Sequence[float] | None = None) -> None:
        """Adds the runs of a seed that are new, and writes the file.

        Args:
            runs: The runs.
            base: The learning rate and L2 at which the seed is then done; None: at none.
        """
        known = {(run.seed, run.arm, run.setting) for run in self.runs}
        runs = list(runs)
        self.runs += [run for run in runs if (run.seed, run.arm, run.setting) not in known]
        if base is not None:
            self._done.append([runs[0].seed, list(base)])
        self.write()

    def write(self) -> None:
        """Writes the file, in one piece."""
        data = {
            "identity": self.identity, "done": self._done,
            "runs": [_entry(run) for run in self.runs],
        }  # fmt: skip
        text = json.dumps(data, separators=(",", ":"))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        written = self._path.with_suffix(".new")
        written.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        written.replace(self._path)


def load(path: pathlib.Path) -> Records:
    """Returns the records in a file, whatever task they are of."""
    identity = json.loads(gzip.decompress(path.read_bytes()))["identity"]
    return Records(path, identity)


def _entry(run: Run) -> dict[str, Any]:
    curves = {name: [_short(value) for value in getattr(run, name)] for name in _CURVES}
    return {
        "seed": run.seed, "arm": run.arm, "setting": vars(run.setting), **curves,
        "error": [_short(value) for value in run.error], "num_updates": run.num_updates,
        "seconds": round(run.seconds, 1),
    }  # fmt: skip


def _parse(entry: Mapping[str, Any]) -> Run:
    curves = {name: tuple(map(_number, entry[name])) for name in _CURVES}
    setting, error = Setting(**entry["setting"]), tuple(map(_number, entry["error"]))
    return Run(**{**entry, **curves, "setting": setting, "error": error})


def _short(value: float) -> float | None:
    """Returns a value to five digits; None where it is not finite, which JSON lacks."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
