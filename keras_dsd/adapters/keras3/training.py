"""What the training of a Keras 3 model is made of."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_dsd.adapters.keras3 import backends, kernels
from keras_dsd.adapters.keras3.learning_rate import AssignedRates, LearningRates
from keras_dsd.adapters.keras3.masked_updates import MaskedUpdates
from keras_dsd.adapters.keras3.optimizer import (
    average_of,
    is_scheduled,
    optimizers_of,
    rates_of,
    reset_all,
)
from keras_dsd.adapters.keras3.weight import Weight
from keras_dsd.utils.checks import shown
from keras_dsd.utils.patches import Patch, patched


class TrainingAdapter:
    """The training of one Keras 3 model.

    Args:
        model: The model that trains.
        weights_of: Finds what DSD prunes in a model, given what updates it.
        optimizer: What updates it in a custom training loop; None: the model's optimizers.

    Raises:
        TypeError: `optimizer` is none of Keras's nor, on PyTorch, of `torch.optim`.
    """

    def __init__(
        self, model: Any, weights_of: Callable[..., list[Weight]], optimizer: Any = None
    ) -> None:
        known = (keras.optimizers.Optimizer, *backends.current().OPTIMIZERS)
        if optimizer is not None and not isinstance(optimizer, known):
            raise TypeError(
                f"Expected `optimizer` to be of keras.optimizers, or on PyTorch of torch.optim. "
                f"Received: optimizer={shown(optimizer)} of type {type(optimizer).__module__}."
                f"{type(optimizer).__name__}. Give one of these."
            )
        self.model = model
        self._weights_of = weights_of
        self._optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        self._rates: Any = LearningRates() if optimizer is None else AssignedRates()

    @property
    def weights(self) -> list[Weight]:
        """What DSD prunes; empty as long as the model has not made its weights."""
        return self._weights_of(self.model, self.optimizers)

    @property
    def optimizers(self) -> list[Any]:
        """What updates them."""
        return optimizers_of(self.model) if self._optimizer is None else [self._optimizer]

    def check(self) -> None:
        """Raises ValueError where there is no optimizer, or NNX hides the training step."""
        if not self.optimizers:
            raise ValueError(
                f"Expected an optimizer. Received: optimizer=None on model={self.model.name!r}. "
                f"Compile the model with an optimizer from keras.optimizers."
            )
        if getattr(keras.config, "is_nnx_enabled", bool)():
            raise ValueError(
                "Expected Keras without NNX, which trains past a model's own train_step. Received: "
                "is_nnx_enabled()=True. Set KERAS_NNX_ENABLED=false before Keras is imported."
            )

    def reset_optimizers(self) -> None:
        """Sets all slots of the optimizers back to their initial value, but moving averages."""
        backends.sync(self.model)
        for each in self.optimizers:
            reset_all(each)

    @property
    def batch_norms(self) -> list[Any]:
        """The BatchNormalization layers that train."""
        backends.sync(self.model)
        kind = keras.layers.BatchNormalization
        return [p for p in kernels.parts_of(self.model) if isinstance(p, kind) and p.trainable]

    def forward(self, inputs: Any) -> None:
        """Runs the model on the inputs of a batch, as in training."""
        backends.current().forward(self.model, inputs)

    def scale(self, lr: float) -> None:
        """Multiplies the learning rates."""
        self._rates.scale(self.optimizers, lr)

    def unscale(self) -> None:
        """Takes that back."""
        self._rates.unscale()

    def learning_rates(self) -> list[float]:
        """Returns the learning rates that are not computed from the step."""
        settable = [each for each in self.optimizers if not is_scheduled(each)]
        return [rate for each in settable for rate in rates_of(each)]

    def prints(self) -> bool:
        """Returns whether Keras prints its progress, and does not log it."""
        return bool(keras.config.is_interactive_logging_enabled())

    def masking(self) -> Callable[[], None]:
        """Returns what sets the weights now held, and their averages, to zero where pruned."""
        held = [weight for weight in self.weights if weight.mask_on_device is not None]
        return MaskedUpdates(self.model, held, self.optimizers).mask_all

    def is_tracing(self) -> bool:
        """Returns whether what is called now is being recorded, to be run again and again."""
        return backends.current().is_tracing()

    def is_scheduled(self) -> bool:
        """Returns whether a learning rate is computed from the step, and so can't be set."""
        return any(map(is_scheduled, self.optimizers))

    def masks_of(self, variables: Sequence[Any] | None) -> list[Any]:
        """Returns the mask in force of each variable as a boolean tensor, or None."""
        found: dict[int, Any] = {}
        for weight in self.weights:
            if weight.mask_on_device is not None:
                mask = backends.current().mask_to_tensor(weight.mask_on_device)
                averages = (average_of(o, weight.variable) for o in self.optimizers)
                found |= {id(v): mask for v in (weight.variable, *averages) if v is not None}
        given = self.model.trainable_variables if variables is None else variables
        return [found.get(id(each)) for each in given]

    def traced(self, lr: float) -> float:
        """Returns `lr`: a compiled step holds what it multiplies the rate by."""
        return lr

    def make_step(self, masked: bool, lr: float) -> dict[str, Any]:
        """Returns the attributes that make the model train by a step of its own."""
        patches: list[Patch] = []
        if masked:
            updates = MaskedUpdates(self.model, self.weights, self.optimizers)
            patches = updates.patches()
        elif lr != 1.0:
            patches = [Patch(vars(self.model), "train_step", _anew(self.model.train_step))]
        patched(type(self.model).make_train_function, patches)(self.model, True)
        step = self.model.train_function
        if masked:
            step = patched(backends.current().feed(step, updates.masks), patches)
        return {"train_function": step}


def _anew(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `train_step` as another function: JAX would run what it compiled for the same one."""
    return lambda *args: train_step(*args)
