"""Trainer: gives a model in `fit` a compiled training step for each kind of phase."""

import sys
import types
from collections.abc import Callable, Sequence

import numpy as np

from keras_dsd.engine.batch_norm import Batches, estimate
from keras_dsd.engine.messages import learning_rate_text
from keras_dsd.protocols import Model, OpenRun, PrunableWeight, Step, TrainingAdapter, open_run_of


class Trainer:
    """One model in training, for as long as a `fit` lasts.

    Either Keras reads `model.train_function` afresh at every step. So there are two compiled steps:
    one that masks, and a dense one, which holds no pruning operation and serves every dense phase.
    The one thing put on the model hides a method of its class; `close` takes it away.
    """

    def __init__(self, model: Model, adapter: TrainingAdapter) -> None:
        self.model = model
        self._adapter = adapter
        self._history: object = None
        self._steps: dict[frozenset[str], dict[str, Step | None]] = {}
        self._current: Step | None = None
        self._masked: frozenset[str] = frozenset()
        self._is_unused = self._is_compiled_anew = False
        self._after_first_step: Callable[[], None] | None = None
        self._before_remade_step: Callable[[], frozenset[str]] | None = None

    @property
    def weights(self) -> Sequence[PrunableWeight]:
        """The weights that DSD prunes; empty as long as the model has not made them."""
        return self._adapter.weights

    @property
    def frozen(self) -> Sequence[str]:
        """Paths of the weights that would be pruned if they were not frozen."""
        return self._adapter.frozen

    def check(self) -> None:
        """Raises ValueError where the model can't be trained by DSD, before anything changes."""
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
        """Starts to stand between Keras and the model.

        Args:
            after_first_step: Called once, when the first training step has run.
            before_remade_step: Called where the model was compiled anew after an epoch has started
                and before its first step; returns the paths of the weights that are masked then.
        """
        abandon(self.model)
        self._history = getattr(self.model, "history", None)
        self._after_first_step = after_first_step
        self._before_remade_step = before_remade_step
        vars(self.model)["make_train_function"] = _Remake(self)
        self._adapter.open()

    def close(self) -> None:
        """Gives the model its own method and step back."""
        vars(self.model).pop("make_train_function", None)
        self.model.train_function = self._current = None
        self._steps.clear()
        self._adapter.close()

    def get_weights(self) -> list[np.ndarray]:
        """Returns a copy of the model's weights, in an order that stays."""
        return self._adapter.get_weights()

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        """Sets the model's weights."""
        self._adapter.set_weights(values)

    def reset_optimizers(self) -> None:
        """Resets the state of the optimizers, but for moving averages of weights."""
        self._adapter.reset_optimizers()

    def estimate_batch_norms(self, batches: Batches, advance: Callable[[str], None]) -> str:
        """Estimates the statistics of BatchNormalization, and describes this.

        Raises:
            ValueError: There are no batches.
        """
        layers = self._adapter.batch_norms
        number = estimate(layers, self._adapter.forward, batches, advance) if layers else 0
        return f"statistics of {len(layers)} BatchNormalizations estimated from {number} batches"

    @property
    def is_observed(self) -> bool:
        """Whether an optimizer was seen to update weights in this run."""
        return self._adapter.is_observed

    @property
    def was_skipped(self) -> bool:
        """Whether all updates of this run were skipped yet, as a scaled loss has overflown."""
        return self._adapter.was_skipped

    @property
    def may_leave_untrained(self) -> bool:
        """Whether weights may turn out, at the first step, to be trained by no optimizer."""
        return self._adapter.has_own_train_step and not self._adapter.is_observed

    def untrained(self) -> Sequence[PrunableWeight]:
        """Returns the weights that no optimizer trains, as far as that is known."""
        return self._adapter.untrained()

    def leave_untrained_dense(self) -> list[str]:
        """Leaves these weights dense from now on, and returns their paths."""
        self._notice_compile()
        untrained = self._adapter.untrained()
        for weight in untrained:
            weight.leave_dense()
        if untrained:  # masked steps were made for them too
            self._steps = {masked: step for masked, step in self._steps.items() if not masked}
        return [weight.path for weight in untrained]

    @property
    def unscaled_optimizers(self) -> list[str]:
        """Names of the optimizers that updated weights and did not read a learning rate."""
        return self._adapter.unscaled_optimizers

    def use_step(self, *, masked: frozenset[str], lr: float) -> None:
        """Puts the compiled step of a phase in place; it is traced when it first runs.

        Args:
            masked: Paths of the weights whose updates end in `weight * mask`.
            lr: Multiplies the learning rates within the step.
        """
        self._notice_compile()
        self._adapter.set_factor(lr)
        self._masked, self._is_unused = masked, True
        self._put_step()

    def remake_step(self) -> None:
        """Makes the steps anew, of the model as it is compiled now."""
        self._forget_steps()
        if self._is_unused and self._before_remade_step is not None:
            self._masked = self._before_remade_step()
        self._put_step()

    def prints(self) -> bool:
        """Returns whether Keras prints its progress; it can be set to log it."""
        return self._adapter.prints()

    def learning_rates(self) -> list[float]:
        """Returns the learning rates, as their owner set them, of what reads one."""
        return self._adapter.learning_rates()

    def learning_rate_text(self, lr: float) -> str:
        """Describes the learning rate of a phase that multiplies it by `lr`."""
        return learning_rate_text(self.learning_rates(), self._adapter.is_scheduled(), lr)

    def end_epoch(self) -> None:
        """Notes that an epoch is over."""

    def _notice_compile(self) -> None:
        if self._current is not None and self.model.train_function is not self._current:
            self._forget_steps()
        self._forget_updates()

    def _forget_steps(self) -> None:
        """Forgets the steps of a model that was compiled anew."""
        self._steps.clear()
        self._is_compiled_anew = True

    def _forget_updates(self) -> None:
        """Forgets what was observed before, as the epoch may still be measured by that."""
        if self._is_compiled_anew:
            self._adapter.forget_updates()
        self._is_compiled_anew = False

    def _put_step(self) -> None:
        if self._masked not in self._steps:
            self._steps[self._masked] = self._adapter.make_step(bool(self._masked))
        for name, value in self._steps[self._masked].items():
            setattr(self.model, name, value)
        if self.model.train_function is not None:
            self.model.train_function = self._first(self.model.train_function)
        self._current = self.model.train_function

    def _first(self, step: Step) -> Step:
        """Returns `step`, followed by what is due after the first one of the run."""

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
    """Stands in for `model.make_train_function`, which Keras calls when training starts."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._is_in_fit = _is_in_fit(trainer.model)  # or the hooks are called by hand

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
        """Returns whether the fit that is about to train opened it: no step was made in it yet."""
        history = getattr(self._trainer.model, "history", None)
        same = history is not None and history is self._trainer._history
        return same and not self._trainer._steps

    def abandon(self) -> None:
        """Ends a run that an exception stopped before it could end itself."""
        self._trainer.close()


def _is_in_fit(model: Model) -> bool:
    """Returns whether a `fit` of `model` called what runs now, however indirectly.

    After an exception nothing else tells that the run is over: no callback is called.
    """
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False


def abandon(model: Model) -> None:
    """Ends a run of `model` that an exception stopped before it could end itself, if any."""
    earlier = open_run_of(model)
    if earlier is not None:
        earlier.abandon()
