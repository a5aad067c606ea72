"""One path, for the contract suite. Each path runs in a separate process."""

import contextlib
import importlib
import os

import numpy as np
import pytest

PATH = os.environ.get("KERAS_DSD_PATH", "tf_keras")

if PATH not in ("tf_keras", "keras"):
    raise ValueError(f"Expected KERAS_DSD_PATH to be tf_keras or keras. Received: {PATH!r}.")

keras = importlib.import_module(PATH)
# What programs of this path import, at once or late.
IMPORTS = ["tensorflow", "sklearn.datasets", "matplotlib.backends.backend_agg", "keras_dsd", PATH]
IMPORTS += [f"keras_dsd.adapters.{'tf_keras' if PATH == 'tf_keras' else 'keras3'}"]
IMPORTS += ["tensorflow_model_optimization"] * (PATH == "tf_keras")

# The prefix of the paths of a Sequential model's weights in Keras 3; tf_keras has none.
IN = "" if PATH == "tf_keras" else "sequential/"


def slots(model, weight):
    """Returns the optimizer's slots of `weight`, as arrays by name, found by shape and name."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    return {
        variable.name: np.array(variable)
        for variable in variables
        if tuple(variable.shape) == tuple(weight.shape) and _is_slot(variable.name, weight.path)
    }


def _is_slot(name, path):
    if PATH == "tf_keras":
        return f"/{path}:0" in f"/{name}"
    return name.startswith(path.replace("/", "_") + "_")


def rate(model):
    """Returns the learning rate that the optimizer shows, in the dtype it is kept in."""
    value = model.optimizer.learning_rate
    if PATH == "tf_keras":
        # A legacy optimizer shows its schedule itself.
        value = value(model.optimizer.iterations) if callable(value) else value
        return np.float32(keras.backend.get_value(value))
    return np.float32(keras.ops.convert_to_numpy(value))


def left_behind(model):
    """Returns what of a run is left on the model and its optimizer."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    on_model = {"train_step", "make_train_function", "reset_metrics"} & set(vars(model))
    ours = {"apply", "update_step", "_backend_update_step", "get_config"}  # Keras 3's
    ours |= {"_update_step", "_update_step_xla", "_internal_apply_gradients"}  # tf_keras's
    on_optimizer = ours & set(vars(optimizer))
    return on_model | on_optimizer


def name_of(variable):
    """Returns what tells a variable from the model's others."""
    return variable.name if PATH == "tf_keras" else variable.path


@contextlib.contextmanager
def double_precision():
    """Has float64 mean what it says; JAX takes it for float32 otherwise."""
    if keras.backend.backend() != "jax":
        yield
        return
    config = importlib.import_module("jax").config  # JAX's context manager has moved about
    config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        config.update("jax_enable_x64", False)


def fresh():
    """Resets names; Keras 3 would look through all memory as well, which takes its time."""
    keras.backend.clear_session(**({} if PATH == "tf_keras" else {"free_memory": False}))


def seed(value):
    """Seeds Python, NumPy and the backend."""
    keras.utils.set_random_seed(value)


def classifier(kind="mlp"):
    """Returns an uncompiled model of 8 x 8 digits."""
    layers = keras.layers
    if kind == "mlp":
        body = [layers.Flatten(), layers.Dense(16, activation="relu")]
    else:
        body = [
            layers.Conv2D(6, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(16, activation="relu", kernel_regularizer="l2"),
        ]
    return keras.Sequential([layers.Input((8, 8, 1)), *body, layers.Dense(10)])


def compiled(model, optimizer=None, **options):
    """Compiles `model` for digits and returns it; TensorFlow traces Adam in twice the time."""
    optimizer = optimizer or keras.optimizers.SGD(0.01, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **{"metrics": ["accuracy"], **options})
    return model


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(1e-3),
    "adamw": lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.01),
}


def optimizer_cases(*quick, slow=()):
    """Returns OPTIMIZERS as parameters: the quick ones, the slow ones, the others exhaustive.

    Differences of optimizers have separate tests; these are of what all have in common.
    """
    rest = [pytest.mark.slow, pytest.mark.exhaustive]
    marks = {name: [] if name in quick else rest[: 1 if name in slow else 2] for name in OPTIMIZERS}
    return [pytest.param(name, marks=marks[name], id=name) for name in OPTIMIZERS]


# Without momentum, tf_keras keeps a slot for it all the same.
NUM_SLOTS = {"sgd": int(PATH == "tf_keras"), "momentum": 1, "adam": 2, "adamw": 2}


class Watch(keras.callbacks.Callback):
    """Records, at every batch end, what `look` returns."""

    def __init__(self, look):
        super().__init__()
        self.look = look
        self.seen = []
        self.epochs = []
        self.epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.look(self.model))
        self.epochs.append(self.epoch)

    def of_epoch(self, epoch):
        """Returns what was seen in one epoch, by batch."""
        return [seen for seen, e in zip(self.seen, self.epochs, strict=True) if e == epoch]


def arrays(model):
    """Returns the model's weights as arrays, by order."""
    return [np.array(value) for value in model.get_weights()]


def optimizer_arrays(model):
    """Returns the optimizer's variables as arrays, by order."""
    found = model.optimizer.variables
    return [np.array(each) for each in (found() if callable(found) else found)]
