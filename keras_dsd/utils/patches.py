"""Attributes that stand on objects for a while, in front of what was there."""

from collections.abc import Callable, Sequence
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


def put(patches: Sequence[Patch]) -> Callable[[], None]:
    """Sets the attributes, and returns what puts back what was there.

    An attribute that somebody else has set meanwhile is theirs, and stays.
    """
    originals = [place.get(name, _ABSENT) for place, name, _ in patches]
    for place, name, value in patches:
        place[name] = value

    def restore() -> None:
        for (place, name, value), original in zip(patches, originals, strict=True):
            if place.get(name) is not value:
                continue
            if original is _ABSENT:
                del place[name]
            else:
                place[name] = original

    return restore


def patched(step: Callable[..., Any], patches: Sequence[Patch]) -> Callable[..., Any]:
    """Returns `step`, in whose dynamic extent alone `patches` are in force."""

    def step_under_patches(*args: Any) -> Any:
        restore = put(patches)
        try:
            return step(*args)
        finally:
            restore()

    return step_under_patches if patches else step
