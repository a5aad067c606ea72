"""PrunableWeight over a variable of either Keras."""

import abc
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import ClassVar

import numpy as np

from keras_dsd.adapters.base.device_arrays import ArrayOperations
from keras_dsd.adapters.base.layers import layout_of
from keras_dsd.adapters.base.observation import AnyOptimizer
from keras_dsd.adapters.base.optimizers import OptimizerFunctions
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.linearity import is_of_positions, words
from keras_dsd.algorithm.selection import PREPARES, Selection, rest_message
from keras_dsd.protocols import Layer, SkippedWeight, Tensor, Variable
from keras_dsd.utils.warn import warn


class Candidate(abc.ABC):
    """A weight that may be selected; the argument of a `sparsity` callable.

    Args:
        variable: The kernel.
        path: Its path in the model.
        short_path: The path without the model name.
        layer: The layer that holds it.
    """

    # The module `layers` of the adapter's Keras.
    layers: ClassVar[ModuleType]

    def __init__(self, variable: Variable, path: str, short_path: str, layer: Layer) -> None:
        self.variable = variable
        self.path = path
        self.short_path = short_path
        self.shape = tuple(variable.shape)
        self.layer = layer

    @functools.cached_property
    def layout(self) -> Layout:
        """Its input and output axes, which only patterns use."""
        return layout_of(self.layer, len(self.shape), self.layers)

    @property
    def is_table_of_positions(self) -> bool:
        """True if it belongs to an Embedding named for positions, which are added to words."""
        names = (self.layer.name, type(self.layer).__name__)
        is_table = isinstance(self.layer, self.layers.Embedding)
        is_asked = hasattr(self.layer, "get_prunable_weights")
        return is_table and not is_asked and is_of_positions(*map(words, names))

    @abc.abstractmethod
    def numpy(self) -> np.ndarray:
        """Returns a copy of the values, in the dtype the optimizer updates."""


class Weight(abc.ABC):
    """A weight that DSD prunes.

    Args:
        candidate: The selected weight.
        sparsity: Its target sparsity.
        selection: The arguments of `apply`.
        optimizers: Returns the optimizers whose slots are reset.
    """

    optimizer_functions: ClassVar[OptimizerFunctions]

    def __init__(
        self,
        candidate: Candidate,
        sparsity: float,
        selection: Selection,
        optimizers: Callable[[], Sequence[AnyOptimizer]],
    ) -> None:
        self.variable = candidate.variable
        self.path = candidate.path
        self.short_path = candidate.short_path
        self.shape = candidate.shape
        self.sparsity = sparsity
        self.pattern = selection.pattern
        self.scope = selection.scope
        self.is_named = selection.names(candidate)
        self._candidate = candidate
        self._optimizers = optimizers

    @property
    def layout(self) -> Layout:
        """Its input and output axes."""
        return self._candidate.layout

    @property
    @abc.abstractmethod
    def arrays(self) -> ArrayOperations:
        """Operations on its tensors."""

    @abc.abstractmethod
    def tensor(self) -> Tensor:
        """Returns the values, on their device."""

    @property
    @abc.abstractmethod
    def mask(self) -> np.ndarray | None:
        """Boolean mask of the kept weights; None in dense phases."""

    @property
    @abc.abstractmethod
    def is_masked(self) -> bool:
        """True if a mask is active."""

    @abc.abstractmethod
    def mask_tensor(self) -> Tensor | None:
        """Returns the active mask as a boolean tensor of the backend, or None."""

    @abc.abstractmethod
    def apply_mask(self, mask: Tensor) -> None:
        """Sets the active mask."""

    @abc.abstractmethod
    def remove_mask(self) -> None:
        """Removes the active mask."""

    @abc.abstractmethod
    def leave_dense(self) -> None:
        """Leaves the weight dense until the next run, as no optimizer trains it."""

    def numpy(self) -> np.ndarray:
        """Returns a copy of the values, in the dtype the optimizer updates."""
        return self._candidate.numpy()

    def copy(self) -> Tensor:
        """Returns a copy of the values, on their device."""
        return self.arrays.copy(self.tensor())

    def assign(self, value: np.ndarray | Tensor) -> None:
        """Sets the values."""
        self.sync()
        self.variable.assign(value)

    def zero(self, mask: Tensor) -> None:
        """Sets the values to zero where `mask` is False."""
        self.sync()
        self.optimizer_functions.fill(self.variable, mask, 0.0)

    def sync(self) -> None:  # noqa: B027 - most variables are up to date
        """Updates the variable, where training keeps its values elsewhere."""

    def reset_slots(self, mask: Tensor) -> None:
        """Resets the slots of the optimizers to their initial value where `mask` is False."""
        self.sync()
        for each in self._optimizers():
            self.optimizer_functions.reset_slots(each, self.variable, mask)

    def reset_averages(self, mask: Tensor) -> None:
        """Sets the moving averages of the weight to zero where `mask` is False."""
        self.sync()
        for average in self.averages(self._optimizers()):
            self.optimizer_functions.fill(average, mask, 0.0)

    def averages(self, optimizers: Sequence[AnyOptimizer]) -> Iterator[Variable]:
        """Yields the moving averages that `optimizers` keep of the weight."""
        for each in optimizers:
            average = self.optimizer_functions.average_of(each, self.variable)
            if average is not None:
                yield average

    def __repr__(self) -> str:
        return f"<Weight {self.path} shape={self.shape} sparsity={self.sparsity:g}>"


def skipped_weights(
    pruned: Iterable[Weight],
    others: Iterable[tuple[Variable, str, str]],
    preparing: Iterable[Layer],
) -> list[SkippedWeight]:
    """Returns the weights of a model that are never pruned, each once.

    Args:
        pruned: The weights that are pruned.
        others: Variables, their paths and reasons why they stay dense; the first reason for a
            variable counts, and pruned variables are ignored.
        preparing: Preprocessing layers, whose state need not be a variable.
    """
    taken = {id(weight.variable) for weight in pruned}
    found = []
    for variable, path, reason in others:
        if id(variable) not in taken:
            taken.add(id(variable))
            found.append(SkippedWeight(path, tuple(variable.shape), reason))
    return found + [SkippedWeight(layer.name, (0,), PREPARES) for layer in preparing]


def warn_of_rest(
    model: Layer, selection: Selection, pruned: Iterable[Weight], skipped: Iterable[SkippedWeight]
) -> None:
    """Warns if less than half of a model is selected, without weights left dense by request."""
    num_selected = sum(math.prod(weight.shape) for weight in pruned)
    rest = [(each.path, each.size, each.reason) for each in skipped if len(each.shape) > 1]
    message = rest_message(selection, model.name, num_selected, rest)
    if message is not None:
        warn(message)
