"""Temporary attributes of objects, which hide the original ones."""

import functools
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
    return functools.partial(_restore, patches, _set(patches))


def patched(step: Callable[..., Any], patches: Sequence[Patch]) -> Callable[..., Any]:
    """Returns `step`, which applies `patches` only while it runs."""

    def step_under_patches(*args: Any) -> Any:
        originals = _set(patches)
        try:
            return step(*args)
        finally:
            _restore(patches, originals)

    return step_under_patches if patches else step


def _set(patches: Sequence[Patch]) -> list[object]:
    """Sets the attributes, and returns the original ones."""
    originals = [place.get(name, _ABSENT) for place, name, _ in patches]
    for place, name, value in patches:
        place[name] = value
    return originals


def _restore(patches: Sequence[Patch], originals: Sequence[object]) -> None:
    for (place, name, value), original in zip(patches, originals, strict=True):
        if place.get(name) is not value:
            continue
        if original is _ABSENT:
            del place[name]
        else:
            place[name] = original
