"""Attributes that stand on objects only while a training step is traced or run."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

_ABSENT = object()


class Patch(NamedTuple):
    """A value for one attribute of one object.

    Attributes:
        place: The object's own attributes: `vars(object)`.
        name: The attribute.
        value: What it is to be.
    """

    place: dict[str, Any]
    name: str
    value: Any


@contextlib.contextmanager
def in_force(patches: Sequence[Patch]) -> Iterator[None]:
    """Sets the attributes within the block, and puts back what was there, whatever happens."""
    originals = [place.get(name, _ABSENT) for place, name, _ in patches]
    for place, name, value in patches:
        place[name] = value
    try:
        yield
    finally:
        for (place, name, _), original in zip(patches, originals, strict=True):
            if original is _ABSENT:
                del place[name]
            else:
                place[name] = original
