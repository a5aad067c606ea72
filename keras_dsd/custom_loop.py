"""DSDLoop: the phases in a custom training loop, without `fit`."""

import contextlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keras_dsd.adapters import registry
from keras_dsd.callback import DSDSchedule
from keras_dsd.engine.trainer import Trainer, abandon
from keras_dsd.protocols import Model, TrainingAdapter
from keras_dsd.utils import checks


class DSDLoop:
    """Takes a model through the phases of a schedule in a custom training loop.

    Two calls stand around each epoch, and one follows each update of the weights, outside of
    `tf.function`. A function that trains has to be traced, for the first time, between these two
    calls: there the optimizers are observed, and the learning rate of a phase is multiplied within
    their updates. JAX traces it again for another factor. `optimizer.learning_rate` stays yours, a
    number or a `LearningRateSchedule`.

    A step without state, as on JAX, takes the masks as an argument, `loop.masks()`, and ends in
    `jnp.where(mask, value, 0)`. The variables of model and optimizer have to hold their values
    when `begin_epoch` and `end_epoch` are called; read them after `begin_epoch`, which sets them.

    Args:
        model: A built model that `apply` returned. It need not be compiled.
        optimizer: What updates it, or a list of these: of `keras.optimizers` or, for tf_keras
            models, `tf_keras.optimizers`; on PyTorch also of `torch.optim`.
        schedule: The phases, and what else a `DSDSchedule` was given.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `model` did not go through `apply`.

    Examples:
        >>> with dsd.DSDLoop(model, optimizer, dsd.DSDSchedule(10, 10, 10)) as loop:
        ...     for epoch in range(30):
        ...         loop.begin_epoch(epoch)
        ...         for x, y in batches:
        ...             train_step(x, y)
        ...             loop.apply_masks()
        ...         print(loop.end_epoch())

    Reference:
        Han et al., 2017, arXiv:1607.04381, Algorithm 1.
    """

    def __init__(self, model: Model, optimizer: object, schedule: DSDSchedule) -> None:
        if not isinstance(schedule, DSDSchedule):
            hint = "Give DSDSchedule(10, 10, 10)."
            raise checks.invalid_type("schedule", schedule, "to be a DSDSchedule", hint)
        optimizers = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
        if not optimizers or any(each is None for each in optimizers):
            hint = "Give what updates the model."
            raise checks.invalid_type(
                "optimizer", optimizer, "to be an optimizer or a list of these", hint
            )
        adapter: TrainingAdapter = registry.adapter_of(model).training_adapter(model, optimizers)
        self._trainer = CustomLoopTrainer(model, adapter)
        self._controller = schedule.controller(self._trainer)

    def __enter__(self) -> "DSDLoop":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if kind is None:
            self.end()
        else:
            self._trainer.end_epoch()

    def begin_epoch(self, epoch: int) -> None:
        """Enters the phase of an epoch: prunes or regrows weights, and observes the optimizers.

        Args:
            epoch: Counted from 0; a run that stopped resumes at any.

        Raises:
            TypeError: `epoch` is not an integer.
            ValueError: `epoch` is negative, the one before has not ended, a weight to be pruned
                holds NaN or infinity, or is not there yet, as the model is not built.
        """
        checks.whole_number("epoch", epoch, least=0)
        if self._controller.is_in_epoch:
            raise ValueError(
                f"Expected end_epoch() before the next begin_epoch(). Received: epoch={epoch} "
                f"while one lasts. Call loop.end_epoch() first."
            )
        if not self._controller.is_open:
            self._controller.start(None)
        self._controller.begin_epoch(epoch)

    def apply_masks(self) -> None:
        """Sets pruned weights, and moving averages of them, to zero. Call it after each update.

        Raises:
            ValueError: It is called within a `tf.function`, which would keep what it did first,
                or before `begin_epoch`.
        """
        self._check_in_epoch("apply_masks")
        if self._trainer.is_tracing():
            raise ValueError(
                "Expected apply_masks() outside of tf.function, which would keep the masks, or "
                "that there were none, of its first call. Received: a call while one is traced. "
                "Call it after the function that trains, or give that loop.masks() as an argument."
            )
        self._trainer.apply_masks()

    def masks(self, variables: Sequence[Any] | None = None) -> list[Any]:
        """Returns the active masks, for a step that takes them as an argument.

        Args:
            variables: Variables of the model or the optimizer. Defaults to the model's
                `trainable_variables`.

        Returns:
            For each variable a boolean tensor of the backend's, of its shape and True where kept;
            None where nothing is pruned, as everywhere in a dense phase. A moving average that the
            optimizer keeps of a pruned weight has that weight's mask.

        Raises:
            TypeError: `variables` is no list.
            ValueError: It is called before `begin_epoch`.
        """
        self._check_in_epoch("masks")
        if variables is not None and not isinstance(variables, Iterable):
            hint = "Give a list, or nothing: model.trainable_variables."
            raise checks.invalid_type("variables", variables, "to be a list of variables", hint)
        given = None if variables is None else checks.items("variables", variables)
        return self._trainer.masks_of(given)

    def end_epoch(self, logs: Mapping[str, float] | None = None) -> dict[str, float]:
        """Ends an epoch; updates are not observed any more.

        Args:
            logs: Values of the epoch by name, for phases with `until`.

        Returns:
            `dsd_phase`, the index of the phase; `dsd_sparsity`, the measured fraction of zeros
            among the selected weights; `dsd_epochs_left`, remaining epochs of the phase; and
            `dsd_learning_rate`, the learning rate in use.

        Raises:
            TypeError: `logs` is no dict, or a value that is monitored no number.
            ValueError: It is called before `begin_epoch`.
        """
        self._check_in_epoch("end_epoch")
        return self._controller.end_epoch({} if logs is None else logs)

    @property
    def is_over(self) -> bool:
        """Whether phases with `until` have ended all training that the schedule asks for."""
        return self._controller.is_over

    def end(self) -> None:
        """Ends the run; warns where weights are still pruned. A `with` block calls it."""
        if self._controller.is_open:
            self._controller.stop()

    def _check_in_epoch(self, method: str) -> None:
        if not self._controller.is_in_epoch:
            raise ValueError(
                f"Expected begin_epoch() before {method}(). Received: no epoch. Call "
                f"loop.begin_epoch(epoch) first."
            )


class CustomLoopTrainer(Trainer):
    """One model in a custom training loop, whose steps are made elsewhere."""

    def __init__(self, model: Model, adapter: TrainingAdapter) -> None:
        super().__init__(model, adapter)
        self._apply_masks: Callable[[], None] | None = None
        self._epoch = contextlib.ExitStack()

    def check(self) -> None:
        """Raises ValueError where the model can't be trained by DSD, before anything changes."""
        self._adapter.check()

    def open(
        self,
        after_first_step: Callable[[], None],
        before_remade_step: Callable[[], frozenset[str]],
    ) -> None:
        """Ends a `fit` that an exception stopped."""
        del after_first_step, before_remade_step  # the steps are made elsewhere
        abandon(self.model)
        self._adapter.open()

    def close(self) -> None:
        """Ends the epoch, if there is one."""
        self._apply_masks = None
        self.end_epoch()
        self._adapter.close()

    def use_step(self, *, masked: frozenset[str], lr: float) -> None:
        """Observes what updates weights in an epoch."""
        del masked
        self.end_epoch()
        self._epoch.enter_context(self._adapter.observing(lr))
        self._apply_masks = self._adapter.masking()

    def end_epoch(self) -> None:
        """Observes no more."""
        self._epoch.close()

    def apply_masks(self) -> None:
        """Sets masked weights, and moving averages of them, to zero; within an epoch only."""
        if self._apply_masks is not None:
            self._apply_masks()

    def is_tracing(self) -> bool:
        """Returns whether a call is being traced now."""
        return self._adapter.is_tracing()

    def masks_of(self, variables: Sequence[Any] | None) -> list[Any]:
        """Returns the active masks of variables; None: of all trainable ones."""
        return self._adapter.masks_of(variables)
