"""The data of a comparison: named parts without shared rows."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_dsd.utils.checks import invalid_type, shown

NAMES = ("train", "validation", "test")
_ROWS_AT_ONCE = 4096
_EXAMPLE = '{"train": (x, y), "validation": (x_val, y_val), "test": (x_test, y_test)}'


def check_data(data: object, max_shared_rows: float) -> dict[str, float]:
    """Checks the three parts of the data, and returns the fractions of shared rows.

    They are at most `max_shared_rows`. Names are `"test in train"` and similar; fractions of
    datasets are unknown.
    """
    if not isinstance(data, Mapping):
        expected = "to be a dict, or a function that returns one"
        raise invalid_type("data", data, expected, f"Give {_EXAMPLE}.")
    if set(data) != set(NAMES):
        raise ValueError(
            f"Expected `data` to name {', '.join(NAMES)}. Received: {shown(list(data))}. Give "
            f"{_EXAMPLE}: fit reads the first, epochs and the control are selected on the second, "
            f"and results are reported on the third."
        )
    for name in NAMES:
        _check_part(name, data[name])
    for one, other in itertools.combinations(NAMES, 2):
        if arguments(data[one])[0] is arguments(data[other])[0]:
            raise ValueError(
                f"Expected {one} and {other} data that differ. Received: the same object as "
                f"data[{one!r}] and data[{other!r}]. Split first, such as by "
                f"sklearn.model_selection.train_test_split."
            )
    return _shared_rows(data, max_shared_rows)


def arguments(part: object) -> tuple[Any, ...]:
    """Returns the arguments of `fit` and `evaluate`: x, y and sample weights, or a dataset."""
    return tuple(part) if isinstance(part, tuple | list) else (part,)


def digest(data: Mapping[str, Any]) -> dict[str, str]:
    """Returns digests that identify data; of datasets, only of their types."""
    return {name: digest_of(_parts_of(data[name])) for name in NAMES}


def digest_of(values: Iterable[np.ndarray | bytes]) -> str:
    """Returns a digest of arrays, with their types and shapes, and of other bytes."""
    found = hashlib.blake2b(digest_size=16)
    for value in values:
        if not isinstance(value, bytes):
            found.update(f"{value.dtype} {value.shape}".encode())
            value = np.ascontiguousarray(value).tobytes()
        found.update(value)
    return found.hexdigest()


def _check_part(name: str, part: object) -> None:
    if isinstance(part, tuple | list) and not 2 <= len(part) <= 3:
        raise ValueError(
            f"Expected data[{name!r}] to be (x, y) or (x, y, sample_weight). Received: a "
            f"{type(part).__name__} of {len(part)}. Give several inputs as a list or a dict: "
            f"([a, b], y)."
        )
    if part is None or isinstance(part, Iterator):
        raise ValueError(
            f"Expected data[{name!r}] to be data that can be read repeatedly. Received: "
            f"{shown(part)} of type {type(part).__name__}. Give arrays, a tf.data.Dataset, a "
            f"PyDataset or a DataLoader."
        )
    if len(arguments(part)) == 1 and _arrays_in(part):
        raise ValueError(
            f"Expected data[{name!r}] to be (x, y) or (x, y, sample_weight). Received: "
            f"a {type(part).__name__} of inputs alone. Give the labels too; for a model "
            f"without labels, give a tf.data.Dataset, a PyDataset or a DataLoader."
        )
    lengths = {len(array) for each in arguments(part) for array in _arrays_in(each)}
    if len(lengths) > 1:
        raise ValueError(
            f"Expected the arrays of data[{name!r}] to have equal numbers of rows. Received: "
            f"{' and '.join(map(str, sorted(lengths)))} rows. Check the split of the data."
        )
    if lengths == {0}:
        raise ValueError(
            f"Expected data[{name!r}] to hold rows. Received: arrays without any. See how the data "
            f"were split."
        )


def _shared_rows(data: Mapping[str, Any], most: float) -> dict[str, float]:
    rows = {name: _row_digests(arguments(data[name])[0]) for name in NAMES}
    found = {}
    for earlier, later in itertools.combinations(NAMES, 2):
        ones, others = rows[earlier], rows[later]
        if not ones or not others:
            continue
        known = set(ones)
        number = sum(row in known for row in others)
        share = found[f"{later} in {earlier}"] = number / len(others)
        if share > most:
            # With a wrong split most rows are shared; then no share is suggested.
            allowed = (
                f"; if the data have equal rows by nature, allow a fraction: "
                f"max_shared_rows={np.ceil(100 * share) / 100:g}"
            )
            raise ValueError(
                f"Expected no row of the {later} data in the {earlier} data, which would make its "
                f"scores too good. Received: {number} of {len(others)} rows of "
                f"data[{later!r}] that are in data[{earlier!r}] too. Split without "
                f"overlap{allowed if share <= 0.5 else ''}."
            )
    return found


def _row_digests(inputs: object) -> list[bytes]:
    """Returns a digest of each row; empty if the inputs are not arrays."""
    arrays = _arrays_in(inputs)
    if not arrays or len({len(array) for array in arrays}) != 1:
        return []
    found = []
    for start in range(0, len(arrays[0]), _ROWS_AT_ONCE):
        parts = [_comparable(array[start : start + _ROWS_AT_ONCE]) for array in arrays]
        found += [
            hashlib.blake2b(b"".join(row.tobytes() for row in rows), digest_size=16).digest()
            for rows in zip(*parts, strict=True)
        ]
    return found


def _comparable(values: np.ndarray) -> np.ndarray:
    """Returns values in one dtype, so that equal values have equal bits."""
    return values.astype(np.float64) + 0.0 if values.dtype.kind in "fiub" else values


def _arrays_in(inputs: Any) -> list[np.ndarray]:
    """Returns the arrays of inputs; empty if they are not arrays."""
    if isinstance(inputs, Mapping):
        inputs = [inputs[name] for name in sorted(inputs)]
    parts = inputs if isinstance(inputs, list | tuple) else [inputs]
    if not all(hasattr(part, "shape") and hasattr(part, "__array__") for part in parts):
        return []
    try:
        arrays = [np.asarray(part) for part in parts]
    except (TypeError, ValueError, RuntimeError):  # such as of tensors on a GPU
        return []
    usable = all(array.ndim and array.dtype.kind != "O" for array in arrays)
    return arrays if usable else []


def _parts_of(part: object) -> Iterator[np.ndarray | bytes]:
    for each in arguments(part):
        arrays = _arrays_in(each)
        yield from arrays or (type(each).__qualname__.encode(),)
