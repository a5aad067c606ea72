"""Training adapter and training state of Keras 3 models."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
from keras.src.utils import naming

from keras_dsd.adapters.base import training as base
from keras_dsd.adapters.base.observation import AnyOptimizer, Observation
from keras_dsd.adapters.base.optimizers import OptimizerFunctions
from keras_dsd.adapters.base.plain_fits import PlainFits
from keras_dsd.adapters.base.step_state import StepState
from keras_dsd.adapters.base.training_state import TrainingState
from keras_dsd.adapters.keras3 import backends, kernels, mask_store, optimizer
from keras_dsd.adapters.keras3.backends import ObservedStep
from keras_dsd.adapters.keras3.hooks import HOOKS, PLAIN_FITS
from keras_dsd.adapters.keras3.masked_updates import MaskedUpdates, is_the_users
from keras_dsd.adapters.keras3.observed_once import ObservedOnce
from keras_dsd.adapters.keras3.weight import Weight
from keras_dsd.protocols import Inputs, Step, StepExtras, UpdateCount
from keras_dsd.utils.patches import Patch, patched


class _TrainingState(TrainingState):
    """Reads and writes the state of Keras 3 models."""

    def begin(self, seed: int) -> None:
        """Seeds Python, NumPy and the backend, and resets the names that Keras generates."""
        naming.reset_uids()
        self.seed(seed)

    def is_built(self, model: keras.Model) -> bool:
        """Returns whether all weights are built."""
        return kernels.is_built(model)

    def variables(self, model: keras.Model) -> list[keras.Variable]:
        """Returns the variables that hold the state."""
        self.sync(model)
        if not self.is_known(model):
            return list(model.variables)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        return [*model.variables, *model.optimizer.variables]

    def sync(self, model: keras.Model) -> None:
        """Updates the variables from a `fit` in progress."""
        backends.sync(model)

    def weights(self, model: keras.Model) -> list[keras.Variable]:
        """Returns the variables that are the model's weights."""
        return list(model.weights)

    def parts_of(self, variable: keras.Variable) -> dict[str, np.ndarray]:
        """Returns copies of a variable's values by their index, which is empty for all of them."""
        found = backends.current().parts_of(variable)
        return super().parts_of(variable) if found is None else found

    def set_parts(self, variable: keras.Variable, parts: Mapping[str, np.ndarray]) -> None:
        """Sets the values of a variable to copies of them."""
        if "" in parts:
            super().set_parts(variable, parts)
        else:
            backends.current().set_parts(variable, parts)

    def process(self) -> tuple[int, int]:
        """Returns the index of this process, and the number of processes."""
        return backends.current().process()

    def copy_adapted(self, layer: keras.Layer, to: keras.Layer) -> None:
        """Copies the state of `adapt` to a layer of the same config, through its file format."""
        variables: dict[str, object] = {}
        layer.save_own_variables(variables)
        to.load_own_variables(variables)
        if hasattr(layer, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                layer.save_assets(folder)
                to.load_assets(folder)


training_state = _TrainingState(keras, optimizer)


class TrainingAdapter(base.TrainingAdapter[Weight]):
    """The training of one Keras 3 model."""

    optimizer_functions: ClassVar[OptimizerFunctions] = optimizer
    state: ClassVar[TrainingState] = training_state
    plain_fits: ClassVar[PlainFits] = PLAIN_FITS
    model: keras.Model

    @staticmethod
    def known_optimizers() -> tuple[tuple[type, ...], str]:
        """Returns the optimizer classes of a custom training loop, and their package."""
        kinds = (keras.optimizers.Optimizer, *backends.current().optimizers)
        return kinds, "keras.optimizers, or on PyTorch of torch.optim"

    def check(self) -> None:
        """Raises ValueError if there is no optimizer, or NNX hides the training step."""
        if not self.optimizers:
            raise ValueError(
                f"Expected an optimizer. Received: optimizer=None on model={self.model.name!r}. "
                f"Compile the model with an optimizer from keras.optimizers."
            )
        if getattr(keras.config, "is_nnx_enabled", bool)():
            raise ValueError(
                "Expected Keras without NNX, which bypasses the train_step of a model. Received: "
                "is_nnx_enabled()=True. Set KERAS_NNX_ENABLED=false before Keras is imported."
            )

    def reset_optimizers(self) -> None:
        """Resets all slots of the optimizers to their initial value, except moving averages."""
        backends.sync(self.model)
        for each in self.optimizers:
            optimizer.reset_all(each)

    @property
    def batch_norms(self) -> list[keras.layers.BatchNormalization]:
        """The BatchNormalization layers that train."""
        backends.sync(self.model)
        kind = keras.layers.BatchNormalization
        return [p for p in kernels.parts_of(self.model) if isinstance(p, kind) and p.trainable]

    def forward(self, inputs: Inputs) -> None:
        """Runs the model on the inputs of a batch, in training mode."""
        backends.current().forward(self.model, inputs)

    def _make_observation(self, optimizers: Sequence[AnyOptimizer] | None) -> Observation:
        strategy = getattr(self.model, "distribute_strategy", None)
        factors = backends.current().factors_of(self.model)
        return Observation(factors, strategy, optimizers, optimizer.LOSS_SCALES)

    def _hooks(self) -> contextlib.AbstractContextManager[object]:
        hooks = contextlib.ExitStack()
        hooks.enter_context(HOOKS)
        hooks.enter_context(backends.current().loop_hooks(self._observation))
        return hooks

    @property
    def has_own_train_step(self) -> bool:
        """True if the model has a custom training step, which may not train all weights."""
        return "train_step" in vars(self.model) or is_the_users(type(self.model).train_step)

    def _is_updated(self, variable: keras.Variable) -> bool:
        # Users may pass an optimizer the variable of the backend.
        return self._observation.has_updated(variable, getattr(variable, "_value", None))

    def untrained(self) -> list[Weight]:
        """Returns the weights that are known to be trained by no optimizer."""
        backends.sync(self.model)
        return super().untrained()

    def _forget_untrained(self) -> None:
        for part in kernels.parts_of(self.model):
            store = mask_store.get(part)
            if store is not None:
                store.forget_untrained()

    def learning_rates(self) -> list[float]:
        """Returns the current learning rates, without the factor."""
        backends.sync(self.model)
        return super().learning_rates()

    def update_count(self) -> UpdateCount | None:
        """Returns the count of the optimizer that has made the most steps; None: none counts."""
        backends.sync(self.model)
        return super().update_count()

    @property
    def batches_per_execution(self) -> int:
        """Maximum number of batches in one call of the compiled step."""
        return int(self.model.steps_per_execution)

    @property
    def is_chief(self) -> bool:
        """True if this process writes files: the first of those that train the model."""
        return backends.current().is_chief(self.model)

    def check_same(self, arguments: str) -> None:
        """Checks that all processes that have parts of a weight were given the same arguments."""
        backends.current().check_same([each.variable for each in self.weights], arguments)

    def is_same(self, digest: bytes) -> bool:
        """Returns whether all processes that train the model have the same digest."""
        return backends.current().is_same(self.model, digest)

    @property
    def divided(self) -> list[str]:
        """Paths of the weights of which this process has a part alone."""
        backend = backends.current()
        return [each.path for each in self.weights if not backend.has_all(each.variable)]

    def prints(self) -> bool:
        """Returns whether Keras prints its progress instead of logging it."""
        return bool(keras.config.is_interactive_logging_enabled())

    def masking(self) -> Callable[[], None]:
        """Returns a function that masks the currently masked weights and their averages."""
        optimizers = self.optimizers
        return MaskedUpdates(self.model, self.masked_weights(), lambda: optimizers).mask_all

    def is_tracing(self) -> bool:
        """Returns whether the current call is being traced."""
        return backends.current().is_tracing()

    def _make_step_state(self) -> StepState[Any]:
        return backends.current().make_step_state(self.model, lambda: self.weights)

    def make_step(self, masked: bool, extras: StepExtras) -> dict[str, Step | None]:
        """Returns the attributes that set a new training step on the model."""
        backend = backends.current()
        updates = None
        if masked:
            updates = MaskedUpdates(self.model, self.masked_weights(), lambda: self.optimizers)
        on_optimizer = self._hooks_of_optimizer()
        hooks = HOOKS if on_optimizer is None else None
        step = ObservedStep(self.model, self._observation, hooks, updates, self.step_state, extras)
        plain = self.model.train_step
        train_step = backend.train_step(plain, step)
        # An attribute that comes and goes clears Python's caches of all attributes of the model.
        patches = [] if train_step is plain else [Patch(vars(self.model), "train_step", train_step)]
        made_with = [*patches, *backend.step_patches(step)]
        patched(type(self.model).make_train_function, made_with)(self.model, True)
        train_function = self.model.train_function
        observed = backend.train_function(train_function, step)
        observed = patched(observed, [*patches, *(on_optimizer or ())])
        if on_optimizer is not None and not patches and step.before_update is None:
            observed = ObservedOnce(train_function, observed, step)
        return {"train_function": observed}

    def _hooks_of_optimizer(self) -> list[Patch] | None:
        """Returns the hooks of a step in Python that one optimizer of Keras updates, or None."""
        is_compiled = self.model.jit_compile is True
        if not backends.current().runs_in_python or is_compiled or self.has_own_train_step:
            return None
        found = optimizer.optimizers_of(self.model)
        is_alone = found == [getattr(self.model, "optimizer", None)]
        return HOOKS.patches_of(found[0]) if is_alone else None
