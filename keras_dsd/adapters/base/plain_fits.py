"""Warns if `fit` has trained a model from `apply` without DSD."""

import functools
import threading
import weakref
from collections.abc import Callable, Iterable

from keras_dsd.adapters.base.observation import ClassHooks
from keras_dsd.protocols import Layer, Model
from keras_dsd.utils.warn import warn


class PlainFits:
    """Watches the `fit` of models, from `apply` until the first training.

    The hook is on the classes, so nothing is set on a model, its files or its copies, and models
    that contain one from `apply` are watched too. The first training ends the watch: a run of DSD,
    or a `fit` without one, which warns.

    Args:
        kind: The class of this Keras's models.
        parts_of: Returns a model and all layers in it.
    """

    def __init__(self, kind: type, parts_of: Callable[[Layer], Iterable[Layer]]) -> None:
        root = next(each for each in kind.__mro__ if "fit" in vars(each))
        self._hooks = ClassHooks([root], {"fit": self._watched})
        self._parts_of = parts_of
        self._waiting: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_hooked = False

    def expect(self, parts: Iterable[Layer]) -> None:
        """Watches for the first `fit` of a model with `parts`, which `apply` returned."""
        self._waiting.update(parts)
        self._hook()

    def forget(self, model: Layer) -> bool:
        """Stops watching for a `fit` of the parts of `model`; returns whether any was expected."""
        waiting = [part for part in self._parts_of(model) if part in self._waiting]
        self._waiting.difference_update(waiting)
        self._hook()
        return bool(waiting)

    def _hook(self) -> None:
        with self._lock:
            needed = len(self._waiting) > 0
            if needed and not self._is_hooked:
                self._hooks.__enter__()
            elif self._is_hooked and not needed:
                self._hooks.__exit__()
            self._is_hooked = needed

    def _watched(self, fit: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(fit)
        def watched(model: Model, *args: object, **kwargs: object) -> object:
            result = fit(model, *args, **kwargs)
            if self.forget(model):
                warn(
                    f"fit has trained model={model.name!r} without DSD: it was passed through "
                    f"apply(), but fit has no DSDSchedule. Pass callbacks=[keras_dsd.DSDSchedule("
                    f"dense=10, sparse=10, redense=10)] to fit, or undo apply() with strip(model)."
                )
            return result

        return watched
