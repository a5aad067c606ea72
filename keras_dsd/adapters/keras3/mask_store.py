"""Selections and active masks of Keras 3 models, stored per model, outside of it."""

import functools
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import keras

from keras_dsd.adapters.base.observation import ClassHooks
from keras_dsd.adapters.base.weight import Candidate
from keras_dsd.adapters.keras3 import backends
from keras_dsd.algorithm.selection import UNTRAINED, Selection


class MaskStore:
    """Selection and masks of a model or layer that was passed through `apply`.

    Args:
        selection: The arguments of `apply`.
        refuse_later: True if patterns without a match are known only after building.

    Attributes:
        jit_compile: The argument of `compile` after `apply`; Keras keeps the resolved "auto".
        derived: What users of the active masks compute from them, until one changes.
        forget_notes: Removes, once, the hook into `compile` for the model.
    """

    def __init__(self, selection: Selection, refuse_later: bool) -> None:
        self.selection = selection
        self.refuse_later = refuse_later
        self.jit_compile: object = "auto"
        self.derived: weakref.WeakKeyDictionary[object, Any] = weakref.WeakKeyDictionary()
        self.forget_notes: weakref.finalize[..., keras.Layer] | None = None
        # By the variable's id; the variable is stored too, so that its id stays unique.
        self._sparsities: dict[int, tuple[keras.Variable, float, str | None]] = {}
        self._untrained: dict[int, keras.Variable] = {}
        self._masks: dict[int, tuple[keras.Variable, object | None]] = {}
        self._dropped: dict[int, tuple[keras.Variable, object | None]] = {}

    def choose(self, candidate: Candidate, unless_named: str | None) -> tuple[float, str | None]:
        """Returns the sparsity of a weight and the reason why it stays dense, as first decided.

        Freezing and unfreezing takes effect at any time, except for a weight with an active mask,
        which is removed at the end of its phase.
        """
        key = id(candidate.variable)
        if key not in self._sparsities:
            self._sparsities[key] = (candidate.variable, *self.selection.choose(candidate))
        _, sparsity, reason = self._sparsities[key]
        if key in self._untrained:
            return 0.0, UNTRAINED
        is_masked = key in self._masks
        if reason is None and unless_named and not (is_masked or self.selection.names(candidate)):
            return 0.0, unless_named
        return sparsity, reason

    def leave_dense(self, variable: keras.Variable) -> None:
        """Leaves a variable dense that no optimizer trains."""
        self._untrained[id(variable)] = variable
        self.remove_mask(variable)

    def forget_untrained(self) -> None:
        """Selects the weights of `leave_dense` again."""
        self._untrained.clear()

    def mask_of(self, variable: keras.Variable) -> object | None:
        """Returns the active mask, as the backend stores it, or None."""
        return self._masks.get(id(variable), (None, None))[1]

    def earlier(self, variable: keras.Variable) -> object | None:
        """Returns the active mask, or the part of the last one that the backend reuses, or None."""
        nothing = (variable, None)
        return self._masks.get(id(variable), self._dropped.get(id(variable), nothing))[1]

    def set_mask(self, variable: keras.Variable, mask: object) -> None:
        """Sets the active mask."""
        self.derived.clear()
        self._masks[id(variable)] = (variable, mask)

    def remove_mask(self, *variables: keras.Variable) -> None:
        """Removes the masks of `variables` (default: all), and frees their memory."""
        self.derived.clear()
        for key in list(map(id, variables) if variables else self._masks):
            if key in self._masks:
                variable, mask = self._masks.pop(key)
                self._dropped[key] = (variable, backends.current().drop_mask(mask))


# A store must not refer to its model, which would then never be freed.
_STORES: "weakref.WeakKeyDictionary[keras.Layer, MaskStore]" = weakref.WeakKeyDictionary()


def _noted(compile: Callable[..., None]) -> Callable[..., None]:
    """Returns a `compile` that records the arguments for models from `apply`."""
    names = list(inspect.signature(compile).parameters)

    @functools.wraps(compile)
    def noted(model: keras.Model, *args: object, **kwargs: object) -> None:
        store = get(model)
        if store is not None:
            given = {**dict(zip(names, (model, *args), strict=False)), **kwargs}
            store.jit_compile = given.get("jit_compile", "auto")
        compile(model, *args, **kwargs)

    return noted


# On `compile` of Keras models, as long as any model has a store.
_NOTES = ClassHooks([k for k in keras.Model.__mro__ if "compile" in vars(k)], {"compile": _noted})


def put(part: keras.Layer, store: MaskStore) -> None:
    """Stores the selection of `part`, which was passed through `apply`."""
    _STORES[part] = store
    if backends.current().compiles_updates:
        _NOTES.__enter__()
        store.forget_notes = weakref.finalize(part, _NOTES.__exit__)
        store.forget_notes.atexit = False


def get(part: keras.Layer) -> MaskStore | None:
    """Returns the store of `part` itself, not of its layers or of layers around it."""
    return _STORES.get(part)


def is_copy(model: keras.Layer) -> bool:
    """Returns whether a model of this name and weights has a store: `model` may be its copy."""
    found = [each for each in _STORES if type(each) is type(model) and each.name == model.name]
    weights = [variable.shape for variable in model.variables]
    return any([variable.shape for variable in each.variables] == weights for each in found)


def drop(part: keras.Layer) -> None:
    """Deletes the store of `part`, with its masks."""
    store = _STORES.pop(part)
    store.remove_mask()
    if store.forget_notes is not None:
        store.forget_notes()
