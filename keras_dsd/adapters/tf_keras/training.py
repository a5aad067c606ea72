"""What the training of a tf_keras model is made of."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from keras_dsd.adapters.tf_keras import optimizer as optimizers
from keras_dsd.adapters.tf_keras.learning_rate import LearningRate
from keras_dsd.adapters.tf_keras.masked_updates import MaskedUpdates
from keras_dsd.adapters.tf_keras.weight import Weight, path_of
from keras_dsd.algorithm.selection import refuse_unmatched
from keras_dsd.utils.checks import shown
from keras_dsd.utils.patches import Patch, patched


class TrainingAdapter:
    """The training of one tf_keras model.

    Args:
        model: The model that trains.
        wrappers: The wrapped layers in it.
        weights_of: Finds what DSD prunes in a model, given what updates it.
        optimizer: What updates it in a custom training loop; None: the model's optimizers.

    Raises:
        TypeError: `optimizer` is none of tf_keras's.
    """

    def __init__(
        self,
        model: Any,
        wrappers: list[Any],
        weights_of: Callable[..., list[Weight]],
        optimizer: Any = None,
    ) -> None:
        if optimizer is not None:
            optimizers.check_kind(optimizer)
        self.model = model
        self._optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        self._wrappers = wrappers
        self._weights_of = weights_of
        self._weights: list[Weight] = []
        self._rate = LearningRate(model, wrappers, lambda: self.optimizers)

    @property
    def weights(self) -> list[Weight]:
        """What DSD prunes; empty as long as the model has not made its weights."""
        if self._weights:
            return self._weights
        found = self._weights_of(self.model, self.optimizers)
        if all(wrapper.has_masks for wrapper in self._wrappers):
            self._weights = found
            for wrapper in self._wrappers:
                if wrapper.was_unbuilt:
                    wrapper.selection.see(path_of(variable) for variable in self.model.weights)
                    refuse_unmatched(wrapper.selection, [weight.path for weight in found])
        return found

    @property
    def optimizers(self) -> list[Any]:
        """What updates them."""
        if self._optimizer is None:
            return optimizers.optimizers_of(self.model)
        return [self._optimizer]

    def check(self) -> None:
        """Raises ValueError where the optimizer has no learning rate to scale."""
        for each in self.optimizers:
            if not hasattr(each, "learning_rate"):
                raise ValueError(
                    f"Expected an optimizer with a learning_rate. Received: "
                    f"optimizer={shown(each)}. Compile the model with an optimizer from "
                    f"tf_keras.optimizers."
                )

    def reset_optimizers(self) -> None:
        """Sets all slots of the optimizers back to their initial value, but moving averages."""
        for each in self.optimizers:
            optimizers.reset_all(each, self.model.trainable_variables)

    @property
    def batch_norms(self) -> list[Any]:
        """The BatchNormalization layers that train."""
        kind = tf_keras.layers.BatchNormalization
        parts = {id(part): part for part in self.model._flatten_layers()}.values()
        return [part for part in parts if isinstance(part, kind) and part.trainable]

    def forward(self, inputs: Any) -> None:
        """Runs the model on the inputs of a batch, as in training, on each replica."""
        strategy = self.model.distribute_strategy
        with strategy.scope():
            strategy.run(lambda each: self.model(each, training=True), args=(inputs,))

    def scale(self, lr: float) -> None:
        """Multiplies the learning rates that can be set."""
        self._rate.scale(lr)

    def unscale(self) -> None:
        """Takes that back."""
        self._rate.unscale()

    def learning_rates(self) -> list[float]:
        """Returns the learning rates that are not computed from the step."""
        settable = [each for each in self.optimizers if not optimizers.is_scheduled(each)]
        return [float(optimizers.get_learning_rate(each)) for each in settable]

    def prints(self) -> bool:
        """Returns whether Keras prints its progress, and does not log it."""
        return bool(tf_keras.utils.is_interactive_logging_enabled())

    def masking(self) -> Callable[[], None]:
        """Returns what sets the weights now held, and their averages, to zero where pruned."""
        held = [weight for weight in self.weights if weight.mask is not None]
        return MaskedUpdates(held, self.optimizers).mask_rest

    def is_tracing(self) -> bool:
        """Returns whether a `tf.function` is being traced."""
        return tf.inside_function()

    def is_scheduled(self) -> bool:
        """Returns whether a learning rate is computed from the step, and so can't be set."""
        return any(map(optimizers.is_scheduled, self.optimizers))

    def masks_of(self, variables: Sequence[Any] | None) -> list[Any]:
        """Returns the mask in force of each variable as a boolean tensor, or None."""
        found: dict[int, Any] = {}
        for weight in self.weights:
            if weight.mask is not None:
                mask = tf.cast(weight.mask_variable, tf.bool)
                averages = (optimizers.average_of(o, weight.variable) for o in self.optimizers)
                found |= {id(v): mask for v in (weight.variable, *averages) if v is not None}
        given = self.model.trainable_variables if variables is None else variables
        return [found.get(id(each)) for each in given]

    def traced(self, lr: float) -> float:
        """Returns `lr` where a learning rate is computed from the step, within the trace."""
        return lr if self.is_scheduled() else 1.0

    def make_step(self, masked: bool, lr: float) -> dict[str, Any]:
        """Returns the attributes that make the model train by a step of its own."""
        patches = self._patches(masked, lr)
        type(self.model).make_train_function(self.model, force=True)
        return {
            "train_function": patched(self.model.train_function, patches),
            "train_tf_function": getattr(self.model, "train_tf_function", None),
        }

    def _patches(self, masked: bool, lr: float) -> list[Patch]:
        patches = [patch for each in self.optimizers for patch in optimizers.scaled(each, lr)]
        if masked:
            updates = MaskedUpdates(self.weights, self.optimizers)
            train_step = updates.around(self.model.train_step)
            patches += [*updates.patches(), Patch(vars(self.model), "train_step", train_step)]
        return patches
