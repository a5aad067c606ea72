"""Training adapter and training state of tf_keras models."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import tensorflow as tf
import tf_keras

from keras_dsd.adapters import tf_graphs
from keras_dsd.adapters.base import private_names
from keras_dsd.adapters.base import training as base
from keras_dsd.adapters.base.observation import AnyOptimizer, Observation
from keras_dsd.adapters.base.optimizers import OptimizerFunctions
from keras_dsd.adapters.base.plain_fits import PlainFits
from keras_dsd.adapters.base.training_state import TrainingState
from keras_dsd.adapters.base.weight import warn_of_rest
from keras_dsd.adapters.tf_keras import optimizer as optimizers
from keras_dsd.adapters.tf_keras.hooks import HOOKS, PLAIN_FITS
from keras_dsd.adapters.tf_keras.masked_updates import MaskedUpdates, has_own_train_step
from keras_dsd.adapters.tf_keras.weight import Weight, path_of, variables_of
from keras_dsd.adapters.tf_keras.wrapper import DSDWrapper
from keras_dsd.adapters.tf_step_state import TensorFlowStepState
from keras_dsd.algorithm.selection import refuse_unmatched
from keras_dsd.protocols import Inputs, SkippedWeight, Step, StepExtras
from keras_dsd.utils.checks import shown
from keras_dsd.utils.patches import Patch, patched


class _TrainingState(TrainingState):
    """Reads and writes the state of tf_keras models."""

    def begin(self, seed: int) -> None:
        """Seeds Python, NumPy and TensorFlow, and resets the names that Keras makes up."""
        tf_keras.backend.reset_uids()
        self.seed(seed)

    def is_built(self, model: tf_keras.Model) -> bool:
        """Returns whether all weights are built."""
        return bool(model.built)

    def variables(self, model: tf_keras.Model) -> list[tf.Variable]:
        """Returns the variables that hold the state."""
        if not self.is_known(model):
            return variables_of(model)
        (inner,) = optimizers.optimizers_of(model)
        build = getattr(inner, "build", None) or inner._create_all_weights  # of legacy optimizers
        with model.distribute_strategy.scope():
            build(model.trainable_variables)
        kept = inner.variables() if callable(inner.variables) else inner.variables
        # The variables of a loss scale do not belong to an optimizer.
        tracked = tf.train.TrackableView(model.optimizer).descendants()
        scales = (each for each in tracked if isinstance(each, tf.Variable))
        return list({id(each): each for each in [*variables_of(model), *kept, *scales]}.values())

    def weights(self, model: tf_keras.Model) -> list[tf.Variable]:
        """Returns the variables that are the model's weights."""
        return variables_of(model)

    def copy_adapted(self, layer: tf_keras.layers.Layer, to: tf_keras.layers.Layer) -> None:
        """Copies the state of `adapt` to a layer of the same config, including its vocabulary."""
        to.set_weights(layer.get_weights())


training_state = _TrainingState(tf_keras, optimizers)


class TrainingAdapter(base.TrainingAdapter[Weight]):
    """The training of one tf_keras model, whose wrapped layers are `wrappers`."""

    optimizer_functions: ClassVar[OptimizerFunctions] = optimizers
    state: ClassVar[TrainingState] = training_state
    plain_fits: ClassVar[PlainFits] = PLAIN_FITS
    model: tf_keras.Model

    def __init__(
        self,
        model: tf_keras.Model,
        wrappers: Sequence[DSDWrapper],
        weights_of: Callable[
            [tf_keras.layers.Layer, Callable[[], Sequence[AnyOptimizer]]], list[Weight]
        ],
        skipped_of: Callable[[tf_keras.layers.Layer], list[SkippedWeight]],
        optimizers: Sequence[AnyOptimizer] | None = None,
    ) -> None:
        super().__init__(model, weights_of, skipped_of, optimizers)
        self._wrappers = wrappers

    @staticmethod
    def known_optimizers() -> tuple[tuple[type, ...], str]:
        """Returns the optimizer classes of a custom training loop, and their package."""
        return optimizers.KINDS, "tf_keras.optimizers"

    @property
    def weights(self) -> list[Weight]:
        """The weights that DSD prunes; empty until the model is built."""
        found = super().weights
        if all(wrapper.sparsities is not None for wrapper in self._wrappers):
            unbuilt = [wrapper for wrapper in self._wrappers if wrapper.was_unbuilt]
            for wrapper in unbuilt:
                wrapper.selection.see(path_of(variable) for variable in variables_of(self.model))
                refuse_unmatched(wrapper.selection, [weight.path for weight in found])
            for wrapper in unbuilt:
                wrapper.was_unbuilt = False
            if unbuilt:
                skipped = self._skipped_of(self.model)
                warn_of_rest(self.model, unbuilt[0].selection, found, skipped)
        return found

    def check(self) -> None:
        """Raises ValueError if the optimizer has no learning rate to scale."""
        for each in self.optimizers:
            if not hasattr(each, "learning_rate"):
                raise ValueError(
                    f"Expected an optimizer with a learning_rate. Received: "
                    f"optimizer={shown(each)}. Compile the model with an optimizer from "
                    f"tf_keras.optimizers."
                )

    def reset_optimizers(self) -> None:
        """Resets all slots of the optimizers to their initial value, except moving averages."""
        for each in self.optimizers:
            optimizers.reset_all(each, self.model.trainable_variables)

    @property
    def batch_norms(self) -> list[tf_keras.layers.BatchNormalization]:
        """The BatchNormalization layers that train."""
        kind = tf_keras.layers.BatchNormalization
        parts = {id(part): part for part in self.model._flatten_layers()}.values()
        return [part for part in parts if isinstance(part, kind) and part.trainable]

    def forward(self, inputs: Inputs) -> None:
        """Runs the model on the inputs of a batch, in training mode, on each replica."""
        strategy = self.model.distribute_strategy
        with strategy.scope():
            strategy.run(lambda each: self.model(each, training=True), args=(inputs,))

    def _make_observation(self, given: Sequence[AnyOptimizer] | None) -> Observation:
        strategy = getattr(self.model, "distribute_strategy", None)
        factors = tf_graphs.factors_of(self.model)
        return Observation(factors, strategy, given, optimizers.LOSS_SCALES)

    def _hooks(self) -> contextlib.AbstractContextManager[object]:
        return HOOKS

    @property
    def has_own_train_step(self) -> bool:
        """True if the model has a custom training step, which may not train all weights."""
        return has_own_train_step(self.model)

    def _is_updated(self, variable: tf.Variable) -> bool:
        return self._observation.has_updated(variable)

    def _forget_untrained(self) -> None:
        for wrapper in self._wrappers:
            wrapper.masks.forget_untrained()

    @property
    def batches_per_execution(self) -> int:
        """Maximum number of batches in one call of the compiled step."""
        return private_names.batches_per_execution_of(self.model)

    @property
    def is_chief(self) -> bool:
        """True if this process writes files: the first of those that train the model."""
        return tf_graphs.is_chief(self.model)

    def is_same(self, digest: bytes) -> bool:
        """Returns whether all workers that train the model have the same digest."""
        return tf_graphs.is_same(self.model, digest)

    def prints(self) -> bool:
        """Returns whether Keras prints its progress instead of logging it."""
        return bool(tf_keras.utils.is_interactive_logging_enabled())

    def masking(self) -> Callable[[], None]:
        """Returns a function that masks the currently masked weights and their averages."""
        optimizers = self.optimizers
        return MaskedUpdates(self.model, self.masked_weights(), lambda: optimizers).mask_rest

    def is_tracing(self) -> bool:
        """Returns whether a `tf.function` is being traced."""
        return tf.inside_function()

    def _make_step_state(self) -> TensorFlowStepState:
        return TensorFlowStepState(self.model, lambda: self.weights)

    def make_step(self, masked: bool, extras: StepExtras) -> dict[str, Step | None]:
        """Returns the attributes that set a new training step on the model."""
        weights = self.masked_weights() if masked else []
        updates = MaskedUpdates(self.model, weights, lambda: self.optimizers)
        plain = updates.around(self.model.train_step)
        factors = tf_graphs.factors_of(self.model)

        before_update, state = self.step_state.hook(extras), self.step_state
        traces = tf_graphs.traces_of(self.model)
        active = functools.partial(self._observation.active, updates, before_update)

        def train_step(data: object) -> object:
            traces.add()
            with HOOKS, active():
                logs = plain(data)
                state.end_step(extras)
            self._observation.is_factor_read = factors.are_read()
            factors.count()
            return logs

        type(self.model).make_train_function(self.model, force=True)
        run = patched(
            self.model.train_function, [Patch(vars(self.model), "train_step", train_step)]
        )
        return {
            "train_function": tf_graphs.observed_in_its_thread(run, self.model, active),
            "train_tf_function": getattr(self.model, "train_tf_function", None),
        }
