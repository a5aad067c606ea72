"""Temporary attributes of objects, which hide the original ones."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_ABSENT = object()


class Patch(NamedTuple):
    """A value for the attribute `name` of the object with the `vars` in `place`."""

    place: dict[str, Any]
    name: str
    value: Any


def put(patches: Sequence[Patch]) -> Callable[[], None]:
    """Sets the attributes, and returns a function that restores the original ones.

    An attribute that other code has set since then is kept.
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
    """Returns `step`, which applies `patches` only while it runs."""

    def step_under_patches(*args: Any) -> Any:
        restore = put(patches)
        try:
            return step(*args)
        finally:
            restore()

    return step_under_patches if patches else step
