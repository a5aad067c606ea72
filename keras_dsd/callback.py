"""DSDSchedule: a thin Keras callback over the controller, for both Kerases."""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

from keras_dsd.adapters import registry
from keras_dsd.algorithm import presets
from keras_dsd.algorithm.learning_rates import Decay, GivenLearningRate
from keras_dsd.algorithm.phases import Phase
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine.batch_norm import BatchSource, check_batches
from keras_dsd.engine.controller import Controller
from keras_dsd.engine.observers import Observer, check_observers
from keras_dsd.engine.trainer import Trainer
from keras_dsd.protocols import UpdateCount
from keras_dsd.utils import checks
from keras_dsd.utils.checks import shown
from keras_dsd.utils.logs import logged, plain


def _hook(self: Any, *args: Any, **kwargs: Any) -> None:
    """Does nothing."""


class Hooks:
    """Base class of a callback that Keras 2 and Keras 3 both accept.

    Both call hooks by name and require no base class. The attributes that their callback lists read
    are defined here too: batch hooks do nothing, so no step waits for one.
    """

    _supports_tf_logs = True
    async_safe = True

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.model: Any = None

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Receives the parameters of `fit`."""
        self.params = params or {}

    def set_model(self, model: Any) -> None:
        """Receives the model."""
        self.model = model

    def _implements_train_batch_hooks(self) -> bool:
        return False

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    on_train_begin = on_train_end = on_epoch_begin = on_epoch_end = _hook
    on_train_batch_begin = on_train_batch_end = on_batch_begin = on_batch_end = _hook
    on_test_begin = on_test_end = on_test_batch_begin = on_test_batch_end = _hook
    on_predict_begin = on_predict_end = on_predict_batch_begin = on_predict_batch_end = _hook


class InLastPhase:
    """A Keras callback that receives only epochs and batches of the last phase.

    `DSDSchedule.in_last_phase` returns it. All other calls, including the start and end of
    training, are forwarded. If the last phase starts within an epoch, the callback receives the
    rest of this epoch.
    """

    def __init__(self, callback: Any, is_reached: Callable[[], bool]) -> None:
        self._callback = callback
        self._is_reached = is_reached
        # Arguments of `on_epoch_begin` that are not forwarded so far.
        self._begun: tuple[Any, ...] | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "_callback":  # while this is unpickled
            raise AttributeError(name)
        return getattr(self._callback, name)

    def _sees(self) -> bool:
        if not self._is_reached():
            return False
        begun, self._begun = self._begun, None
        if begun is not None:
            self._callback.on_epoch_begin(*begun)
        return True

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Passes the start of an epoch on."""
        self._begun = epoch, logs
        self._sees()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Passes the end of an epoch on."""
        if self._sees():
            self._callback.on_epoch_end(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Passes the start of a batch on."""
        if self._sees():
            self._callback.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Passes the end of a batch on."""
        if self._sees():
            self._callback.on_train_batch_end(batch, logs)


class DSDSchedule(Hooks):
    """Takes a model through Dense, Sparse and re-Dense training inside one `fit`.

    The current phase is derived from the epoch number. Call `fit` with at least the total number of
    epochs of the schedule; extra epochs extend the last phase. If `fit` ends before the last phase,
    a warning is issued, and `initial_epoch` resumes the run in another `fit` with this schedule or
    an equal one.

    Every epoch's logs get `dsd_phase` (index), `dsd_sparsity` (measured fraction of zeros among the
    selected weights), `dsd_epochs_left` (remaining epochs of the phase; an upper bound if `until`
    may end it early) and `dsd_learning_rate` (in use, of the first optimizer). Put this callback
    before those that read logs. When a phase starts, a message describes the changes; it is printed
    if `fit` shows its progress, and logged otherwise.

    Phases may be counted in optimizer steps instead, also mixed with phases in epochs:
    `DensePhase(steps=2000)` ends with the batch that makes its last step, and the next phase starts
    with the next batch, within the epoch. Logs then hold the phase at the end of the epoch, and
    `dsd_steps`, the steps of the run so far.

    A phase multiplies the learning rate within each update. It never sets
    `optimizer.learning_rate`, which you can read and set at any time.

    Args:
        dense: Epochs of the first phase, ordinary training; `0` starts from a trained model.
        sparse: Epochs of the second phase, under a fixed mask. At least 1.
        redense: Epochs of the third phase, in which pruned weights regrow from zero. At least 1.
        redense_lr: Learning rate in the third phase, as `lr` of `DensePhase`. Defaults to `0.1`.
        phases: List of phases, in place of the arguments above.
        reset: Optimizer state, such as momentum, that is reset when weights are pruned and when
            they regrow. `"pruned"`: that of these weights. `"all"`: that of all weights, except
            moving averages of weights and the slots of Ftrl, from which it computes the weights.
            `"none"`: no state. AC/DC resets all state, but only when weights regrow. Defaults to
            `"pruned"`.
        remaining_epochs: Use of the epochs that a phase with `until` leaves unused: `"redense"`
            adds them to the last phase, `"stop"` drops them, and ends training with the last step
            of a last phase that is counted in steps. Defaults to `"redense"`.
        backup_dir: Folder for the values that `until` monitors and the best weights that it
            restores, so that `initial_epoch` can resume a run with `until` in another process; and
            for the steps of each epoch, if phases are counted in steps. Use one folder per run.
            Defaults to `None`: nothing is written.
        batch_norm_data: Batches of training data, as `fit` takes them, that can be read repeatedly:
            a list, a `tf.data.Dataset`, a `PyDataset` or a `DataLoader`. After pruning, the moving
            mean and variance of each trainable BatchNormalization are set to the averages over
            these batches, of the pruned model in training mode. Defaults to `None`: training
            continues from the statistics of the dense model.
        batch_norm_batches: Maximum number of these batches to use. Defaults to `100`.
        initial_step: For phases counted in steps: number of steps that the run has made when `fit`
            starts with an optimizer that has made updates. `0` starts a new run from a trained
            model. Runs that `initial_epoch` resumes have their own count. Defaults to `None`: all
            updates of the optimizer belong to the run, which resumes after them, with a warning.
        observers: Observers that are notified of the run: `WeightHistory()`,
            `DSDTensorBoard(...)`, or a subclass of `Observer`. Defaults to `()`.

    Raises:
        TypeError: Epochs are not integers, `redense_lr` is not a learning rate, arguments are
            missing or given both ways, or `batch_norm_data` or `observers` is of the wrong type.
        ValueError: Epochs are too few, `redense_lr` is not above 0, `phases` is empty, or `reset`
            or `remaining_epochs` is unknown.

    Examples:
        >>> print(DSDSchedule(dense=10, sparse=5, redense=10).timeline)
        dense for 10 epochs, then sparse for 5 epochs, then dense for 10 epochs at 0.1 times the \
learning rate

    Reference:
        Han et al., 2017, arXiv:1607.04381, Algorithm 1.
    """

    def __init__(
        self,
        dense: int | None = None,
        sparse: int | None = None,
        redense: int | None = None,
        *,
        redense_lr: GivenLearningRate = 0.1,
        phases: "list[Phase] | None" = None,
        reset: str = "pruned",
        remaining_epochs: str = "redense",
        backup_dir: "str | os.PathLike[str] | None" = None,
        batch_norm_data: BatchSource | None = None,
        batch_norm_batches: int = 100,
        initial_step: int | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        lengths = {"dense": dense, "sparse": sparse, "redense": redense}
        if phases is None:
            phases = _three_phases(lengths, redense_lr)
        elif any(epochs is not None for epochs in lengths.values()):
            raise TypeError(
                f"Expected either `phases` or `dense`, `sparse` and `redense`. "
                f"Received: phases={shown(phases)} and {shown(lengths)}. Give one of the two."
            )
        super().__init__()
        self.timeline = Timeline(phases)
        self.reset = checks.choice("reset", reset, ("pruned", "all", "none"))
        self.remaining_epochs = checks.choice(
            "remaining_epochs", remaining_epochs, ("redense", "stop")
        )
        self.backup_dir = checks.path("backup_dir", backup_dir, "folder", "run/dsd")
        self.batches = check_batches(batch_norm_data, batch_norm_batches)
        if initial_step is not None:
            checks.whole_number("initial_step", initial_step, least=0, unit="steps")
            if not self.timeline.counts_steps:
                raise checks.invalid(
                    "initial_step", initial_step, "to be None where no phase is counted in steps",
                    "Leave it out; `initial_epoch` of fit resumes phases counted in epochs.",
                )  # fmt: skip
        self.initial_step = initial_step
        self.observers = check_observers(observers)
        self._controller: Controller | None = None
        self._earlier: UpdateCount | None = None

    @classmethod
    def for_epochs(
        cls, epochs: int, *, decay: "str | Decay | None" = "steps", **options: Any
    ) -> "DSDSchedule":
        """Returns a schedule of three phases that take a number of epochs together.

        Three fifths are dense, a fifth sparse, a fifth dense again, each with a learning rate that
        restarts and decays; `presets.for_epochs` describes the evidence.

        Args:
            epochs: All epochs together. At least 3.
            decay: How the learning rate decays inside each phase, as `presets.for_epochs` takes it;
                `None` for an optimizer with a learning rate schedule. Defaults to `"steps"`.
            options: Other arguments of `DSDSchedule`.

        Raises:
            TypeError: `epochs` is not an integer, `decay` no name or `Decay`, or an option unknown.
            ValueError: `epochs` is below 3, or `decay` is unknown.

        Examples:
            >>> print(DSDSchedule.for_epochs(30).timeline.epochs)
            30
        """
        return cls(phases=presets.for_epochs(epochs, decay=decay), **options)

    def __repr__(self) -> str:
        return f"<DSDSchedule: {self.timeline}>"

    def in_last_phase(self, callback: Any) -> InLastPhase:
        """Returns `callback` for `fit`, limited to epochs of the last phase.

        `ModelCheckpoint(save_best_only=True)` and `EarlyStopping` ignore phases: the best epoch may
        be a sparse one, and a phase change may look like the end of progress. Limited to the last
        phase, they compare only its epochs. A run that resumes in the last phase starts the
        comparison again, as in any `fit`.

        Args:
            callback: A callback of the same Keras as the model. Not `BackupAndRestore`, which needs
                every epoch.

        Raises:
            TypeError: `callback` is not a callback, or is a `DSDSchedule`.
            ValueError: `callback` restores the best weights, and the last phase has `ema`.

        Examples:
            >>> schedule = DSDSchedule(dense=10, sparse=10, redense=10)
            >>> best = keras.callbacks.ModelCheckpoint("best.keras", save_best_only=True)
            >>> callbacks = [schedule, schedule.in_last_phase(best)]
        """
        hooks = ("set_model", "on_epoch_begin", "on_epoch_end", "on_train_batch_end")
        is_callback = all(callable(getattr(callback, hook, None)) for hook in hooks)
        if not is_callback or isinstance(callback, DSDSchedule | type):
            hint = (
                "Give keras.callbacks.ModelCheckpoint(...) or keras.callbacks.EarlyStopping(...)."
            )
            raise checks.invalid_type("callback", callback, "to be a Keras callback", hint)
        ema = getattr(self.timeline.phases[-1], "ema", None)
        if ema is not None and getattr(callback, "restore_best_weights", False):
            raise ValueError(
                f"Expected a callback that restores no best weights, as the last phase has "
                f"ema={ema}: the run ends with either. Received: {type(callback).__name__}("
                f"restore_best_weights=True). Leave one of the two out."
            )
        return InLastPhase(callback, self._is_in_last_phase)

    def _is_in_last_phase(self) -> bool:
        return self._controller is not None and self._controller.is_in_last_phase

    def controller(self, trainer: Trainer) -> Controller:
        """Returns the controller that takes a model through the phases."""
        return Controller(
            self.timeline, trainer, self.reset, self.remaining_epochs, self.backup_dir,
            self.batches, self.observers,
        )  # fmt: skip

    def set_model(self, model: Any) -> None:
        """Receives the model that trains, before a callback may load its optimizer."""
        super().set_model(model)
        self._earlier = None
        if self.timeline.needs_steps:
            with contextlib.suppress(TypeError, ValueError):  # on_train_begin raises them
                adapter = registry.adapter_of(model).training_adapter(model)
                self._earlier = adapter.update_count()

    def _implements_train_batch_hooks(self) -> bool:
        return self.timeline.needs_steps

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Checks the model, before the first batch.

        Raises:
            ValueError: The model was not passed through `apply`, can't be trained by DSD, or has
                another `DSDSchedule` in this `fit`.
        """
        adapter = registry.adapter_of(self.model).training_adapter(self.model)
        self._controller = self.controller(Trainer(self.model, adapter))
        self._controller.start(
            self.params.get("epochs"), bool(self.params.get("verbose")),
            self.params.get("steps"), self._earlier, self.initial_step,
        )  # fmt: skip

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Enters the phase of `epoch`."""
        self._open_controller().begin_epoch(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Enters the phase of a step, where that starts within an epoch."""
        if not self.timeline.needs_steps:
            return
        controller = self._open_controller()
        controller.begin_batch(int(batch))  # NumPy's, where tf_keras resumes within an epoch
        if controller.is_last_step:
            self.model.stop_training = True  # Keras asks once the batch is over

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Adds the measurements of DSD to the logs."""
        measured = self._open_controller().end_epoch({} if logs is None else logs)
        if logs is not None:
            logs.update(logged(measured))
        if self._open_controller().is_over:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Restores the model's own training; warns if weights are still pruned."""
        self._open_controller().stop()
        self._controller = None
        history = getattr(getattr(self.model, "history", None), "history", {})
        for values in history.values():
            values[:] = map(plain, values)  # no progress bar reads it

    def _open_controller(self) -> Controller:
        if self._controller is None or not self._controller.is_open:
            raise ValueError(
                "Expected on_train_begin() before the other hooks of DSDSchedule. "
                f"Received: model={shown(self.model)}. Call set_model(model) and on_train_begin()."
            )
        return self._controller


def _three_phases(lengths: dict[str, int | None], redense_lr: GivenLearningRate) -> list[Phase]:
    missing = [name for name, epochs in lengths.items() if epochs is None]
    if missing:
        raise TypeError(
            f"Expected `dense`, `sparse` and `redense`, in epochs. Received: {missing[0]}=None. "
            f"Write DSDSchedule(dense=10, sparse=10, redense=10), or DSDSchedule(phases=[...]) for "
            f"a list of phases."
        )
    return presets.dsd(*lengths.values(), redense_lr=redense_lr)  # type: ignore[arg-type]
