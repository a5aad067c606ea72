"""The file that a comparison goes on from: JSON, written anew whenever an arm is trained."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_dsd.analysis.comparison.result import Run, plain
from keras_dsd.utils import json_files
from keras_dsd.utils.checks import shown

_KIND = "keras_dsd comparison"


def write(path: pathlib.Path, identity: Mapping[str, Any], runs: Sequence[Run]) -> None:
    """Replaces the file in one go, so that whenever the process ends, a whole one is there.

    Args:
        path: The file.
        identity: What tells the comparison from others, as JSON has it.
        runs: The arms trained so far.
    """
    data = {
        "kind": _KIND,
        "identity": identity,
        "runs": [plain(dataclasses.asdict(run)) for run in runs],
    }
    json_files.write(path, data)


def read(path: pathlib.Path, identity: Mapping[str, Any]) -> list[Run]:
    """Returns the runs that a file holds; none where there is no file.

    The file may lack arms and seeds of the comparison, since none has an effect on another.

    Args:
        path: The file.
        identity: What tells the comparison from others.

    Raises:
        ValueError: The file is of another comparison, or it is no such file.
    """
    if not path.exists():
        return []
    found, runs = load(path)
    for name in {**identity, **found}:
        if _is_part(name, found.get(name), identity.get(name)):
            continue
        if found.get(name) != identity.get(name):
            raise ValueError(
                f"Expected the file to be of a comparison with the same {name}. Received: "
                f"path={str(path)!r} with {name} {shown(found.get(name))}, but "
                f"{shown(identity.get(name))} here. Give another path, or delete the file to begin "
                f"anew."
            )
    return runs


def load(path: pathlib.Path) -> tuple[dict[str, Any], list[Run]]:
    """Returns what tells the comparison of a file from others, and the runs that the file holds.

    Args:
        path: The file.

    Raises:
        ValueError: It is no such file.
    """
    return json_files.read(path, _parse, "compare()", "begin")


def _is_part(name: str, found: Any, whole: Any) -> bool:
    if name == "arms" and isinstance(found, dict):
        return found.items() <= whole.items()
    return name == "seeds" and isinstance(found, list) and all(seed in whole for seed in found)


def _parse(data: Any) -> tuple[dict[str, Any], list[Run]]:
    if data["kind"] != _KIND or not isinstance(data["identity"], dict):
        raise ValueError("it is of another kind")
    return data["identity"], [_run(entry) for entry in data["runs"]]


def _run(entry: Mapping[str, Any]) -> Run:
    values = {**entry, "validation": tuple(map(json_files.number_or_nan, entry["validation"]))}
    for name in ("test_last", "test_best"):
        values[name] = json_files.number_or_nan(entry[name])
    for name in ("seed", "best_epoch", "num_updates"):
        if type(entry[name]) is not int:
            raise ValueError(f"{entry[name]!r} is no whole number")
    run = Run(**values)
    if not 0 <= run.best_epoch < len(run.validation):
        raise ValueError(f"there is no epoch {run.best_epoch}")
    return run
