"""What the training of a Keras 3 model is made of in a loop of the user's own."""

from collections.abc import Callable
from typing import Any

import keras

from keras_dsd.checks import shown
from keras_dsd.keras3 import backends
from keras_dsd.keras3.learning_rate import AssignedRates
from keras_dsd.keras3.training import Side
from keras_dsd.keras3.weight import Weight


class SideByHand(Side):
    """The training of a model by an optimizer that need not be its own.

    Args:
        model: The model that trains.
        weights_of: Finds what DSD prunes in a model, given what updates it.
        by: The optimizer.

    Raises:
        TypeError: `by` is no optimizer of Keras's or, on PyTorch, of `torch.optim`.
    """

    def __init__(self, model: Any, weights_of: Callable[..., list[Weight]], by: Any) -> None:
        super().__init__(model, weights_of)
        if not isinstance(by, (keras.optimizers.Optimizer, *backends.current().OPTIMIZERS)):
            raise TypeError(
                f"Expected `optimizer` to be of keras.optimizers, or on PyTorch of torch.optim. "
                f"Received: optimizer={shown(by)} of type {type(by).__module__}."
                f"{type(by).__name__}. Give one of these."
            )
        self._by = getattr(by, "inner_optimizer", by)
        self._rates = AssignedRates()

    @property
    def optimizers(self) -> list[Any]:
        """What updates the model."""
        return [self._by]
