"""What is kept beside Keras 3 models: what `apply` was asked for, and the masks in force."""

import weakref
from typing import Any

from keras_dsd.adapters.keras3 import backends
from keras_dsd.algorithm.selection import Selection


class MaskStore:
    """What DSD knows of one model, or layer, that went through `apply`.

    Args:
        selection: What the user asked for.
        refuse_later: Whether patterns that match nothing can be told only once all is built.
    """

    def __init__(self, selection: Selection, refuse_later: bool) -> None:
        self.selection = selection
        self.refuse_later = refuse_later
        # By the variable's id; the variable stands beside its value, so that no other gets its id.
        self._sparsities: dict[int, tuple[Any, float, str | None]] = {}
        self._masks: dict[int, tuple[Any, Any]] = {}
        self._dropped: dict[int, tuple[Any, Any]] = {}

    def choose(self, candidate: Any, unless_named: str | None) -> tuple[float, str | None]:
        """Returns the sparsity of a weight and why it stays dense, as first decided.

        Freezing and unfreezing counts at any time.
        """
        key = id(candidate.variable)
        if key not in self._sparsities:
            self._sparsities[key] = (candidate.variable, *self.selection.choose(candidate))
        _, sparsity, reason = self._sparsities[key]
        if reason is None and unless_named and not self.selection.names(candidate):
            return 0.0, unless_named
        return sparsity, reason

    def mask_of(self, variable: Any) -> Any:
        """Returns the mask in force, as the backend keeps it, or None."""
        return self._masks.get(id(variable), (None, None))[1]

    def earlier(self, variable: Any) -> Any:
        """Returns what the backend keeps of the mask in force, or of the last one, or None."""
        nothing = (variable, None)
        return self._masks.get(id(variable), self._dropped.get(id(variable), nothing))[1]

    def set_mask(self, variable: Any, mask: Any) -> None:
        """Puts a mask in force."""
        self._masks[id(variable)] = (variable, mask)

    def remove_mask(self, *variables: Any) -> None:
        """Takes the masks of `variables` out of force, and their memory back; by default all."""
        for key in list(map(id, variables) if variables else self._masks):
            if key in self._masks:
                variable, mask = self._masks.pop(key)
                self._dropped[key] = (variable, backends.current().drop_mask(mask))


# Nothing that is kept here may refer to its model, which would then never be freed.
_STORES: "weakref.WeakKeyDictionary[Any, MaskStore]" = weakref.WeakKeyDictionary()


def put(part: Any, store: MaskStore) -> None:
    """Notes that `part` went through `apply`."""
    _STORES[part] = store


def get(part: Any) -> MaskStore | None:
    """Returns what is kept beside `part` itself, not beside what it holds or is held by."""
    return _STORES.get(part)


def drop(part: Any) -> None:
    """Forgets `part`."""
    _STORES.pop(part).remove_mask()
