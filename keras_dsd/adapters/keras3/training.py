"""Training adapter and training state of Keras 3 models."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import keras
from keras.src.utils import naming

from keras_dsd.adapters.base import training as base
from keras_dsd.adapters.base.optimizers import AnyOptimizer, OptimizerFunctions
from keras_dsd.adapters.base.training_state import TrainingState
from keras_dsd.adapters.keras3 import backends, kernels, optimizer
from keras_dsd.adapters.keras3.learning_rate import AssignedRates, LearningRates
from keras_dsd.adapters.keras3.masked_updates import MaskedUpdates
from keras_dsd.adapters.keras3.weight import Weight
from keras_dsd.protocols import Inputs, Step
from keras_dsd.utils.patches import Patch, patched


class TrainingAdapter(base.TrainingAdapter[Weight]):
    """The training of one Keras 3 model."""

    optimizer_functions: ClassVar[OptimizerFunctions] = optimizer
    model: keras.Model

    def __init__(
        self,
        model: keras.Model,
        weights_of: Callable[[keras.Layer, Sequence[AnyOptimizer]], list[Weight]],
        optimizer: AnyOptimizer | None = None,
    ) -> None:
        super().__init__(model, weights_of, optimizer)
        self._rates = LearningRates() if optimizer is None else AssignedRates()

    @staticmethod
    def known_optimizers() -> tuple[tuple[type, ...], str]:
        """Returns the optimizer classes of a custom training loop, and their package."""
        kinds = (keras.optimizers.Optimizer, *backends.current().optimizers)
        return kinds, "keras.optimizers, or on PyTorch of torch.optim"

    def check(self) -> None:
        """Raises ValueError where there is no optimizer, or NNX hides the training step."""
        if not self.optimizers:
            raise ValueError(
                f"Expected an optimizer. Received: optimizer=None on model={self.model.name!r}. "
                f"Compile the model with an optimizer from keras.optimizers."
            )
        if getattr(keras.config, "is_nnx_enabled", bool)():
            raise ValueError(
                "Expected Keras without NNX, which trains past a model's own train_step. Received: "
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

    def scale(self, lr: float) -> None:
        """Multiplies the learning rates."""
        self._rates.scale(self.optimizers, lr)

    def unscale(self) -> None:
        """Undoes `scale`."""
        self._rates.unscale()

    def prints(self) -> bool:
        """Returns whether Keras prints its progress instead of logging it."""
        return bool(keras.config.is_interactive_logging_enabled())

    def masking(self) -> Callable[[], None]:
        """Returns a function that masks the currently masked weights and their averages."""
        return MaskedUpdates(self.model, self.masked_weights(), self.optimizers).mask_all

    def is_tracing(self) -> bool:
        """Returns whether the current call is traced, to be run again and again."""
        return backends.current().is_tracing()

    def traced(self, lr: float) -> float:
        """Returns `lr`: a compiled step contains the factor of the learning rate."""
        return lr

    def make_step(self, masked: bool, lr: float) -> dict[str, Step | None]:
        """Returns the attributes that make the model train by a step of its own."""
        patches: list[Patch] = []
        if masked:
            updates = MaskedUpdates(self.model, self.weights, self.optimizers)
            patches = updates.patches()
        elif lr != 1.0:
            patches = [Patch(vars(self.model), "train_step", _anew(self.model.train_step))]
        patched(type(self.model).make_train_function, patches)(self.model, True)
        step = self.model.train_function
        if masked:
            step = patched(backends.current().feed(step, updates.masks), patches)
        return {"train_function": step}


def _anew(train_step: Step) -> Step:
    """Returns `train_step` as another function: JAX would run what it compiled for the same one."""
    return lambda *args: train_step(*args)


class _TrainingState(TrainingState):
    """Reads and writes the state of Keras 3 models."""

    def begin(self, seed: int) -> None:
        """Seeds Python, NumPy and the backend, and resets the names that Keras makes up."""
        naming.reset_uids()
        self.seed(seed)

    def is_built(self, model: keras.Model) -> bool:
        """Returns whether all weights are built."""
        return all(part.built for part in kernels.parts_of(model))

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


training_state = _TrainingState(keras, optimizer)
