"""The training adapter of either Keras, as far as both are the same."""

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Generic, TypeVar

import numpy as np

from keras_dsd.adapters.base.observation import AnyOptimizer, Observation
from keras_dsd.adapters.base.optimizers import OptimizerFunctions, without_loss_scale
from keras_dsd.adapters.base.plain_fits import PlainFits
from keras_dsd.adapters.base.training_state import TrainingState
from keras_dsd.adapters.base.weight import Weight
from keras_dsd.algorithm.selection import FROZEN
from keras_dsd.protocols import Layer, Model, SkippedWeight, Tensor, Variable
from keras_dsd.utils.checks import shown

WeightT = TypeVar("WeightT", bound=Weight)


class TrainingAdapter(abc.ABC, Generic[WeightT]):
    """The training of one model.

    Args:
        model: The model that trains.
        weights_of: Returns the weights that DSD prunes in a model, given what returns its
            optimizers.
        skipped_of: Returns the weights that DSD leaves dense in a model.
        optimizers: These update it in a custom training loop; None: what `fit` runs does.

    Raises:
        TypeError: One of `optimizers` is of no known kind.
    """

    optimizer_functions: ClassVar[OptimizerFunctions]
    state: ClassVar[TrainingState]
    plain_fits: ClassVar[PlainFits]

    def __init__(
        self,
        model: Model,
        weights_of: Callable[[Layer, Callable[[], Sequence[AnyOptimizer]]], list[WeightT]],
        skipped_of: Callable[[Layer], list[SkippedWeight]],
        optimizers: Sequence[AnyOptimizer] | None,
    ) -> None:
        kinds, expected = self.known_optimizers()
        for each in optimizers or ():
            if not isinstance(each, kinds):
                raise TypeError(
                    f"Expected `optimizer` to be of {expected}, or a list of these. Received: "
                    f"optimizer={shown(each)} of type {type(each).__module__}."
                    f"{type(each).__name__}. Give one of these."
                )
        self.model = model
        self._weights_of = weights_of
        scales = self.optimizer_functions.LOSS_SCALES
        given = [without_loss_scale(each, scales) for each in optimizers or ()]
        self._skipped_of = skipped_of
        self._given = None if optimizers is None else given
        self._observation = self._make_observation(self._given)

    @staticmethod
    @abc.abstractmethod
    def known_optimizers() -> tuple[tuple[type, ...], str]:
        """Returns the optimizer classes of a custom training loop, and their package."""

    @abc.abstractmethod
    def _make_observation(self, optimizers: Sequence[AnyOptimizer] | None) -> Observation:
        """Returns the observation of the model's training."""

    @abc.abstractmethod
    def set_factor(self, factor: float) -> None:
        """Multiplies the learning rates by `factor` within later steps."""

    @abc.abstractmethod
    def _hooks(self) -> contextlib.AbstractContextManager[object]:
        """Returns the hooks that a custom training loop needs in place."""

    @contextlib.contextmanager
    def observing(self, factor: float) -> Iterator[None]:
        """Observes a custom training loop within the block, and multiplies its learning rates."""
        self.set_factor(factor)
        try:
            with self._hooks(), self._observation.active():
                yield
        finally:
            self.set_factor(1.0)

    @property
    @abc.abstractmethod
    def has_own_train_step(self) -> bool:
        """Whether the training step is the user's own, who may leave weights untrained."""

    def open(self) -> None:
        """Starts a run: observes the training steps from now on."""
        self.plain_fits.forget(self.model)
        self._forget_untrained()
        self._observation.forget()

    def close(self) -> None:
        """Ends a run."""
        self.set_factor(1.0)

    def forget_updates(self) -> None:
        """Forgets what was observed: the model was compiled anew."""
        self._observation.forget()

    @property
    def weights(self) -> list[WeightT]:
        """The weights that DSD prunes; empty as long as the model has not built its weights."""
        return self._weights_of(self.model, lambda: self.optimizers)

    def get_weights(self) -> list[np.ndarray]:
        """Returns a copy of the model's weights, in an order that stays."""
        return self.state.weights_of(self.model)

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        """Sets the model's weights."""
        self.state.set_weights(self.model, values)

    @property
    def frozen(self) -> list[str]:
        """Paths of the weights that would be pruned if they were not frozen."""
        return [each.path for each in self._skipped_of(self.model) if each.reason == FROZEN]

    @property
    def optimizers(self) -> list[AnyOptimizer]:
        """The optimizers that update them: those seen at work or, before, those that are held."""
        if self._given is not None:
            return self._given
        return self._observation.optimizers or list(
            self.optimizer_functions.optimizers_of(self.model)
        )

    @property
    def is_observed(self) -> bool:
        """Whether any update of this run was observed, or was in the trace that it runs."""
        return bool(self._observation.optimizers) or self._observation.is_factor_read

    @property
    def was_skipped(self) -> bool:
        """Whether all updates of this run were skipped yet, as a scaled loss has overflown."""
        return self._observation.was_skipped

    def untrained(self) -> list[WeightT]:
        """Returns the weights that no optimizer trains, as far as that is known.

        Optimizers that were seen at work tell. Before, in a run that resumes, those do that were
        built for certain variables, and among these those that have made updates.
        """
        if self._given is not None:
            return []
        asked = [each for each in self.weights if not each.is_named]
        if not asked:
            return []  # before they are built, nothing may ask for variables
        # What is frozen under its mask loses that as the phase ends.
        trainable = {id(each) for each in self.model.trainable_variables}
        asked = [each for each in asked if id(each.variable) in trainable]
        if self._observation.optimizers:
            return [each for each in asked if not self._is_updated(each.variable)]
        if not self.has_own_train_step:
            return []
        functions = self.optimizer_functions
        working = [each for each in self.optimizers if functions.num_updates(each)]
        trained = [
            any(functions.updates(each, weight.variable) for each in working or self.optimizers)
            for weight in asked
        ]
        is_known = any(trained)
        return [w for w, is_trained in zip(asked, trained, strict=True) if is_known > is_trained]

    @abc.abstractmethod
    def _is_updated(self, variable: Variable) -> bool:
        """Returns whether an update of `variable` was observed."""

    @abc.abstractmethod
    def _forget_untrained(self) -> None:
        """Selects the weights again that were left dense."""

    @property
    def unscaled_optimizers(self) -> list[str]:
        """Names of the optimizers that updated weights and did not read a learning rate."""
        observed = self._observation
        working = observed.updating_optimizers
        return [type(each).__name__ for each in working if not observed.scales(each)]

    def learning_rates(self) -> list[float]:
        """Returns the learning rates, as their owner set them, of what reads one."""
        observed, functions = self._observation, self.optimizer_functions
        working = [each for each in observed.updating_optimizers if observed.scales(each)]
        if not observed.optimizers:
            working = self.optimizers
        return [rate for each in working for rate in functions.learning_rates_of(each)]

    def is_scheduled(self) -> bool:
        """Returns whether a learning rate is computed from the step."""
        return any(map(self.optimizer_functions.is_scheduled, self.optimizers))

    def masks_of(self, variables: Sequence[Variable] | None) -> list[Tensor | None]:
        """Returns the active mask of each variable as a boolean tensor, or None."""
        found: dict[int, Tensor] = {}
        for weight in self.weights:
            mask = weight.mask_tensor()
            if mask is not None:
                masked = (weight.variable, *weight.averages(self.optimizers))
                found |= {id(variable): mask for variable in masked}
        given = self.model.trainable_variables if variables is None else variables
        return [found.get(id(each)) for each in given]

    def masked_weights(self) -> list[WeightT]:
        """Returns the weights that have an active mask."""
        return [weight for weight in self.weights if weight.is_masked]
