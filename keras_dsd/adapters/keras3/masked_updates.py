"""Multiplies masked weights by their masks after each update."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import keras

from keras_dsd.adapters.base import private_names
from keras_dsd.adapters.base.observation import AnyOptimizer
from keras_dsd.adapters.keras3 import backends, mask_store, optimizer
from keras_dsd.adapters.keras3.backends import Key
from keras_dsd.adapters.keras3.weight import Weight
from keras_dsd.utils.patches import Patch, put

Derived = TypeVar("Derived")


class MaskedUpdates:
    """Updates of a model while weights are masked.

    The mask is applied after an optimizer's observed update, after user constraints and moving
    averages, which are masked as well. A backend may mask within the update instead. If a custom
    `train_step` or optimizer may update weights in another way, they are also masked at the end of
    the step.
    """

    def __init__(
        self,
        model: keras.Model,
        weights: Sequence[Weight],
        optimizers: Callable[[], Sequence[AnyOptimizer]],
    ) -> None:
        self._model = model
        self._variables = [weight.variable for weight in weights]
        self._weights = weights
        self._stores = list({id(weight.store): weight.store for weight in weights}.values())
        self._traced: dict[int, object] = {}
        self._backend = backends.current()
        self._optimizers = optimizers
        self._within: dict[int, list[Patch]] = {}
        self._after: dict[int, list[tuple[Weight, keras.Variable]]] = {}
        self._restore: dict[int, Callable[[], None]] = {}

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of the weights."""
        return self._variables

    def masks(self) -> list[Any]:
        """Returns the active masks, in the form that the backend stores."""
        return [weight.mask_on_device for weight in self._weights]

    def derived(self, user: object, make: Callable[[], Derived]) -> Derived:
        """Returns what `make` computes from the active masks, for one user; kept until one changes.

        Args:
            user: The object that uses it.
            make: Computes it.
        """
        if not all(user in store.derived for store in self._stores):
            found = make()
            for store in self._stores:
                store.derived[user] = found
        result: Derived = self._stores[0].derived[user]
        return result

    def before(self, each: AnyOptimizer) -> None:
        """Patches an optimizer to mask within its updates, until the step ends."""
        if id(each) in self._restore or not self._is_followed(each):
            return
        if id(each) not in self._within:
            self._within[id(each)] = self._patches(each)
        self._restore[id(each)] = put(self._within[id(each)])

    def after(self, each: AnyOptimizer, is_outermost: bool) -> None:
        """Masks updated weights that no patch has masked."""
        if id(each) not in self._restore:
            return
        # PyTorch calls this at every step; the optimizer is built now.
        if id(each) not in self._after:
            within = bool(self._within[id(each)])
            masked = [
                weight for weight in self._weights
                if optimizer.updates(each, weight.variable)
                and not (within and weight.variable.constraint is None)
            ]  # fmt: skip
            self._after[id(each)] = self._with_averages(masked, [each])
        if self._after[id(each)]:
            self._mask(self._after[id(each)])
        if is_outermost and is_the_users(type(each)):
            self.mask_all()

    def patches_of(self, each: AnyOptimizer) -> list[Patch] | None:
        """Returns the patches of an optimizer that mask all it updates; None if there are none."""
        return None if self._after.get(id(each), True) else self._within[id(each)]

    def finish(self) -> None:
        """Removes the patches at the end of a step."""
        while self._restore:
            self._restore.popitem()[1]()

    def mask_all(self) -> None:
        """Sets pruned weights, and their moving averages, to zero."""
        # strip may have removed the mask
        masked = [weight for weight in self._weights if self._mask_of(weight) is not None]
        self._mask(self._with_averages(masked, self._optimizers()))

    @property
    def updates_elsewhere(self) -> bool:
        """True if weights may be updated after, or without, an optimizer's observed update."""
        methods = [type(self._model).train_step, "train_step" in vars(self._model)]
        methods += [getattr(type(each), "apply_gradients", None) for each in self._optimizers()]
        return any(method is True or is_the_users(method) for method in methods if method)

    @contextlib.contextmanager
    def use_masks(self, masks: Sequence[object]) -> Iterator[None]:
        """Sets the active masks to `masks`, arguments of a traced function, within the block."""
        self._traced = {id(v): mask for v, mask in zip(self._variables, masks, strict=True)}
        try:
            yield
        finally:
            self._traced = {}

    def _is_followed(self, each: AnyOptimizer) -> bool:
        """Returns whether operations after an update become part of this step alone."""
        return isinstance(each, keras.optimizers.Optimizer) and self._backend.is_in_step()

    def _patches(self, each: keras.optimizers.Optimizer) -> list[Patch]:
        slots_of = functools.partial(optimizer.slots_of, each)
        mask_of = self._mask_in_update(each)
        store = mask_store.get(self._model)
        jit_compile = store.jit_compile if store else "auto"
        return self._backend.update_patches(
            each, self._variables, mask_of, self.derived, slots_of, jit_compile
        )

    def _mask_in_update(self, each: keras.optimizers.Optimizer) -> Callable[[Key], object | None]:
        """Returns a function from an optimizer's key to the mask to apply within the update."""
        free = [weight for weight in self._weights if weight.variable.constraint is None]
        by_key = {private_names.key_of(each, weight.variable): weight for weight in free}

        def mask_of(key: Key) -> object | None:
            weight = by_key.get(key)
            return None if weight is None else self._mask_of(weight)

        return mask_of

    def _with_averages(
        self, weights: Sequence[Weight], optimizers: Sequence[AnyOptimizer]
    ) -> list[tuple[Weight, keras.Variable]]:
        """Returns each weight with its variable and its moving averages."""
        return [
            (weight, variable)
            for weight in weights
            for variable in (weight.variable, *weight.averages(optimizers))
        ]

    def _mask(self, variables: Sequence[tuple[Weight, keras.Variable]]) -> None:
        self._backend.apply_masks([(each, self._mask_of(weight)) for weight, each in variables])

    def _mask_of(self, weight: Weight) -> object | None:
        traced = self._traced.get(id(weight.variable))
        return weight.mask_on_device if traced is None else traced


def is_the_users(member: object) -> bool:
    """Returns whether a class or a method is not one of Keras."""
    return not getattr(member, "__module__", "").startswith(keras.__name__ + ".")
