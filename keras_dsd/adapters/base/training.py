"""The training adapter of either Keras, as far as both are the same."""

import abc
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from keras_dsd.adapters.base.optimizers import AnyOptimizer, OptimizerFunctions
from keras_dsd.adapters.base.weight import Weight
from keras_dsd.protocols import Layer, Model, Tensor, Variable
from keras_dsd.utils.checks import shown

WeightT = TypeVar("WeightT", bound=Weight)


class TrainingAdapter(abc.ABC, Generic[WeightT]):
    """The training of one model.

    Args:
        model: The model that trains.
        weights_of: Returns the weights that DSD prunes in a model, given its optimizers.
        optimizer: Updates it in a custom training loop; None: the model's optimizers do.

    Raises:
        TypeError: `optimizer` is of no known kind.
    """

    optimizer_functions: ClassVar[OptimizerFunctions]

    def __init__(
        self,
        model: Model,
        weights_of: Callable[[Layer, Sequence[AnyOptimizer]], list[WeightT]],
        optimizer: AnyOptimizer | None,
    ) -> None:
        if optimizer is not None:
            kinds, expected = self.known_optimizers()
            if not isinstance(optimizer, kinds):
                raise TypeError(
                    f"Expected `optimizer` to be of {expected}. Received: "
                    f"optimizer={shown(optimizer)} of type {type(optimizer).__module__}."
                    f"{type(optimizer).__name__}. Give one of these."
                )
        self.model = model
        self._weights_of = weights_of
        self._optimizer = getattr(optimizer, "inner_optimizer", optimizer)

    @staticmethod
    @abc.abstractmethod
    def known_optimizers() -> tuple[tuple[type, ...], str]:
        """Returns the optimizer classes of a custom training loop, and their package."""

    @property
    def weights(self) -> list[WeightT]:
        """The weights that DSD prunes; empty as long as the model has not built its weights."""
        return self._weights_of(self.model, self.optimizers)

    @property
    def optimizers(self) -> list[AnyOptimizer]:
        """The optimizers that update them."""
        if self._optimizer is None:
            return list(self.optimizer_functions.optimizers_of(self.model))
        return [self._optimizer]

    def learning_rates(self) -> list[float]:
        """Returns the current learning rates that are not computed from the step."""
        settable = [
            each for each in self.optimizers if not self.optimizer_functions.is_scheduled(each)
        ]
        return [
            rate for each in settable for rate in self.optimizer_functions.learning_rates_of(each)
        ]

    def is_scheduled(self) -> bool:
        """Returns whether a learning rate is computed from the step, and so can't be set."""
        return any(map(self.optimizer_functions.is_scheduled, self.optimizers))

    def masks_of(self, variables: Sequence[Variable] | None) -> list[Tensor | None]:
        """Returns the active mask of each variable as a boolean tensor, or None."""
        found: dict[int, Tensor] = {}
        for weight in self.weights:
            mask = weight.mask_tensor()
            if mask is not None:
                masked = (weight.variable, *weight.averages(self.optimizers))
                found |= {id(variable): mask for variable in masked}
        given = self.model.trainable_variables if variables is None else variables
        return [found.get(id(each)) for each in given]

    def masked_weights(self) -> list[WeightT]:
        """Returns the weights that have an active mask."""
        return [weight for weight in self.weights if weight.is_masked]
