"""DSDLoop: the phases in a custom training loop, without `fit`."""

import contextlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_dsd.adapters import registry
from keras_dsd.callback import DSDSchedule
from keras_dsd.engine.trainer import NO_EXTRAS, Trainer, abandon
from keras_dsd.protocols import Model, StepExtras, TrainingAdapter
from keras_dsd.utils import checks


class DSDLoop:
    """Takes a model through the phases of a schedule in a custom training loop.

    Call `begin_epoch` and `end_epoch` around each epoch, and `apply_masks` after each update of the
    weights, outside of `tf.function`. Trace a training function for the first time between
    `begin_epoch` and `end_epoch`: there the optimizers are observed, and a phase multiplies the
    learning rate within their updates. JAX traces it again for another factor.
    `optimizer.learning_rate`, a number or a `LearningRateSchedule`, is never set.

    A stateless step, as on JAX, takes the masks as an argument, `loop.masks()`, and ends with
    `jnp.where(mask, value, 0)`. The variables of model and optimizer must be up to date when
    `begin_epoch` and `end_epoch` are called; read them after `begin_epoch`, which sets them.

    If phases are counted in steps, or change the learning rate, call `begin_step` before each
    update: a step is a call of it. Where `starts_phase` is True, the variables must be up to date
    for it, too. A function that JAX compiles takes a learning rate that changes inside a phase as
    an argument, `loop.factor()`, and updates the weights within `with loop.scaled(factor):`.

    Args:
        model: A built model that `apply` returned. It need not be compiled.
        optimizer: The optimizer that updates the model, or a list of optimizers: of
            `keras.optimizers` or, for tf_keras models, `tf_keras.optimizers`; on PyTorch also of
            `torch.optim`.
        schedule: The phases and other options, as a `DSDSchedule`.
        steps_per_epoch: Number of steps of an epoch, from which a shape of the learning rate
            knows how long its phase is. Defaults to `None`: it is known after the first epoch, in
            which a shape stays at its start.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `model` was not passed through `apply`, or `steps_per_epoch` is below 1.

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

    def __init__(
        self,
        model: Model,
        optimizer: object,
        schedule: DSDSchedule,
        *,
        steps_per_epoch: int | None = None,
    ) -> None:
        if not isinstance(schedule, DSDSchedule):
            hint = "Give DSDSchedule(10, 10, 10)."
            raise checks.invalid_type("schedule", schedule, "to be a DSDSchedule", hint)
        optimizers = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
        if not optimizers or any(each is None for each in optimizers):
            hint = "Give the optimizer that updates the model."
            raise checks.invalid_type(
                "optimizer", optimizer, "to be an optimizer or a list of these", hint
            )
        adapter: TrainingAdapter = registry.adapter_of(model).training_adapter(model, optimizers)
        self._trainer = CustomLoopTrainer(model, adapter)
        self._controller = schedule.controller(self._trainer)
        self._steps_per_epoch = steps_per_epoch
        if steps_per_epoch is not None:
            self._steps_per_epoch = checks.whole_number(
                "steps_per_epoch", steps_per_epoch, least=1, unit="steps"
            )
        self._initial_step = schedule.initial_step
        self._needs_steps = schedule.timeline.needs_steps
        self._num_steps = 0  # in the epoch

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
            epoch: The epoch, counted from 0; an interrupted run resumes at any epoch.

        Raises:
            TypeError: `epoch` is not an integer.
            ValueError: `epoch` is negative, the previous epoch has not ended, a weight to prune
                holds NaN or infinity, or the model is not built.
        """
        checks.whole_number("epoch", epoch, least=0)
        if self._controller.is_in_epoch:
            raise ValueError(
                f"Expected end_epoch() before the next begin_epoch(). Received: epoch={epoch} "
                f"within an epoch. Call loop.end_epoch() first."
            )
        if not self._controller.is_open:
            self._controller.start(
                None, num_batches=self._steps_per_epoch, initial_step=self._initial_step
            )
        self._num_steps = 0
        self._controller.begin_epoch(epoch)

    def begin_step(self) -> bool:
        """Enters the phase of the next step, if it starts within the epoch.

        Call it before each update where phases are counted in steps or change the learning rate;
        otherwise it does nothing.

        Returns:
            True if a phase starts: weights, optimizer state and masks may have changed.

        Raises:
            ValueError: It is called before `begin_epoch`, or within a `tf.function`; or a weight to
                prune holds NaN or infinity.
        """
        self._check_in_epoch("begin_step")
        self._check_not_traced("begin_step")
        self._num_steps += 1
        return self._controller.begin_batch(self._num_steps - 1)

    @property
    def starts_phase(self) -> bool:
        """True if the next call of `begin_step` starts a phase."""
        return self._controller.starts_phase

    def apply_masks(self) -> None:
        """Sets pruned weights, and moving averages of them, to zero. Call it after each update.

        Raises:
            ValueError: It is called within a `tf.function`, which would keep the masks of its
                first call, before `begin_epoch`, or without `begin_step` in phases counted in
                steps.
        """
        self._check_in_epoch("apply_masks")
        self._check_not_traced("apply_masks")
        self._check_counted()
        self._trainer.apply_masks()

    def masks(self, variables: Sequence[Any] | None = None) -> list[Any]:
        """Returns the active masks, for a step that takes them as an argument.

        Args:
            variables: Variables of the model or the optimizer. Defaults to the model's
                `trainable_variables`.

        Returns:
            For each variable a boolean tensor of the backend, of the same shape and True for kept
            entries; None without a mask, as in a dense phase. An optimizer's moving average of a
            masked weight has the mask of this weight.

        Raises:
            TypeError: `variables` is not a list.
            ValueError: It is called before `begin_epoch`.
        """
        self._check_in_epoch("masks")
        if variables is not None and not isinstance(variables, Iterable):
            hint = "Give a list, or nothing: model.trainable_variables."
            raise checks.invalid_type("variables", variables, "to be a list of variables", hint)
        given = None if variables is None else checks.items("variables", variables)
        return self._trainer.masks_of(given)

    def factor(self) -> Any:
        """Returns the factor of the learning rate in the current step, for `scaled`.

        Raises:
            ValueError: It is called before `begin_epoch`.
        """
        self._check_in_epoch("factor")
        return self._trainer.factor

    def scaled(self, factor: Any) -> contextlib.AbstractContextManager[None]:
        """Multiplies the learning rate of updates within a block, in a function that JAX compiles.

        Args:
            factor: An argument of the function, which `loop.factor()` is passed for.
        """
        return self._trainer.scaled(factor)

    def end_epoch(self, logs: Mapping[str, float] | None = None) -> dict[str, float]:
        """Ends an epoch, and the observation of updates.

        Args:
            logs: Values of the epoch by name, for phases with `until`. Defaults to `None`.

        Returns:
            `dsd_phase`, the index of the phase; `dsd_sparsity`, the measured fraction of zeros
            among the selected weights; `dsd_epochs_left`, the remaining epochs of the phase; and
            `dsd_learning_rate`, the learning rate in use. If phases are counted in steps, also
            `dsd_steps`, the number of steps of the run so far.

        Raises:
            TypeError: `logs` is not a dict, or a monitored value is not a number.
            ValueError: It is called before `begin_epoch`, or without `begin_step` in phases counted
                in steps.
        """
        self._check_in_epoch("end_epoch")
        self._check_counted()
        return self._controller.end_epoch({} if logs is None else logs)

    @property
    def is_over(self) -> bool:
        """True if the last phase has ended, so that training is over."""
        return self._controller.is_over

    def end(self) -> None:
        """Ends the run; warns if weights are still pruned. A `with` block calls it."""
        if self._controller.is_open:
            self._controller.stop()

    def _check_counted(self) -> None:
        if self._needs_steps and not self._num_steps:
            raise ValueError(
                "Expected begin_step() before each update, as the schedule counts steps. "
                "Received: an epoch without a call of it. Call loop.begin_step() first."
            )

    def _check_not_traced(self, method: str) -> None:
        if self._trainer.is_tracing():
            raise ValueError(
                f"Expected {method}() outside of tf.function, which would keep the masks of its "
                f"first call. Received: a call within a tf.function. Call it around the training "
                f"function, or pass loop.masks() to this function as an argument."
            )

    def _check_in_epoch(self, method: str) -> None:
        if not self._controller.is_in_epoch:
            raise ValueError(
                f"Expected begin_epoch() before {method}(). Received: no epoch. Call "
                f"loop.begin_epoch(epoch) first."
            )


class CustomLoopTrainer(Trainer):
    """One model in a custom training loop, which compiles its own steps."""

    may_read_steps = False
    batches_per_execution = 1

    def __init__(self, model: Model, adapter: TrainingAdapter) -> None:
        super().__init__(model, adapter)
        self._apply_masks: Callable[[], None] | None = None
        self._epoch = contextlib.ExitStack()

    def check(self) -> None:
        """Raises ValueError if DSD can't train the model, before anything is changed."""
        self._adapter.check()

    def open(
        self,
        after_first_step: Callable[[], None],
        before_remade_step: Callable[[], frozenset[str]],
    ) -> None:
        """Ends a `fit` that an exception interrupted."""
        del after_first_step, before_remade_step  # the custom loop compiles its own steps
        abandon(self.model)
        self._adapter.open()

    def close(self) -> None:
        """Ends the epoch, if one is open."""
        self._apply_masks = None
        self.end_epoch()
        self._adapter.close()

    def check_extras(self, extras: StepExtras) -> None:
        """Raises ValueError if phases do more in a step than update and mask weights."""
        if extras != NO_EXTRAS:
            raise ValueError(
                f"Expected phases without ema, regrow_decay and criteria of gradients in a custom "
                f"training loop, whose steps are not made here. Received: {extras}. Train by fit, "
                f"or leave them out."
            )

    def use_step(
        self, *, masked: frozenset[str], factors: np.ndarray, extras: StepExtras = NO_EXTRAS
    ) -> None:
        """Observes optimizer updates in an epoch."""
        del masked, extras
        self.end_epoch()
        self._epoch.enter_context(self._adapter.observing(factors))
        self._apply_masks = self._adapter.masking()

    def begin_step(self) -> None:
        """Advances to the next factor of the learning rates."""
        self._adapter.count_step()

    @property
    def factor(self) -> object:
        """The factor of the learning rates in the current step."""
        return self._adapter.factor

    def scaled(self, factor: object) -> contextlib.AbstractContextManager[None]:
        """Multiplies learning rates by an argument of a traced function within a block."""
        return self._adapter.scaled(factor)

    def end_epoch(self) -> None:
        """Ends the observation."""
        self._epoch.close()

    def apply_masks(self) -> None:
        """Sets pruned weights, and moving averages of them, to zero; only within an epoch."""
        if self._apply_masks is not None:
            self._apply_masks()

    def is_tracing(self) -> bool:
        """Returns whether the current call is being traced."""
        return self._adapter.is_tracing()

    def masks_of(self, variables: Sequence[Any] | None) -> list[Any]:
        """Returns the active masks of variables; None for all trainable ones."""
        return self._adapter.masks_of(variables)
