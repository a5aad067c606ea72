"""Ends each update of a masked weight in `weight * mask`, as part of the optimizer's own update."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import tensorflow as tf
from tf_keras.src.utils import tf_utils

from keras_dsd.adapters.base.joined_updates import Together
from keras_dsd.adapters.tf_keras.optimizer import Optimizer
from keras_dsd.adapters.tf_keras.weight import Weight
from keras_dsd.protocols import Step
from keras_dsd.utils.patches import Patch

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices
# The unique id of a variable.
Key: TypeAlias = str


class MaskedUpdates:
    """Updates of one model while weights are masked.

    An optimizer with Keras's update step masks within it. Variables that no such step updates
    (legacy optimizers, optimizers that the model hides), and those with a constraint of the
    user's, which comes first, are masked at the end of the training step.
    """

    def __init__(self, weights: list[Weight], optimizers: Sequence[Optimizer]) -> None:
        self._weights = weights
        self._optimizers = optimizers
        free = [weight for weight in weights if weight.variable.constraint is None]
        self._by_key = {_key(weight.variable): weight for weight in free}
        self._masked: set[Key] = set()

    def patches(self) -> list[Patch]:
        """Returns the patches of the optimizers while a step is traced or run."""
        found = []
        for each in self._optimizers:
            if hasattr(each, "_update_step"):
                updates = _Updates(each, self._by_key, self._masked)
                found += [
                    Patch(vars(each), "_update_step", updates.one),
                    Patch(vars(each), "_update_step_xla", updates.one_by_xla),
                    Patch(vars(each), "_internal_apply_gradients", updates.all),
                ]
        return found

    def around(self, train_step: Step) -> Step:
        """Returns `train_step`, with the masking that the optimizers have left to do."""

        def step(data: object) -> object:
            logs = train_step(data)
            self.mask_rest()
            return logs

        return step

    def mask_rest(self) -> None:
        """Sets weights to zero that no optimizer has masked, and the averages of all."""
        for weight in self._weights:
            if _key(weight.variable) not in self._masked:
                _mask(weight.variable, weight.mask_variable)
            for average in weight.averages(self._optimizers):  # may be updated before the mask
                _mask(average, weight.mask_variable)


class _Update(NamedTuple):
    """One update of a variable that is followed by its mask."""

    gradient: Gradient
    variable: tf.Variable
    mask: tf.Variable
    key: Key


class _Updates:
    """Masked updates of one optimizer, compiled where that pays.

    Args:
        optimizer: The optimizer.
        weights: The weights to mask, by key.
        masked: A set to which it adds the keys of those that it masks.
    """

    def __init__(
        self, optimizer: Optimizer, weights: Mapping[Key, Weight], masked: set[Key]
    ) -> None:
        self._optimizer = optimizer
        self._weights = weights
        self._masked = masked
        self._plain = optimizer._update_step
        self._plain_by_xla = optimizer._update_step_xla
        self._plain_all = optimizer._internal_apply_gradients
        self._compiled = tf.function(self._with_masks, jit_compile=True)
        self._together = Together(self._make)
        # XLA may not take an optimizer of the user's own.
        known = type(optimizer).__module__.startswith("tf_keras.")
        self._can_compile = known and tf_utils.can_jit_compile()

    def all(self, grads_and_vars: Iterable[tuple[Gradient, tf.Variable]]) -> tf.Operation:
        """Updates all variables; tf_keras calls `one` for each, then counts the step."""
        pairs = list(grads_and_vars)
        if tf.distribute.has_strategy():  # each device updates its copies by itself
            return self._plain_all(pairs)
        with self._together.up_to(_key(pairs[-1][1])):
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
        if weight is None:
            otherwise(gradient, variable, *rest)
        else:
            self._masked.add(key)
            self._masked_update(gradient, variable, weight.mask_variable, key)
        self._together.passed(key)

    def _masked_update(
        self, gradient: Gradient, variable: tf.Variable, mask: tf.Variable, key: Key
    ) -> None:
        size, is_whole = variable.shape.num_elements(), isinstance(gradient, tf.Tensor)
        if self._can_compile and self._together.takes(size, is_whole):
            self._together.add(size, _Update(gradient, variable, mask, key))
        else:
            self._plain(gradient, variable)
            variable.assign(variable * mask.value())

    def _make(self, updates: list[_Update]) -> None:
        gradients, variables, masks, keys = zip(*updates, strict=True)
        self._compiled(gradients, variables, [mask.value() for mask in masks], keys)

    def _with_masks(
        self,
        gradients: Sequence[Gradient],
        variables: Sequence[tf.Variable],
        masks: Sequence[tf.Tensor],
        keys: Sequence[Key],
    ) -> None:
        del keys  # a trace for each choice of variables
        for gradient, variable, mask in zip(gradients, variables, masks, strict=True):
            self._plain(gradient, variable)
            variable.assign(variable * mask)


def _mask(variable: tf.Variable, mask: tf.Variable) -> None:
    """Sets a variable to zero where `mask` is 0, on each replica by itself."""

    def on_all(strategy: tf.distribute.Strategy, variable: tf.Variable, mask: tf.Variable) -> None:
        strategy.extended.update(variable, _multiply, args=(mask,), group=False)

    # A loop of the user's own may be outside of the scope that the variable was made in.
    strategy = getattr(variable, "distribute_strategy", None) or tf.distribute.get_strategy()
    tf.__internal__.distribute.interim.maybe_merge_call(on_all, strategy, variable, mask)


def _multiply(variable: tf.Variable, mask: tf.Variable) -> None:
    variable.assign(variable * mask)


def _key(variable: tf.Variable) -> Key:
    """Returns what names a variable and each of its replicas, whose handles know the whole."""
    if not isinstance(variable, tf.distribute.DistributedValues):
        container = getattr(variable.handle, "_distributed_container", None)
        variable = variable if container is None else container()
    return variable._unique_id
