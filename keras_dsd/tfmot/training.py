"""A compiled step for each kind of phase of one tf_keras model."""

from collections.abc import Callable
from typing import Any

from keras_dsd.selection import refuse_unmatched
from keras_dsd.tfmot import optimizer
from keras_dsd.tfmot.holding import MaskedUpdates
from keras_dsd.tfmot.learning_rate import LearningRate
from keras_dsd.tfmot.patches import Patch, in_force
from keras_dsd.tfmot.weight import Weight, path_of


class Trainer:
    """The training side of one model, while a `fit` lasts.

    Keras reads `model.train_function` afresh at every step and calls `model.train_step` when it
    traces. So each kind of phase has its own compiled step, and a dense one holds no pruning
    operation. Everything put on the model is an attribute of the object that hides a method of
    its class; `close` takes them away.

    Args:
        model: The model that trains.
        wrappers: The wrapped layers in it.
        weights_of: Finds what DSD prunes in a model.
    """

    def __init__(
        self, model: Any, wrappers: list[Any], weights_of: Callable[[Any], list[Weight]]
    ) -> None:
        self.model = model
        self._wrappers = wrappers
        self._weights_of = weights_of
        self._weights: list[Weight] = []
        self._history: Any = None
        self._steps: dict[tuple[bool, float], tuple[Any, Any]] = {}
        self._rate = LearningRate(model, wrappers)
        self._between_epochs = True

    @property
    def weights(self) -> list[Weight]:
        """What DSD prunes; empty as long as the model has not made its weights."""
        if self._weights:
            return self._weights
        found = self._weights_of(self.model)
        if all(wrapper.has_masks for wrapper in self._wrappers):
            self._weights = found
            for wrapper in self._wrappers:
                if wrapper.was_unbuilt:
                    wrapper.selection.see(path_of(variable) for variable in self.model.weights)
                    refuse_unmatched(wrapper.selection, [weight.path for weight in found])
        return found

    def check(self) -> None:
        """Raises ValueError where the optimizer has no learning rate to scale."""
        for each in optimizer.optimizers_of(self.model):
            if not hasattr(each, "learning_rate"):
                raise ValueError(
                    f"Expected an optimizer with a learning_rate. Received: optimizer={each!r}. "
                    f"Compile the model with an optimizer from tf_keras.optimizers."
                )

    @property
    def is_open(self) -> bool:
        """Whether a run stands between Keras and the model, in `fit` or stopped by an exception."""
        return "make_train_function" in vars(self.model)

    def open(self) -> None:
        """Begins to stand between Keras and the model."""
        earlier = vars(self.model).get("make_train_function")
        if earlier is not None:
            earlier.abandon()
        self._history = getattr(self.model, "history", None)
        self._put("reset_metrics", self._reset_metrics)
        self._put("make_train_function", _Remake(self))

    def close(self) -> None:
        """Gives the model its own methods and its unscaled learning rate back."""
        for name in ("reset_metrics", "make_train_function"):
            vars(self.model).pop(name, None)
        self.model.train_function = None
        self._steps.clear()
        self._rate.unscale()

    def use_step(self, *, masked: bool, lr: float) -> None:
        """Puts the compiled step of a phase in place; it is traced when it first runs.

        Args:
            masked: Whether each update ends in `weight * mask`.
            lr: What the learning rate is multiplied by.
        """
        self._rate.unscale()
        self._between_epochs = False
        optimizers = optimizer.optimizers_of(self.model)
        traced_lr = lr if any(map(optimizer.is_scheduled, optimizers)) else 1.0
        step = self._step(masked, traced_lr)
        scaled = lr != 1.0 and not all(map(optimizer.is_scheduled, optimizers))
        self.model.train_function = self._scale_first(step, lr) if scaled else step

    def end_epoch(self) -> None:
        """Notes that an epoch is over; its learning rate stands until the next one begins."""
        self._between_epochs = True

    def _step(self, masked: bool, traced_lr: float) -> Callable[[Any], Any]:
        key = (masked, traced_lr)
        if key not in self._steps:
            type(self.model).make_train_function(self.model, force=True)
            patches = self._patches(masked, traced_lr)
            step = _patched(self.model.train_function, patches)
            self._steps[key] = (step, getattr(self.model, "train_tf_function", None))
        step, self.model.train_tf_function = self._steps[key]
        return step

    def _patches(self, masked: bool, lr: float) -> list[Patch]:
        optimizers = optimizer.optimizers_of(self.model)
        patches = [patch for each in optimizers for patch in optimizer.scaled(each, lr)]
        if masked:
            updates = MaskedUpdates(self.weights, optimizers)
            train_step = updates.around(self.model.train_step)
            patches += [*updates.patches(), Patch(vars(self.model), "train_step", train_step)]
        return patches

    def _scale_first(self, step: Callable[[Any], Any], lr: float) -> Callable[[Any], Any]:
        """Returns `step`, with the learning rate scaled before it runs for the first time.

        By then every callback has begun the epoch, and those that drive the learning rate have
        read and set it unscaled.
        """

        def first(iterator: Any) -> Any:
            self._rate.scale(lr)
            self.model.train_function = step
            return step(iterator)

        return first

    def _reset_metrics(self) -> None:
        """Unscales the learning rate between epochs: Keras calls this before any callback."""
        if self._between_epochs:
            self._rate.unscale()
        type(self.model).reset_metrics(self.model)

    def _put(self, name: str, value: Any) -> None:
        vars(self.model)[name] = value


class _Remake:
    """Stands in for `model.make_train_function`, which Keras calls when training starts."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __call__(self, force: bool = False) -> Any:
        model = self._trainer.model
        if getattr(model, "history", None) is not self._trainer._history:
            self.abandon()
        return type(model).make_train_function(model, force=force)

    def abandon(self) -> None:
        """Ends a run that an exception stopped before it could end itself."""
        self._trainer.close()


def _patched(step: Callable[[Any], Any], patches: list[Patch]) -> Callable[[Any], Any]:
    """Returns `step`, in whose dynamic extent alone `patches` are in force."""

    def patched(iterator: Any) -> Any:
        with in_force(patches):
            return step(iterator)

    return patched if patches else step
