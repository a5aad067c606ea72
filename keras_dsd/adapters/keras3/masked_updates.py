"""Ends each update of a masked weight in `weight * mask`."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import keras

from keras_dsd.adapters.keras3 import backends, optimizer
from keras_dsd.adapters.keras3.backends import Key
from keras_dsd.adapters.keras3.weight import Weight
from keras_dsd.protocols import Step
from keras_dsd.utils.patches import Patch


class MaskedUpdates:
    """Updates of a model while weights are masked.

    The mask follows in the optimizer's `apply`: after the update, a constraint of the user's and
    the moving averages, which are masked as well. A backend may mask within the update instead.
    Where a `train_step` or an optimizer of the user's own may update in another way, the weights
    are masked at the step's end too.
    """

    def __init__(
        self,
        model: keras.Model,
        weights: Sequence[Weight],
        optimizers: Sequence[keras.optimizers.Optimizer],
    ) -> None:
        self._model = model
        self._variables = [weight.variable for weight in weights]
        self._weights = weights
        self._traced: dict[int, object] = {}
        self._backend = backends.current()
        self._optimizers = optimizers

    def masks(self) -> list[object]:
        """Returns the active masks, as the backend stores them."""
        return [weight.mask_on_device for weight in self._weights]

    def patches(self) -> list[Patch]:
        """Returns the patches of model and optimizers while a step is made, traced or run."""
        found = []
        for each in self._optimizers:
            slots_of = functools.partial(optimizer.slots_of, each)
            mask_of = self._mask_in_update(each)
            within = self._backend.update_patches(each, self._variables, mask_of, slots_of)
            apply = self._masked_apply(each, within=bool(within))
            found += [*within, Patch(vars(each), "apply", apply)]
        train_step = self._backend.masked_train_step(
            self._model.train_step,
            self._model,
            self._variables,
            self._use_masks,
            self.mask_all if self._updates_elsewhere() else None,
        )
        return [*found, Patch(vars(self._model), "train_step", train_step)]

    def mask_all(self) -> None:
        """Sets every masked weight, and its averages, to zero where it is pruned."""
        # strip may have removed a mask
        masked = [weight for weight in self._weights if self._mask_of(weight) is not None]
        self._mask(self._with_averages(masked, self._optimizers))

    @contextlib.contextmanager
    def _use_masks(self, masks: Sequence[object]) -> Iterator[None]:
        """Makes `masks`, the arguments of a function that is traced, the active ones."""
        self._traced = {id(v): mask for v, mask in zip(self._variables, masks, strict=True)}
        try:
            yield
        finally:
            self._traced = {}

    def _mask_in_update(self, each: keras.optimizers.Optimizer) -> Callable[[Key], object | None]:
        """Returns the function of an optimizer's key that gives the mask within the update."""
        free = [weight for weight in self._weights if weight.variable.constraint is None]
        by_key = {each._var_key(weight.variable): weight for weight in free}

        def mask_of(key: Key) -> object | None:
            weight = by_key.get(key)
            return None if weight is None else self._mask_of(weight)

        return mask_of

    def _masked_apply(self, each: keras.optimizers.Optimizer, within: bool) -> Step:
        apply = each.apply
        left: list[tuple[Weight, keras.Variable]] | None = None

        def masked_apply(*args: object, **kwargs: object) -> object:
            nonlocal left
            result = apply(*args, **kwargs)
            if left is None:  # PyTorch asks at every step, and the optimizer is built by now
                masked = [w for w in self._weights if optimizer.updates(each, w.variable)]
                masked = [w for w in masked if not (within and w.variable.constraint is None)]
                left = self._with_averages(masked, [each])
            self._mask(left)
            return result

        return masked_apply

    def _with_averages(
        self, weights: Sequence[Weight], optimizers: Sequence[keras.optimizers.Optimizer]
    ) -> list[tuple[Weight, keras.Variable]]:
        """Returns each weight with its variable, and with the averages of it."""
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

    def _updates_elsewhere(self) -> bool:
        methods = [type(self._model).train_step, "train_step" in vars(self._model)]
        methods += [type(each).apply_gradients for each in self._optimizers]
        return any(method is True or _is_the_users(method) for method in methods if method)


def _is_the_users(method: object) -> bool:
    return not getattr(method, "__module__", "").startswith(keras.__name__ + ".")
