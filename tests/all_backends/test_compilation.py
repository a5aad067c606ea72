"""A run compiles one training step more than plain `fit`: the masked one; re-dense reuses dense."""

import contextlib
import importlib
import logging

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import keras
from tests.helpers.unit_gradient import DATA, net, total

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(BACKEND == "torch", reason="PyTorch compiles nothing")


def mobile():
    """Returns a block of MobileNetV2: convolutions, statistics of batches, and dropout."""
    make = keras.layers
    expanded = [make.Conv2D(16, 1, use_bias=False), make.BatchNormalization(), make.ReLU(6.0)]
    depthwise = [make.DepthwiseConv2D(3, use_bias=False), make.BatchNormalization()]
    last = [make.GlobalAveragePooling2D(), make.Dropout(0.2), make.Dense(32), make.Dense(2)]
    return keras.Sequential([make.Input((8, 8, 3)), *expanded, *depthwise, *last])


IMAGES = np.random.default_rng(0).random((32, 8, 8, 3), "float32"), DATA[1]


@contextlib.contextmanager
def compilations():
    """Yields a list that gets an entry for each training step that XLA compiles for JAX."""
    jax, found = importlib.import_module("jax"), []

    class Handler(logging.Handler):
        def emit(self, record):
            message = record.getMessage()
            if message.startswith("Compiling ") and "train_step" in message.split(" with ")[0]:
                found.append(message)

    handler, logger = Handler(), logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles(True):
            yield found
    finally:
        logger.removeHandler(handler)


def steps(make, data, epochs, *callbacks):
    """Returns how many training steps are traced and, on JAX, compiled."""

    def counted(true, outputs):
        calls.append(1)
        return total(true, outputs)

    calls = []
    model = dsd.apply(make(), 0.5) if callbacks else make()
    model.compile("adam", counted)
    options = {"batch_size": 8, "epochs": epochs, "verbose": 0, "callbacks": list(callbacks)}
    with compilations() if BACKEND == "jax" else contextlib.nullcontext([]) as compiled:
        model.fit(*data, **options)
    return np.array([len(calls), len(compiled)])


def ramps():
    """Returns seven phases: growing and new masks, learning rates that differ and change."""
    sparse = dsd.SparsePhase(3, ramp=2, lr="cosine")
    again = dsd.SparsePhase(1, sparsity=0.25, lr=0.5)
    return [dsd.DensePhase(1), sparse, dsd.DensePhase(1, lr=0.1), again,
            dsd.DensePhase(1, lr="linear"), again, dsd.DensePhase(1)]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Less than half of model=")
@pytest.mark.parametrize(
    ("make", "data"), [(net, DATA), pytest.param(mobile, IMAGES, marks=pytest.mark.slow)]
)
def test_a_run_compiles_one_training_step_more(make, data):
    plain = steps(make, data, 3)
    more = plain + np.array([1, BACKEND == "jax"])
    dense = dsd.DSDSchedule(phases=[dsd.DensePhase(3)])
    assert np.array_equal(steps(make, data, 3, dense), plain)
    assert np.array_equal(steps(make, data, 5, dsd.DSDSchedule(1, 1, 3)), more)
    assert np.array_equal(steps(make, data, 9, dsd.DSDSchedule(phases=ramps())), more)


@pytest.mark.only_on("tf_keras", "tensorflow")
def test_the_updates_of_a_masked_step_read_the_count_of_updates_once(monkeypatch):
    """Operations that depend on nothing else are then equal for all variables."""
    kind = keras.optimizers.Adam
    read, updated = [], []

    def iterations(self):
        if updated:
            read.append(self._iterations)
        return self._iterations

    def update_step(self, gradient, variable, *rate):
        updated.append(variable)
        try:
            return plain(self, gradient, variable, *rate)
        finally:
            updated.clear()

    plain = kind.update_step
    monkeypatch.setattr(kind, "iterations", property(iterations))
    monkeypatch.setattr(kind, "update_step", update_step)
    model = dsd.apply(net(), 0.5)
    model.compile(kind(0.1), total)
    model.fit(*DATA, batch_size=8, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    variables = [each for each in read if hasattr(each, "assign")]
    tensors = [each for each in read if not hasattr(each, "assign")]
    assert variables and len(tensors) > 1 and len({id(each) for each in tensors}) == 1
