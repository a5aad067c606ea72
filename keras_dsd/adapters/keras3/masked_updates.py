"""Ends each update of a held weight in `weight * mask`."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_dsd.adapters.keras3 import backends, optimizer
from keras_dsd.adapters.keras3.weight import Weight
from keras_dsd.utils.patches import Patch


class MaskedUpdates:
    """What a model and its optimizers do while weights are held.

    The mask follows in the optimizer's `apply`: after the update, a constraint of the user's and
    the moving averages, which are masked as well. A backend may mask within the update instead.
    Where a `train_step` or an optimizer of the user's own may update in another way, the weights
    are masked at the step's end too.

    Args:
        model: The model that trains.
        weights: Its weights, held.
        optimizers: What updates them.
    """

    def __init__(self, model: Any, weights: Sequence[Weight], optimizers: Sequence[Any]) -> None:
        self.model = model
        self.variables = [weight.variable for weight in weights]
        self._weights = weights
        self._traced: dict[int, Any] = {}
        self._free: dict[int, dict[Any, Weight]] = {}  # by optimizer and its key
        self._backend = backends.current()
        self._optimizers = optimizers

    def masks(self) -> list[Any]:
        """Returns the masks as they are now, as the backend keeps them."""
        return [weight.mask_on_device for weight in self._weights]

    def patches(self) -> list[Patch]:
        """Returns what has to stand on model and optimizers while a step is made, traced or run."""
        found = []
        for each in self._optimizers:
            within = self._backend.update_patches(each, self)
            apply = self._masked_apply(each, within=bool(within))
            found += [*within, Patch(vars(each), "apply", apply)]
        train_step = self._backend.around(self.model.train_step, self, self._updates_elsewhere())
        return [*found, Patch(vars(self.model), "train_step", train_step)]

    @contextlib.contextmanager
    def traced_with(self, masks: Sequence[Any]) -> Iterator[None]:
        """Has `masks` stand for those in force: the arguments of a function that is traced."""
        self._traced = {id(v): mask for v, mask in zip(self.variables, masks, strict=True)}
        try:
            yield
        finally:
            self._traced = {}

    def mask_in_update(self, each: Any, key: Any) -> Any:
        """Returns the mask to apply within the update of a variable, or None.

        Args:
            each: The optimizer.
            key: Its key of the variable.
        """
        if id(each) not in self._free:
            free = [weight for weight in self._weights if weight.variable.constraint is None]
            self._free[id(each)] = {each._var_key(weight.variable): weight for weight in free}
        weight = self._free[id(each)].get(key)
        return None if weight is None else self._mask_of(weight)

    def slots_of(self, each: Any, variable: Any) -> dict[str, Any]:
        """Returns the slots that an optimizer keeps of a variable, by name."""
        return optimizer.slots_of(each, variable)

    def mask_all(self) -> None:
        """Sets every held weight, and its averages, to zero where it is pruned."""
        # strip may have taken a mask away
        held = [weight for weight in self._weights if self._mask_of(weight) is not None]
        self._mask(self._with_averages(held, self._optimizers))

    def _masked_apply(self, each: Any, within: bool) -> Callable[..., Any]:
        apply = each.apply
        left: list[tuple[Weight, Any]] | None = None

        def masked_apply(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            result = apply(*args, **kwargs)
            if left is None:  # PyTorch asks at every step, and the optimizer is built by now
                held = [w for w in self._weights if optimizer.updates(each, w.variable)]
                held = [w for w in held if not (within and w.variable.constraint is None)]
                left = self._with_averages(held, [each])
            self._mask(left)
            return result

        return masked_apply

    def _with_averages(
        self, weights: Sequence[Weight], optimizers: Sequence[Any]
    ) -> list[tuple[Weight, Any]]:
        """Returns each weight with its variable, and with what optimizers average of it."""
        found = []
        for weight in weights:
            averages = (optimizer.average_of(each, weight.variable) for each in optimizers)
            variables = (weight.variable, *averages)
            found += [(weight, each) for each in variables if each is not None]
        return found

    def _mask(self, variables: Sequence[tuple[Weight, Any]]) -> None:
        self._backend.apply_masks([(each, self._mask_of(weight)) for weight, each in variables])

    def _mask_of(self, weight: Weight) -> Any:
        traced = self._traced.get(id(weight.variable))
        return weight.mask_on_device if traced is None else traced

    def _updates_elsewhere(self) -> bool:
        methods = [type(self.model).train_step, "train_step" in vars(self.model)]
        methods += [type(each).apply_gradients for each in self._optimizers]
        return any(method is True or _is_the_users(method) for method in methods if method)


def _is_the_users(method: Any) -> bool:
    return not getattr(method, "__module__", "").startswith(keras.__name__ + ".")
