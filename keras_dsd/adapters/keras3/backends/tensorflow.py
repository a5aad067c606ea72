"""Masks on TensorFlow: variables, mirrored on each replica, which the compiled step reads."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import keras
import numpy as np
import tensorflow as tf

from keras_dsd.adapters import tf_arrays, tf_graphs, tf_programs
from keras_dsd.adapters.base.factors import Factors
from keras_dsd.adapters.base.joined_updates import Together
from keras_dsd.adapters.base.private_names import UPDATE_ALL, key_of
from keras_dsd.adapters.keras3.backends import (
    Backend,
    DerivedOf,
    MaskOf,
    ObservedStep,
    SlotsOf,
    TrainStep,
)
from keras_dsd.adapters.tf_step_state import TensorFlowStepState
from keras_dsd.protocols import Inputs, Step
from keras_dsd.utils.patches import Patch


class TensorFlowBackend(Backend[tf.Variable]):
    """Masks as variables that traced steps read, and that later masks reuse."""

    arrays = tf_arrays.ARRAYS
    compiles_updates = True
    _graph: tf.Graph | None = None  # of the step that is being traced

    def tensor_of(self, variable: keras.Variable) -> tf.Tensor:
        """Returns the values of a variable; under a strategy, those of this worker's first copy."""
        return tf.convert_to_tensor(variable.value)

    def make_step_state(
        self, model: keras.Model, weights: Callable[[], Sequence[Any]]
    ) -> TensorFlowStepState:
        """Returns what the steps of a model keep of variables."""
        return TensorFlowStepState(model, weights)

    def put_mask(
        self, mask: tf.Tensor, model: keras.Layer, earlier: tf.Variable | None
    ) -> tf.Variable:
        """Returns a variable with the mask: `earlier`, which traced steps read, or a new one."""
        return tf_graphs.put_mask(mask, model.distribute_strategy, earlier)

    def drop_mask(self, mask: tf.Variable) -> tf.Variable:
        """Returns the variable, empty, for the next mask."""
        tf_graphs.empty_mask(mask)
        return mask

    def mask_to_numpy(self, mask: tf.Variable) -> np.ndarray:
        """Returns the mask as a boolean array."""
        return mask.numpy()

    def mask_to_tensor(self, mask: tf.Variable) -> tf.Tensor:
        """Returns the mask as a boolean tensor."""
        return mask.value()

    def is_tracing(self) -> bool:
        """Returns whether a `tf.function` is being traced."""
        return tf.inside_function()

    def train_step(self, plain: TrainStep, step: ObservedStep) -> TrainStep:
        """Returns the observed and masked `train_step` of a model."""
        observed = super().train_step(plain, step)

        factors = cast("tf_graphs.Factors", step.observation.factors)

        traces = tf_graphs.traces_of(step.model)

        def train_step(data: object) -> object:
            self._graph = tf_graphs.current()
            traces.add()
            logs = observed(data)
            step.observation.is_factor_read = factors.are_read()
            factors.count()
            return logs

        return train_step

    def train_function(self, plain: Step, step: ObservedStep) -> Step:
        """Returns a `train_function` that is also observed in its own thread, for all replicas."""
        observed = tf_graphs.observed_in_its_thread(plain, step.model, step.active)

        def train_function(iterator: object) -> object:
            try:
                return observed(iterator)
            finally:
                self._graph = None  # which would stay in memory

        return train_function

    def factors_of(self, model: keras.Layer) -> Factors:
        """Returns variables, which traced steps read."""
        return tf_graphs.factors_of(model)

    def is_in_step(self) -> bool:
        """Returns whether no custom `tf.function` is being traced within the step."""
        return tf_graphs.is_within(self._graph)

    def apply_masks(self, pairs: Sequence[tuple[keras.Variable, tf.Variable]]) -> None:
        """Sets each variable to zero where its mask is False, on each replica separately."""
        for given, mask in pairs:
            variable = given.value if isinstance(given, keras.Variable) else given
            tf_graphs.update_replicas(variable, tf_graphs.zero, mask)

    def update_patches(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        mask_of: MaskOf[tf.Variable],
        derived: DerivedOf,
        slots_of: SlotsOf,
        jit_compile: object,
    ) -> list[Patch]:
        """Returns the patches that mask variables without a constraint within their update."""
        del variables, derived
        is_known = type(optimizer).__module__.startswith("keras.")
        if not is_known or not hasattr(optimizer, UPDATE_ALL):
            return []  # a custom optimizer may be a tf.function, whose trace outlives the step
        updates = _Updates(optimizer, mask_of, slots_of, jit_compile)
        return [
            Patch(vars(optimizer), "update_step", updates.one),
            Patch(vars(optimizer), UPDATE_ALL, updates.all),
        ]

    def is_chief(self, model: keras.Layer) -> bool:
        """Returns whether this process is the worker that writes."""
        return tf_graphs.is_chief(model)

    def is_same(self, model: keras.Model, digest: bytes) -> bool:
        """Returns whether all workers that train a model have the same digest."""
        return tf_graphs.is_same(model, digest)

    def num_workers(self, model: keras.Layer) -> int:
        """Returns the number of workers that mirror the variables of a model."""
        return tf_graphs.num_workers(model)

    def forward(self, model: keras.Model, inputs: Inputs) -> None:
        """Runs a model in training mode, on each replica."""
        strategy = model.distribute_strategy
        with strategy.scope():
            strategy.run(lambda each: model(each, training=True), args=(inputs,))


BACKEND = TensorFlowBackend()


class _Update(NamedTuple):
    """One update of a variable, followed by its mask."""

    gradient: tf.Tensor
    variable: tf.Variable
    learning_rate: tf.Tensor
    mask: tf.Variable


class _Updates:
    """Masked updates of one optimizer, compiled if that is faster."""

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        mask_of: MaskOf[tf.Variable],
        slots_of: SlotsOf,
        jit_compile: object,
    ) -> None:
        self._optimizer = optimizer
        self._mask_of = mask_of
        self._slots_of = slots_of
        self._plain = optimizer.update_step
        self._plain_all = getattr(optimizer, UPDATE_ALL)
        self._together = Together(self._make)
        self._count = tf_graphs.CountReadOnce(optimizer)
        is_traced = tf_graphs.current() is not None  # an eager step would trace each update
        self._may_compile = is_traced and tf_graphs.may_use_xla(jit_compile)

    def all(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
        learning_rate: tf.Tensor,
    ) -> None:
        """Updates all variables; Keras calls `one` for each in turn."""
        if tf.distribute.has_strategy():  # each device updates its own copies
            self._plain_all(gradients, variables, learning_rate)
            return
        last = key_of(self._optimizer, variables[-1])
        with self._together.up_to(last), self._count.for_all():
            self._plain_all(gradients, variables, learning_rate)

    def one(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Updates a variable."""
        key = key_of(self._optimizer, variable)
        mask = self._mask_of(key)
        size, is_whole = variable.shape.num_elements(), isinstance(gradient, tf.Tensor)
        if mask is None:
            self._count.update(self._plain, gradient, variable, learning_rate)
        elif self._together.takes(size, is_whole) and self._can_compile(variable):
            self._together.add(size, _Update(gradient, variable, learning_rate, mask))
        else:
            self._count.update(self._plain, gradient, variable, learning_rate)
            tf_graphs.zero(variable, mask)
        self._together.passed(key)

    def _can_compile(self, variable: tf.Variable) -> bool:
        """Returns whether one XLA program can update a variable: its inputs are on one device."""
        scalars = (each for each in self._optimizer.variables if not each.shape)
        read = [*scalars, *self._slots_of(variable).values()]
        return self._may_compile and tf_graphs.are_together([variable, *(v.value for v in read)])

    def _make(self, updates: list[_Update]) -> None:
        def update(
            gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor, masks: Sequence[tf.Tensor]
        ) -> None:
            for gradient, mask, each in zip(gradients, masks, updates, strict=True):
                self._plain(gradient, each.variable, learning_rate)
                tf_graphs.zero(each.variable, mask)

        rate = tf.convert_to_tensor(updates[0].learning_rate)
        masks = [each.mask.value() for each in updates]
        tf_programs.run(update, [each.gradient for each in updates], rate, masks)
