"""Trainer: gives a model in `fit` a compiled training step for each kind of phase."""

from collections.abc import Callable, Sequence
from typing import cast

from keras_dsd.engine.batch_norm import Batches, estimate
from keras_dsd.engine.messages import learning_rate_text
from keras_dsd.protocols import Model, OpenRun, PrunableWeight, Step, TrainingAdapter, open_run_of


class Trainer:
    """One model in training, for as long as a `fit` lasts.

    Either Keras reads `model.train_function` afresh at every step. So each kind of phase has its
    own compiled step, and a dense one holds no pruning operation. Everything put on the model is
    an attribute of the object that hides a method of its class; `close` takes them away.
    """

    def __init__(self, model: Model, adapter: TrainingAdapter) -> None:
        self.model = model
        self._adapter = adapter
        self._history: object = None
        self._steps: dict[tuple[bool, float], dict[str, Step | None]] = {}
        self._between_epochs = True

    @property
    def weights(self) -> Sequence[PrunableWeight]:
        """The weights that DSD prunes; empty as long as the model has not made them."""
        return self._adapter.weights

    def check(self) -> None:
        """Raises ValueError where the model can't be trained by DSD, before anything changes."""
        earlier = open_run_of(self.model)
        if isinstance(earlier, _Remake) and earlier.is_of_this_fit():
            raise ValueError(
                f"Expected one DSDSchedule in a fit. Received: a second one, for "
                f"model={self.model.name!r}. Put all phases into one: DSDSchedule(phases=[...])."
            )
        self._adapter.check()

    def open(self) -> None:
        """Starts to stand between Keras and the model."""
        abandon(self.model)
        self._history = getattr(self.model, "history", None)
        self._put("reset_metrics", self._reset_metrics)
        self._put("make_train_function", _Remake(self))

    def close(self) -> None:
        """Gives the model its own methods and its unscaled learning rate back."""
        for name in ("reset_metrics", "make_train_function"):
            vars(self.model).pop(name, None)
        self.model.train_function = None
        self._steps.clear()
        self._adapter.unscale()

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

    def use_step(self, *, masked: bool, lr: float) -> None:
        """Puts the compiled step of a phase in place; it is traced when it first runs.

        Args:
            masked: Whether each update ends in `weight * mask` for masked weights.
            lr: Factor of the learning rate, as the user's own callbacks set it.
        """
        self._adapter.unscale()
        self._between_epochs = False
        key = (masked, self._adapter.traced(lr))
        if key not in self._steps:
            self._steps[key] = self._adapter.make_step(*key)
        for name, value in self._steps[key].items():
            setattr(self.model, name, value)
        if lr != 1.0:
            step = cast("Callable[..., object]", self.model.train_function)
            self.model.train_function = self._scale_first(step, lr)

    def prints(self) -> bool:
        """Returns whether Keras prints its progress; it can be set to log it."""
        return self._adapter.prints()

    def learning_rate_text(self, lr: float) -> str:
        """Describes the learning rate of a phase that multiplies it by `lr`."""
        return learning_rate_text(self._adapter.learning_rates(), self._adapter.is_scheduled(), lr)

    def end_epoch(self) -> None:
        """Notes that an epoch is over; its learning rate stays until the next one starts."""
        self._between_epochs = True

    def _scale_first(self, step: Callable[..., object], lr: float) -> Callable[..., object]:
        """Returns `step`, with the learning rate scaled before it runs for the first time.

        By then every callback has begun the epoch, and those that drive the learning rate have
        read and set it unscaled.
        """

        def first(*args: object) -> object:
            self._adapter.scale(lr)
            self.model.train_function = step
            return step(*args)

        return first

    def _reset_metrics(self) -> None:
        """Unscales the learning rate between epochs: Keras calls this before any callback."""
        if self._between_epochs:
            self._adapter.unscale()
        type(self.model).reset_metrics(self.model)

    def _put(self, name: str, value: object) -> None:
        vars(self.model)[name] = value


class _Remake(OpenRun):
    """Stands in for `model.make_train_function`, which Keras calls when training starts."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __call__(self, force: bool = False) -> object:
        model = self._trainer.model
        if getattr(model, "history", None) is not self._trainer._history:
            self.abandon()
        return type(model).make_train_function(model, force=force)

    def is_of_this_fit(self) -> bool:
        """Returns whether the fit that is about to train opened it: no step was made in it yet."""
        history = getattr(self._trainer.model, "history", None)
        same = history is not None and history is self._trainer._history
        return same and not self._trainer._steps

    def abandon(self) -> None:
        """Ends a run that an exception stopped before it could end itself."""
        self._trainer.close()


def abandon(model: Model) -> None:
    """Ends a run of `model` that an exception stopped before it could end itself, if any."""
    earlier = open_run_of(model)
    if earlier is not None:
        earlier.abandon()
