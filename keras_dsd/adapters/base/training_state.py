"""The complete training state of a model, as far as both Kerases agree."""

import abc
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from keras_dsd.adapters.base.layers import preparing_inputs
from keras_dsd.adapters.base.optimizers import OptimizerFunctions
from keras_dsd.protocols import Model, Variable, WeightCopies


class TrainingState(abc.ABC):
    """Reads and writes the state of models."""

    def __init__(self, keras: ModuleType, optimizer_functions: OptimizerFunctions) -> None:
        self._keras = keras
        self._functions = optimizer_functions

    @abc.abstractmethod
    def begin(self, seed: int) -> None:
        """Seeds Python, NumPy and the backend, and resets the names that Keras generates."""

    @abc.abstractmethod
    def is_built(self, model: Model) -> bool:
        """Returns whether all weights are built."""

    @abc.abstractmethod
    def variables(self, model: Model) -> list[Variable]:
        """Returns the variables that hold the state."""

    @abc.abstractmethod
    def weights(self, model: Model) -> list[Variable]:
        """Returns the variables that are the model's weights."""

    @abc.abstractmethod
    def copy_adapted(self, layer: Any, to: Any) -> None:
        """Copies the state of `adapt` to a layer of the same config."""

    def sync(self, model: Model) -> None:
        """Updates the variables if training keeps their values elsewhere."""
        del model

    def seed(self, value: int) -> None:
        """Seeds Python, NumPy and the backend."""
        self._keras.utils.set_random_seed(value)

    def is_known(self, model: Model) -> bool:
        """Returns whether `read` covers the full state: only with exactly one optimizer."""
        return len(self._functions.optimizers_of(model)) == 1

    def num_updates(self, model: Model) -> int:
        """Returns the number of updates that the optimizers have made."""
        return sum(map(self._functions.num_updates, self._functions.optimizers_of(model)))

    def read(self, model: Model) -> list[np.ndarray]:
        """Returns a copy of the state, between two calls of `fit`."""
        return [self._functions.to_numpy(each) for each in self.variables(model)]

    def write(self, model: Model, values: Sequence[np.ndarray]) -> None:
        """Sets the state of a model of the same architecture.

        Raises:
            ValueError: Its architecture differs.
        """
        for variable, value in zip(self.variables(model), values, strict=True):
            variable.assign(value)

    def weights_of(self, model: Model) -> list[np.ndarray]:
        """Returns a copy of the weights, also during `fit`."""
        self.sync(model)
        return [self._functions.to_numpy(each) for each in self.weights(model)]

    def set_weights(self, model: Model, values: Sequence[np.ndarray]) -> None:
        """Sets the weights, also during `fit`."""
        self.sync(model)
        for variable, value in zip(self.weights(model), values, strict=True):
            variable.assign(value)

    def copies_of(self, model: Model) -> WeightCopies:
        """Returns copies of what this process has of each weight, also during `fit`."""
        self.sync(model)
        return WeightCopies.of(list(map(self.parts_of, self.weights(model))), self.process())

    def set_copies(self, model: Model, copies: WeightCopies) -> None:
        """Sets the weights to copies of them, also during `fit`."""
        self.sync(model)
        for variable, parts in zip(self.weights(model), copies.weights(), strict=True):
            self.set_parts(variable, parts)

    def parts_of(self, variable: Variable) -> dict[str, np.ndarray]:
        """Returns copies of a variable's values by their index, which is empty for all of them."""
        return {"": self._functions.to_numpy(variable)}

    def set_parts(self, variable: Variable, parts: Mapping[str, np.ndarray]) -> None:
        """Sets the values of a variable to copies of them."""
        variable.assign(parts[""])

    def process(self) -> tuple[int, int]:
        """Returns the index of this process, and the number of processes."""
        return 0, 1

    def renewed(self, model: Model) -> Model:
        """Returns a model with the same config and compile options, and fresh weights.

        State of `adapt`, such as a vocabulary, is copied: a config does not hold it.
        """
        config = self._keras.saving.serialize_keras_object(model)
        made: Model = self._keras.saving.deserialize_keras_object(config, safe_mode=False)
        layers = [preparing_inputs(each, self._keras.layers) for each in (model, made)]
        for layer, new in zip(*layers, strict=True):
            if layer.built and not new.built:
                new.build_from_config(layer.get_build_config())
            self.copy_adapted(layer, new)
        return made
