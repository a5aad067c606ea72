"""State of training steps, outside of the model and its optimizers.

Moving averages of weights, sums over gradients, and masks of regrown weights. A phase without them
has a step without this state.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from keras_dsd.adapters.base.observation import BeforeUpdate
from keras_dsd.adapters.base.weight import Weight
from keras_dsd.protocols import Model, StepExtras, Tensor, Variable, WeightCopies

# State of one variable in a backend.
Held = TypeVar("Held")


class StepState(abc.ABC, Generic[Held]):
    """Arrays for the variables of one model, which its steps update.

    Args:
        model: The model that trains.
        weights: Returns the weights that DSD prunes.
    """

    def __init__(self, model: Model, weights: Callable[[], Sequence[Weight]]) -> None:
        self._model = model
        self._weights = weights
        self._averages: dict[int, tuple[Variable, Held]] = {}
        self._sums: dict[int, tuple[Variable, Held]] = {}
        self._regrown: dict[int, tuple[Variable, Held]] = {}

    def start_averages(self) -> None:
        """Starts moving averages of all trainable variables, at their current values."""
        self._sync()
        self._averages = {
            id(each): (each, self._copy(each)) for each in self._model.trainable_variables
        }

    def apply_averages(self) -> None:
        """Sets the variables to their moving averages, and frees these."""
        for variable, held in self._averages.values():
            self._assign(variable, held)
        self._averages = {}

    def start_sums(self) -> None:
        """Starts sums of the weights' gradients at zero."""
        variables = [each.variable for each in self._weights()]
        if [*self._sums] == [*map(id, variables)]:  # traced steps read them
            for _, held in self._sums.values():
                self._clear(held)
        else:
            self._sums = {id(each): (each, self._zeros(each)) for each in variables}

    def sums(self) -> list[np.ndarray]:
        """Returns the sums of all weights, in their order."""
        return [self._read(self._sums[id(each.variable)][1]) for each in self._weights()]

    def set_regrown(self, masks: Sequence[tuple[Any, Tensor]]) -> None:
        """Sets the masks before regrowth; an empty list frees their memory."""
        self._regrown = {
            id(each.variable): (each.variable, self._mask(each, mask)) for each, mask in masks
        }

    def kept(self, extras: StepExtras) -> WeightCopies:
        """Returns moving averages and masks of regrown weights, as far as `extras` need them."""
        held = self.held(dataclasses.replace(extras, sums=None))
        return WeightCopies.of(list(map(self._parts_of, held)), self._process())

    def set_kept(self, extras: StepExtras, copies: WeightCopies) -> None:
        """Sets what `kept` returned, after both have been started."""
        held = self.held(dataclasses.replace(extras, sums=None))
        for each, parts in zip(held, copies.weights(), strict=True):
            self._set_parts(each, parts)

    def held(self, extras: StepExtras) -> list[Held]:
        """Returns the state that a step with `extras` reads or updates, in a fixed order."""
        return [held for _, held in self._used(extras)]

    def hook(self, extras: StepExtras) -> BeforeUpdate | None:
        """Returns a function to call before each update of a step with `extras`, or None."""
        if extras.sums is None and not extras.regrow_decay:
            return None

        def before_update(
            optimizer: Any, variables: Sequence[object], gradients: Sequence[object]
        ) -> None:
            for variable, gradient in zip(variables, gradients, strict=True):
                key = id(variable)
                if extras.sums is not None and key in self._sums:
                    self._add(*self._sums[key], gradient, extras.sums == "movement")
                if extras.regrow_decay and key in self._regrown:
                    rate = optimizer.learning_rate
                    self._decay(*self._regrown[key], rate, extras.regrow_decay)

        return before_update

    def end_step(self, extras: StepExtras, values: Mapping[int, Any] | None = None) -> None:
        """Updates the moving averages at the end of a step.

        Args:
            extras: Extras of the step.
            values: New values of the variables, by id; None if the variables hold them.
        """
        if extras.ema is None:
            return
        for key, (variable, held) in self._averages.items():
            if values is None or key in values:
                new = variable if values is None else values[key]
                self._average(held, new, extras.ema)

    def _used(self, extras: StepExtras) -> Iterator[tuple[Variable, Held]]:
        if extras.ema is not None:
            yield from self._averages.values()
        if extras.sums is not None:
            yield from self._sums.values()
        if extras.regrow_decay:
            yield from self._regrown.values()

    def _sync(self) -> None:
        """Updates the variables if training keeps their values elsewhere."""

    @abc.abstractmethod
    def _copy(self, variable: Any) -> Held:
        """Returns a copy of a variable's values."""

    @abc.abstractmethod
    def _zeros(self, variable: Any) -> Held:
        """Returns zeros of a variable's shape, float32, which are summed over replicas."""

    @abc.abstractmethod
    def _mask(self, weight: Any, mask: Any) -> Held:
        """Returns a mask, on the device of the weight."""

    @abc.abstractmethod
    def _read(self, held: Held) -> np.ndarray:
        """Returns the values on the host."""

    def _parts_of(self, held: Held) -> Mapping[str, np.ndarray]:
        """Returns copies of the values by index, which is empty for all of them."""
        return {"": self._read(held)}

    def _set_parts(self, held: Held, parts: Mapping[str, np.ndarray]) -> None:
        """Sets the values to copies of them."""
        self._write(held, parts[""])

    def _process(self) -> tuple[int, int]:
        """Returns the index of this process, and the number of processes."""
        return 0, 1

    @abc.abstractmethod
    def _clear(self, held: Held) -> None:
        """Sets the values to zero."""

    @abc.abstractmethod
    def _write(self, held: Held, value: np.ndarray) -> None:
        """Sets the values."""

    @abc.abstractmethod
    def _assign(self, variable: Any, held: Held) -> None:
        """Sets a variable to a value of the state."""

    @abc.abstractmethod
    def _average(self, held: Held, value: Any, momentum: float) -> None:
        """Moves an average towards a value: within a step."""

    @abc.abstractmethod
    def _add(self, variable: Any, held: Held, gradient: Any, is_movement: bool) -> None:
        """Adds a gradient, or minus its product with the variable, to a sum: within a step."""

    @abc.abstractmethod
    def _decay(self, variable: Any, held: Held, learning_rate: Any, decay: float) -> None:
        """Decays the entries of a variable where a mask is False: within a step."""


def averaged(average: Any, value: Any, momentum: float) -> Any:
    """Returns a moving average after a step, as `use_ema` of Keras optimizers."""
    return average * momentum + value * (1 - momentum)
