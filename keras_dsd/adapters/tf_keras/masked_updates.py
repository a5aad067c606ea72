"""Multiplies masked weights by their masks, as part of the optimizer's update."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import tensorflow as tf
import tf_keras

from keras_dsd.adapters import tf_graphs, tf_programs
from keras_dsd.adapters.base.joined_updates import Together
from keras_dsd.adapters.base.observation import AnyOptimizer
from keras_dsd.adapters.base.private_names import (
    UPDATE_GIVEN,
    UPDATE_ONE,
    UPDATE_ONE_BY_XLA,
    jit_compile_of,
    unique_id_of,
    whole_of,
)
from keras_dsd.adapters.tf_keras.optimizer import Optimizer, slots_of
from keras_dsd.adapters.tf_keras.weight import Weight
from keras_dsd.protocols import Step
from keras_dsd.utils.patches import Patch, put

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices
# Unique key of a variable.
Key: TypeAlias = object


class MaskedUpdates:
    """Updates of one model while weights are masked; in dense phases, without weights.

    An optimizer with the update step of Keras masks within it. Other variables are masked at the
    end of the step: those of legacy optimizers and of optimizers in a custom function, those with a
    user constraint, which is applied first, and all that may be updated again.
    """

    def __init__(
        self,
        model: tf_keras.Model,
        weights: Sequence[Weight],
        optimizers: Callable[[], Sequence[AnyOptimizer]],
    ) -> None:
        self._model = model
        self._weights = weights
        self._optimizers = optimizers
        free = [weight for weight in weights if weight.variable.constraint is None]
        self._by_key = {_key(weight.variable): weight for weight in free}
        self._masked: set[Key] = set()
        self._restore: dict[int, Callable[[], None]] = {}
        self._graph: tf.Graph | None = None

    def before(self, each: AnyOptimizer) -> None:
        """Patches an optimizer to mask within its updates, until the step ends."""
        is_in_step = tf_graphs.is_within(self._graph)
        if is_in_step and id(each) not in self._restore and hasattr(each, UPDATE_ONE):
            self._restore[id(each)] = put(self._patches(each))

    def after(self, each: AnyOptimizer, is_outermost: bool) -> None:
        """Records that a custom optimizer may have updated weights after the masks."""
        if is_outermost and is_the_users(type(each)):
            self._masked.clear()

    def finish(self) -> None:
        """Removes the patches at the end of a step."""
        while self._restore:
            self._restore.popitem()[1]()

    def around(self, train_step: Step) -> Step:
        """Returns a `train_step` that masks the weights that no optimizer has masked."""
        may_update = has_own_train_step(self._model)

        def step(data: object) -> object:
            self._graph = tf_graphs.current()
            logs = train_step(data)
            if may_update:
                self._masked.clear()
            self.mask_rest()
            return logs

        return step

    def mask_rest(self) -> None:
        """Masks weights that no optimizer has masked, and the moving averages of all."""
        for weight in self._weights:
            mask = weight.mask_variable
            if mask is None:
                continue
            if _key(weight.variable) not in self._masked:
                tf_graphs.update_replicas(weight.variable, tf_graphs.zero, mask)
            for average in weight.averages(self._optimizers()):  # may be updated before masking
                tf_graphs.update_replicas(average, tf_graphs.zero, mask)

    def _patches(self, each: Optimizer) -> list[Patch]:
        updates = _Updates(each, self._by_key, self._masked, self._model)
        patches: dict[str, Callable[..., object]] = {UPDATE_ONE_BY_XLA: updates.one_by_xla}
        if self._weights:
            patches |= {UPDATE_ONE: updates.one, UPDATE_GIVEN: updates.all}
        return [Patch(vars(each), name, value) for name, value in patches.items()]


def has_own_train_step(model: tf_keras.Model) -> bool:
    """Returns whether the model has a custom training step."""
    return "train_step" in vars(model) or is_the_users(type(model).train_step)


def is_the_users(member: object) -> bool:
    """Returns whether a class or a method is not one of Keras."""
    return not getattr(member, "__module__", "").startswith(tf_keras.__name__ + ".")


class _Update(NamedTuple):
    """One update of a variable, followed by its mask."""

    gradient: Gradient
    variable: tf.Variable
    mask: tf.Variable


class _Updates:
    """Masked updates of one optimizer, compiled if that is faster.

    Args:
        optimizer: The optimizer.
        weights: The weights to mask, by key.
        masked: A set to which it adds the keys of the weights that it masks.
        model: The model that trains.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        weights: Mapping[Key, Weight],
        masked: set[Key],
        model: tf_keras.Model,
    ) -> None:
        self._optimizer = optimizer
        self._weights = weights
        self._masked = masked
        self._plain = getattr(optimizer, UPDATE_ONE)
        # A new function: the optimizer's keeps its trace, of a step with other masks and factors.
        self._plain_by_xla = tf.function(self._without_mask, jit_compile=True)
        self._plain_all = getattr(optimizer, UPDATE_GIVEN)
        self._together = Together(self._make)
        self._count = tf_graphs.CountReadOnce(optimizer)
        self._factor = tf_graphs.factors_of(model).variable
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        forbidden = has_gpu and not getattr(optimizer, "jit_compile", True)
        # XLA may not support a custom optimizer.
        self._may_compile = (
            not is_the_users(type(optimizer))
            and not forbidden
            and tf_graphs.current() is not None  # an eager step would trace each update
            and tf_graphs.may_use_xla(jit_compile_of(model))
        )

    def all(self, grads_and_vars: Iterable[tuple[Gradient, tf.Variable]]) -> tf.Operation:
        """Updates all variables; tf_keras calls `one` for each, then counts the step."""
        pairs = list(grads_and_vars)
        if tf.distribute.has_strategy():  # each device updates its own copies
            return self._plain_all(pairs)
        with self._together.up_to(_key(pairs[-1][1])), self._count.for_all():
            return self._plain_all(pairs)

    def one(self, gradient: Gradient, variable: tf.Variable) -> None:
        """Updates a variable."""
        self._update(self._plain, gradient, variable)

    def one_by_xla(self, gradient: Gradient, variable: tf.Variable, key: Key) -> None:
        """Updates a variable of an optimizer that compiles its updates."""
        self._update(self._plain_by_xla, gradient, variable, key)

    def _update(
        self, otherwise: Callable[..., None], gradient: Gradient, variable: tf.Variable, *rest: Key
    ) -> None:
        key = _key(variable)
        weight = self._weights.get(key)
        mask = None if weight is None else weight.mask_variable
        if mask is None:
            self._count.update(otherwise, gradient, variable, *rest)
        else:
            self._masked.add(key)
            self._masked_update(gradient, variable, mask)
        self._together.passed(key)

    def _masked_update(self, gradient: Gradient, variable: tf.Variable, mask: tf.Variable) -> None:
        size, is_whole = variable.shape.num_elements(), isinstance(gradient, tf.Tensor)
        if self._together.takes(size, is_whole) and self._can_compile(variable):
            self._together.add(size, _Update(gradient, variable, mask))
        else:
            self._count.update(self._plain, gradient, variable)
            tf_graphs.zero(variable, mask.value())

    def _without_mask(self, gradient: Gradient, variable: tf.Variable, key: Key) -> None:
        del key  # one trace for each variable
        self._plain(gradient, variable)

    def _can_compile(self, variable: tf.Variable) -> bool:
        """Returns whether one XLA program can update a variable: its inputs are on one device."""
        held = self._optimizer.variables
        scalars = [each for each in (held() if callable(held) else held) if not each.shape]
        slots = slots_of(self._optimizer, variable).values()
        return self._may_compile and tf_graphs.are_together(
            [variable, self._factor, *scalars, *slots]
        )

    def _make(self, updates: list[_Update]) -> None:
        def update(gradients: Sequence[Gradient], masks: Sequence[tf.Tensor]) -> None:
            for gradient, mask, each in zip(gradients, masks, updates, strict=True):
                self._plain(gradient, each.variable)
                tf_graphs.zero(each.variable, mask)

        masks = [each.mask.value() for each in updates]
        tf_programs.run(update, [each.gradient for each in updates], masks)


def _key(variable: tf.Variable) -> Key:
    """Returns the key of a variable and each of its replicas, whose handles refer to it."""
    if not isinstance(variable, tf.distribute.DistributedValues):
        variable = whole_of(variable)
    return unique_id_of(variable)
