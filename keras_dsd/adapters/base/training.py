"""The training adapter, as far as both Kerases agree."""

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from keras_dsd.adapters.base.factors import Values
from keras_dsd.adapters.base.observation import AnyOptimizer, Observation
from keras_dsd.adapters.base.optimizers import OptimizerFunctions, without_loss_scale
from keras_dsd.adapters.base.plain_fits import PlainFits
from keras_dsd.adapters.base.step_state import StepState
from keras_dsd.adapters.base.training_state import TrainingState
from keras_dsd.adapters.base.weight import Weight
from keras_dsd.algorithm.selection import FROZEN
from keras_dsd.protocols import (
    Layer,
    Model,
    SkippedWeight,
    StepExtras,
    Tensor,
    UpdateCount,
    Variable,
    WeightCopies,
)
from keras_dsd.utils.checks import shown

WeightT = TypeVar("WeightT", bound=Weight)


class TrainingAdapter(abc.ABC, Generic[WeightT]):
    """The training of one model.

    Args:
        model: The model that trains.
        weights_of: Returns the weights that DSD prunes in a model, given a function that returns
            its optimizers.
        skipped_of: Returns the weights that DSD leaves dense in a model.
        optimizers: The optimizers of a custom training loop; None in `fit`.

    Raises:
        TypeError: One of `optimizers` is of an unknown type.
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
        self.step_state: StepState[Any] = self._make_step_state()

    @staticmethod
    @abc.abstractmethod
    def known_optimizers() -> tuple[tuple[type, ...], str]:
        """Returns the optimizer classes of a custom training loop, and their package."""

    @abc.abstractmethod
    def _make_observation(self, optimizers: Sequence[AnyOptimizer] | None) -> Observation:
        """Returns the observation of the model's training."""

    @abc.abstractmethod
    def _make_step_state(self) -> StepState[Any]:
        """Returns what the steps of the model keep of variables."""

    def set_factors(self, factors: Values) -> None:
        """Sets the factors of the learning rates within later steps, in order; the last stays."""
        self._observation.factors.set(factors)

    def count_step(self) -> None:
        """Advances to the next factor, in a custom training loop."""
        self._observation.factors.count()

    @property
    def factor(self) -> object:
        """The factor of the learning rates in the current step."""
        return self._observation.factors.now()

    def scaled(self, factor: object) -> contextlib.AbstractContextManager[None]:
        """Multiplies learning rates by an argument of a traced function within a block."""
        return self._observation.factors.use(factor)

    @abc.abstractmethod
    def _hooks(self) -> contextlib.AbstractContextManager[object]:
        """Returns the hooks of a custom training loop."""

    @contextlib.contextmanager
    def observing(self, factors: Values) -> Iterator[None]:
        """Observes a custom training loop within the block, and scales its learning rates."""
        self.set_factors(factors)
        try:
            with self._hooks(), self._observation.active():
                yield
        finally:
            self.set_factors((1.0,))

    @property
    @abc.abstractmethod
    def has_own_train_step(self) -> bool:
        """True if the model has a custom training step, which may not train all weights."""

    def check_extras(self, extras: StepExtras) -> None:
        """Raises ValueError if the optimizers can't train by steps with `extras`."""
        for each in self.optimizers:
            self._check_extras_of(each, extras)

    def _check_extras_of(self, optimizer: Any, extras: StepExtras) -> None:
        name = type(optimizer).__name__
        if extras.ema is not None and getattr(optimizer, "use_ema", False):
            raise ValueError(
                f"Expected an optimizer without use_ema, as a phase has ema={extras.ema}: both "
                f"average the weights. Received: {name}(use_ema=True). Leave one of the two out."
            )
        if extras.sums is None and not extras.regrow_decay:
            return
        what = "regrow_decay" if extras.regrow_decay else "a criterion of gradients"
        if not hasattr(optimizer, "update_step"):
            raise ValueError(
                f"Expected an optimizer of Keras with update_step, as a phase has {what}. "
                f"Received: {name} of {type(optimizer).__module__}. Take one from "
                f"keras.optimizers, or leave it out."
            )
        is_scaled = isinstance(getattr(self.model, "optimizer", None), self._loss_scales)
        if extras.sums is not None and is_scaled:
            raise ValueError(
                f"Expected an optimizer without loss scaling, as a phase has {what}. Received: "
                f"{name} in a LossScaleOptimizer. Train in float32 or bfloat16, or leave it out."
            )
        steps = getattr(optimizer, "gradient_accumulation_steps", None)
        if extras.regrow_decay and steps:
            raise ValueError(
                f"Expected an optimizer that updates in every step, as a phase has regrow_decay. "
                f"Received: {name}(gradient_accumulation_steps={steps}). Leave one of the two out."
            )

    @property
    def _loss_scales(self) -> tuple[type, ...]:
        return self.optimizer_functions.LOSS_SCALES

    def open(self) -> None:
        """Starts a run: observes its training steps."""
        self.plain_fits.forget(self.model)
        self._forget_untrained()
        self._observation.forget()

    def close(self) -> None:
        """Ends a run."""
        self.set_factors((1.0,))

    def forget_updates(self) -> None:
        """Discards observations, as the model was compiled again."""
        self._observation.forget()

    @property
    def weights(self) -> list[WeightT]:
        """The weights that DSD prunes; empty until the model is built."""
        return self._weights_of(self.model, lambda: self.optimizers)

    @property
    @abc.abstractmethod
    def is_chief(self) -> bool:
        """True if this process writes files: the first of those that train the model."""

    def check_same(self, arguments: str) -> None:
        """Does nothing: no process has parts of a weight alone."""
        del arguments

    def is_same(self, digest: bytes) -> bool:
        """Returns whether all processes that train the model have the same digest."""
        del digest
        return True

    @property
    def divided(self) -> list[str]:
        """Paths of the weights of which this process has a part alone: none."""
        return []

    def get_weights(self) -> WeightCopies:
        """Returns copies of the model's weights."""
        return self.state.copies_of(self.model)

    def set_weights(self, copies: WeightCopies) -> None:
        """Sets the model's weights."""
        self.state.set_copies(self.model, copies)

    @property
    def frozen(self) -> list[str]:
        """Paths of the selected weights that are frozen."""
        return [each.path for each in self._skipped_of(self.model) if each.reason == FROZEN]

    @property
    def optimizers(self) -> list[AnyOptimizer]:
        """The optimizers that update weights: observed ones or, before, those of the model."""
        if self._given is not None:
            return self._given
        return self._observation.optimizers or list(
            self.optimizer_functions.optimizers_of(self.model)
        )

    @property
    def is_observed(self) -> bool:
        """True if any update of this run was observed, or is in the trace that it runs."""
        return bool(self._observation.optimizers) or self._observation.is_factor_read

    @property
    def was_skipped(self) -> bool:
        """True if all updates of this run so far were skipped, as the scaled loss overflowed."""
        return self._observation.was_skipped

    def untrained(self) -> list[WeightT]:
        """Returns the weights that are known to be trained by no optimizer.

        Observed optimizers decide. Before the first update, in a run that resumes, optimizers that
        are built for certain variables and have made updates decide.
        """
        if self._given is not None:
            return []
        asked = [each for each in self.weights if not each.is_named]
        if not asked:
            return []  # before they are built, reading variables may fail
        # A weight that is frozen under its mask loses the mask at the end of the phase.
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
        """Selects weights that were left dense again."""

    @property
    def unscaled_optimizers(self) -> list[str]:
        """Names of the optimizers that updated weights without reading a learning rate."""
        observed = self._observation
        working = observed.updating_optimizers
        return [type(each).__name__ for each in working if not observed.scales(each)]

    def update_count(self) -> UpdateCount | None:
        """Returns the count of the optimizer that has made the most steps; None: none counts."""
        counts = map(self.optimizer_functions.update_count, self.optimizers)
        found = [count for count in counts if count is not None]
        return max(found, key=lambda count: count.steps, default=None)

    @property
    @abc.abstractmethod
    def batches_per_execution(self) -> int:
        """Maximum number of batches in one call of the compiled step."""

    def learning_rates(self) -> list[float]:
        """Returns the learning rates, without the factor, of the optimizers that read one."""
        observed, functions = self._observation, self.optimizer_functions
        working = [each for each in observed.updating_optimizers if observed.scales(each)]
        if not observed.optimizers:
            working = self.optimizers
        return [rate for each in working for rate in functions.learning_rates_of(each)]

    def scheduled_rate(self, step: int) -> float | None:
        """Returns the learning rate of the first schedule of an optimizer at a step, if any."""
        functions = self.optimizer_functions
        rates = (functions.scheduled_rate(each, step) for each in self.optimizers)
        return next((rate for rate in rates if rate is not None), None)

    def is_scheduled(self) -> bool:
        """Returns whether a learning rate is a schedule of the step."""
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
