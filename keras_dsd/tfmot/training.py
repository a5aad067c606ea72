"""What the training of a tf_keras model is made of."""

from collections.abc import Callable
from typing import Any

import tf_keras

from keras_dsd.patches import Patch
from keras_dsd.selection import refuse_unmatched
from keras_dsd.tfmot import optimizer
from keras_dsd.tfmot.holding import MaskedUpdates
from keras_dsd.tfmot.learning_rate import LearningRate
from keras_dsd.tfmot.weight import Weight, path_of
from keras_dsd.training import patched


class Side:
    """The training of one tf_keras model.

    Args:
        model: The model that trains.
        wrappers: The wrapped layers in it.
        weights_of: Finds what DSD prunes in a model.
    """

    def __init__(
        self, model: Any, wrappers: list[Any], weights_of: Callable[[Any], list[Weight]]
    ) -> None:
        self.model = model
        self._wrappers = wrappers
        self._weights_of = weights_of
        self._weights: list[Weight] = []
        self._rate = LearningRate(model, wrappers)

    @property
    def weights(self) -> list[Weight]:
        """What DSD prunes; empty as long as the model has not made its weights."""
        if self._weights:
            return self._weights
        found = self._weights_of(self.model)
        if all(wrapper.has_masks for wrapper in self._wrappers):
            self._weights = found
            for wrapper in self._wrappers:
                if wrapper.was_unbuilt:
                    wrapper.selection.see(path_of(variable) for variable in self.model.weights)
                    refuse_unmatched(wrapper.selection, [weight.path for weight in found])
        return found

    def check(self) -> None:
        """Raises ValueError where the optimizer has no learning rate to scale."""
        for each in optimizer.optimizers_of(self.model):
            if not hasattr(each, "learning_rate"):
                raise ValueError(
                    f"Expected an optimizer with a learning_rate. Received: optimizer={each!r}. "
                    f"Compile the model with an optimizer from tf_keras.optimizers."
                )

    def clear_optimizers(self) -> None:
        """Sets all slots of the optimizers back to their initial value, but moving averages."""
        for each in optimizer.optimizers_of(self.model):
            optimizer.clear_all(each, self.model.trainable_variables)

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

    def traced(self, lr: float) -> float:
        """Returns `lr` where a learning rate is computed from the step, within the trace."""
        optimizers = optimizer.optimizers_of(self.model)
        return lr if any(map(optimizer.is_scheduled, optimizers)) else 1.0

    def make_step(self, masked: bool, lr: float) -> dict[str, Any]:
        """Returns the attributes that make the model train by a step of its own."""
        patches = self._patches(masked, lr)
        type(self.model).make_train_function(self.model, force=True)
        return {
            "train_function": patched(self.model.train_function, patches),
            "train_tf_function": getattr(self.model, "train_tf_function", None),
        }

    def _patches(self, masked: bool, lr: float) -> list[Patch]:
        optimizers = optimizer.optimizers_of(self.model)
        patches = [patch for each in optimizers for patch in optimizer.scaled(each, lr)]
        if masked:
            updates = MaskedUpdates(self.weights, optimizers)
            train_step = updates.around(self.model.train_step)
            patches += [*updates.patches(), Patch(vars(self.model), "train_step", train_step)]
        return patches
