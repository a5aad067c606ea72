"""The trainer: gives a model in `fit` a compiled training step for each kind of phase."""

import hashlib
import sys
import types
from collections.abc import Callable, Sequence

import numpy as np

from keras_dsd.algorithm.learning_rates import LearningRate
from keras_dsd.engine.batch_norm import Batches, estimate
from keras_dsd.engine.messages import learning_rate_text
from keras_dsd.protocols import (
    Model,
    OpenRun,
    PrunableWeight,
    Step,
    StepExtras,
    StepState,
    TrainingAdapter,
    UpdateCount,
    WeightCopies,
    open_run_of,
)

NO_EXTRAS = StepExtras()


class Trainer:
    """One model during a `fit`.

    Both Kerases read `model.train_function` at every step. So there are two compiled steps: a
    masked one, and a dense one without any pruning operation for all dense phases. The only
    attribute that is set on the model hides a method of its class; `close` removes it.
    """

    def __init__(self, model: Model, adapter: TrainingAdapter) -> None:
        self.model = model
        self._adapter = adapter
        self._history: object = None
        self._steps: dict[tuple[frozenset[str], StepExtras], dict[str, Step | None]] = {}
        self._current: Step | None = None
        self._masked: frozenset[str] = frozenset()
        self._extras = NO_EXTRAS
        self._is_unused = self._is_compiled_anew = False
        self._after_first_step: Callable[[], None] | None = None
        self._before_remade_step: Callable[[], frozenset[str]] | None = None

    @property
    def weights(self) -> Sequence[PrunableWeight]:
        """The weights that DSD prunes; empty until the model is built."""
        return self._adapter.weights

    @property
    def frozen(self) -> Sequence[str]:
        """Paths of the selected weights that are frozen."""
        return self._adapter.frozen

    def check(self) -> None:
        """Raises ValueError if DSD can't train the model, before anything is changed."""
        earlier = open_run_of(self.model)
        if isinstance(earlier, _Remake) and earlier.is_of_this_fit():
            raise ValueError(
                f"Expected one DSDSchedule in a fit. Received: a second one, for "
                f"model={self.model.name!r}. Put all phases into one: DSDSchedule(phases=[...])."
            )
        self._adapter.check()

    def open(
        self,
        after_first_step: Callable[[], None],
        before_remade_step: Callable[[], frozenset[str]],
    ) -> None:
        """Intercepts `model.make_train_function`, up to `close`.

        Args:
            after_first_step: Called once, after the first training step.
            before_remade_step: Called if the model is compiled again between the start of an epoch
                and its first step; returns the paths of the masked weights.
        """
        abandon(self.model)
        self._history = getattr(self.model, "history", None)
        self._after_first_step = after_first_step
        self._before_remade_step = before_remade_step
        vars(self.model)["make_train_function"] = _Remake(self)
        self._adapter.open()

    def close(self) -> None:
        """Restores the model's own method and step."""
        vars(self.model).pop("make_train_function", None)
        self.model.train_function = self._current = None
        self._steps.clear()
        self._adapter.close()

    @property
    def is_chief(self) -> bool:
        """True if this process writes files, among those that train the model."""
        return self._adapter.is_chief

    def check_same(self, arguments: str) -> None:
        """Raises ValueError where processes that have to act together have other arguments."""
        self._adapter.check_same(arguments)

    def check_same_masks(self, masks: Sequence[np.ndarray]) -> None:
        """Raises ValueError if processes that train the model together have other masks."""
        found = hashlib.blake2b(digest_size=8)
        for mask in masks:
            found.update(np.packbits(mask).tobytes())
        if not self._adapter.is_same(found.digest()):
            raise ValueError(
                f"Expected a `criterion` that prunes the same weights in every process. Received: "
                f"other masks in one of the processes that train model={self.model.name!r}. No "
                f"weight is changed. Let the function depend on nothing but the weight: give "
                f"random numbers a seed, and read no data of one process."
            )

    @property
    def divided(self) -> Sequence[str]:
        """Paths of the weights of which this process has a part alone."""
        return self._adapter.divided

    def get_weights(self) -> WeightCopies:
        """Returns copies of the model's weights."""
        return self._adapter.get_weights()

    def set_weights(self, copies: WeightCopies) -> None:
        """Sets the model's weights."""
        self._adapter.set_weights(copies)

    def reset_optimizers(self) -> None:
        """Resets the state of the optimizers, except for moving averages of weights."""
        self._adapter.reset_optimizers()

    def estimate_batch_norms(self, batches: Batches, advance: Callable[[str], None]) -> str:
        """Estimates BatchNormalization statistics, and returns a description for the log message.

        Raises:
            ValueError: There are no batches.
        """
        layers = self._adapter.batch_norms
        number = estimate(layers, self._adapter.forward, batches, advance) if layers else 0
        return (
            f"BatchNormalization statistics of {len(layers)} layers estimated from {number} batches"
        )

    @property
    def is_observed(self) -> bool:
        """True if an optimizer was seen to update weights in this run."""
        return self._adapter.is_observed

    @property
    def was_skipped(self) -> bool:
        """True if all updates of this run so far were skipped, as the scaled loss overflowed."""
        return self._adapter.was_skipped

    @property
    def may_leave_untrained(self) -> bool:
        """True if the first step may show that no optimizer trains some of the weights."""
        return self._adapter.has_own_train_step and not self._adapter.is_observed

    def untrained(self) -> Sequence[PrunableWeight]:
        """Returns the weights that are known to be trained by no optimizer."""
        return self._adapter.untrained()

    def leave_untrained_dense(self) -> list[str]:
        """Leaves these weights dense, and returns their paths."""
        self._notice_compile()
        untrained = self._adapter.untrained()
        for weight in untrained:
            weight.leave_dense()
        if untrained:  # masked steps include them
            self._steps = {key: step for key, step in self._steps.items() if not key[0]}
        return [weight.path for weight in untrained]

    @property
    def unscaled_optimizers(self) -> list[str]:
        """Names of the optimizers that updated weights without reading a learning rate."""
        return self._adapter.unscaled_optimizers

    @property
    def step_state(self) -> StepState:
        """State of the steps, outside of the model."""
        return self._adapter.step_state

    def check_extras(self, extras: StepExtras) -> None:
        """Raises ValueError if the model can't be trained by steps with `extras`."""
        self._adapter.check_extras(extras)

    def forget_decaying_steps(self) -> None:
        """Discards the steps that decay regrown weights, made for other masks than there are."""
        self._steps = {key: step for key, step in self._steps.items() if not key[1].regrow_decay}

    def use_step(
        self, *, masked: frozenset[str], factors: np.ndarray, extras: StepExtras = NO_EXTRAS
    ) -> None:
        """Sets the compiled step of a phase, which is traced when it first runs.

        Args:
            masked: Paths of the weights that are multiplied by their masks after each update.
            factors: Factors of the learning rates within the next steps; the last one stays.
            extras: What the step does besides.
        """
        self._notice_compile()
        self.set_factors(factors)
        self._masked, self._extras, self._is_unused = masked, extras, True
        self._put_step()

    def set_factors(self, factors: np.ndarray) -> None:
        """Sets the factors of the learning rates within the next steps; the last one stays."""
        self._adapter.set_factors(factors)

    def begin_step(self) -> None:
        """Called before a step that takes the next factor; compiled steps count themselves."""

    def remake_step(self) -> None:
        """Creates the steps of the model as it is compiled now."""
        self._forget_steps()
        if self._is_unused and self._before_remade_step is not None:
            self._masked = self._before_remade_step()
        self._put_step()

    def prints(self) -> bool:
        """Returns whether Keras prints its progress instead of logging it."""
        return self._adapter.prints()

    # Whether the variables hold their values also within an epoch.
    may_read_steps = True

    def update_count(self) -> UpdateCount | None:
        """Returns the count of the optimizer that has made the most steps; None: none counts."""
        return self._adapter.update_count()

    @property
    def batches_per_execution(self) -> int:
        """Maximum number of batches in one call of the training step."""
        return self._adapter.batches_per_execution

    def learning_rates(self) -> list[float]:
        """Returns the learning rates, without the factor, of the optimizers that read one."""
        return self._adapter.learning_rates()

    def is_scheduled(self) -> bool:
        """Returns whether a learning rate is a schedule of the step."""
        return self._adapter.is_scheduled()

    def scheduled_rate(self, step: int) -> float | None:
        """Returns the learning rate of the first schedule of an optimizer at a step, if any."""
        return self._adapter.scheduled_rate(step)

    def learning_rate_text(self, lr: LearningRate) -> str:
        """Describes the learning rate of a phase whose factor is `lr`."""
        return learning_rate_text(self.learning_rates(), self.is_scheduled(), lr)

    def end_epoch(self) -> None:
        """Called at the end of an epoch."""

    def _notice_compile(self) -> None:
        if self._current is not None and self.model.train_function is not self._current:
            self._forget_steps()
        self._forget_updates()

    def _forget_steps(self) -> None:
        """Discards the steps of a model that was compiled again."""
        self._steps.clear()
        self._is_compiled_anew = True

    def _forget_updates(self) -> None:
        """Discards earlier observations, which the end of an epoch may still need until here."""
        if self._is_compiled_anew:
            self._adapter.forget_updates()
        self._is_compiled_anew = False

    def _put_step(self) -> None:
        key = (self._masked, self._extras)
        if key not in self._steps:
            self._steps[key] = self._adapter.make_step(bool(self._masked), self._extras)
        for name, value in self._steps[key].items():
            setattr(self.model, name, value)
        if self.model.train_function is not None:
            self.model.train_function = self._first(self.model.train_function)
        self._current = self.model.train_function

    def _first(self, step: Step) -> Step:
        """Returns `step`, followed by `after_first_step` when it first updates weights."""

        def first(*args: object) -> object:
            self._is_unused = False
            self._forget_updates()
            result = step(*args)
            if self._after_first_step is not None and self.was_skipped:
                return result
            if self.model.train_function is first:
                self.model.train_function = self._current = step
            after, self._after_first_step = self._after_first_step, None
            if after is not None:
                after()
            return result

        return first


class _Remake(OpenRun):
    """Replacement of `model.make_train_function`, which Keras calls when training starts."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._is_in_fit = _is_in_fit(trainer.model)  # or hooks are called without `fit`

    def __call__(self, force: bool = False) -> object:
        trainer, model = self._trainer, self._trainer.model
        is_of_another = getattr(model, "history", None) is not trainer._history
        if is_of_another or (self._is_in_fit and not _is_in_fit(model)):
            self.abandon()
        elif trainer._current is not None:
            if force or model.train_function is not trainer._current:
                trainer.remake_step()
            return model.train_function
        return type(model).make_train_function(model, force=force)

    def is_of_this_fit(self) -> bool:
        """Returns whether the current `fit` opened it, before any step."""
        history = getattr(self._trainer.model, "history", None)
        same = history is not None and history is self._trainer._history
        return same and not self._trainer._steps

    def abandon(self) -> None:
        """Ends a run that an exception interrupted."""
        self._trainer.close()


def _is_in_fit(model: Model) -> bool:
    """Returns whether a `fit` of `model` called what runs now, however indirectly.

    After an exception there is no other sign that the run is over: no callback is called.
    """
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False


def abandon(model: Model) -> None:
    """Ends a run of `model` that an exception interrupted, if any."""
    earlier = open_run_of(model)
    if earlier is not None:
        earlier.abandon()
