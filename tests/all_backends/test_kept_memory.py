"""TensorFlow keeps all that the steps of plain training read; of a run with DSD it keeps none."""

import functools
import gc
import importlib
import weakref

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.adapters.base import joined_updates
from tests.helpers.paths import PATH, keras
from tests.helpers.unit_gradient import DATA, net, total

pytestmark = pytest.mark.only_on("tf_keras", "tensorflow")


def train(loss, scaled=False, **options):
    """Trains a model in three phases."""
    optimizer = keras.optimizers.SGD(0.01)
    if scaled:
        package = keras.mixed_precision if PATH == "tf_keras" else keras.optimizers
        optimizer = package.LossScaleOptimizer(optimizer)
    model = dsd.apply(net(), 0.5)
    model.compile(optimizer, loss, **options)
    schedule = dsd.DSDSchedule(1, 1, 1)
    model.fit(*DATA, batch_size=8, epochs=3, verbose=0, callbacks=[schedule])


def compile_from(size, monkeypatch):
    """Has XLA compile the masked updates of tensors of at least `size` values, each by itself."""
    monkeypatch.setattr(joined_updates, "JOINED_SIZE", size)
    monkeypatch.setattr(joined_updates, "COMPILED_SIZE", size)


@pytest.mark.parametrize(
    "how",
    [
        {},
        pytest.param({"scaled": True}, marks=pytest.mark.slow),
        pytest.param({"steps_per_execution": 2}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
)
def test_no_training_step_stays_in_memory(how, monkeypatch):
    compile_from(1, monkeypatch)
    tf, steps = importlib.import_module("tensorflow"), []

    def loss(true, outputs):
        steps.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return total(true, outputs)

    train(loss, **how)
    gc.collect()
    assert len(steps) >= 2 and not [each for each in steps if each() is not None]


@pytest.mark.slow
def test_functions_that_a_step_calls_keep_their_gradients():
    tf = importlib.import_module("tensorflow")

    @tf.function
    def reversed_gradient(x):
        return tf.custom_gradient(lambda x: (tf.identity(x), lambda gradient: -gradient))(x)

    train(lambda true, outputs: total(true, outputs) + reversed_gradient(true)[:, 0])
    x = tf.ones((8, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = reversed_gradient(x)
    assert (tape.gradient(y, x) == -1.0).numpy().all()


def weights_of(optimizer, compiled_from, monkeypatch):
    """Returns the weights of a model of three layers, two of them equal, after a sparse phase."""
    compile_from(compiled_from, monkeypatch)
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(units) for units in (4, 4, 2)]
    model = dsd.apply(keras.Sequential([keras.layers.Input((4,)), *layers]), 0.5)
    model.compile(optimizer, total)
    schedule = dsd.DSDSchedule(phases=[dsd.DensePhase(1), dsd.SparsePhase(1), dsd.DensePhase(1)])
    model.fit(*DATA, batch_size=8, epochs=3, verbose=0, callbacks=[schedule])
    return model.get_weights()


def test_equal_updates_have_one_program(monkeypatch):
    tf_programs = importlib.import_module("keras_dsd.adapters.tf_programs")
    monkeypatch.setattr(tf_programs, "_PROGRAMS", programs := {})
    counts = []
    for beta in (0.9, 0.9, 0.5):
        make = functools.partial(keras.optimizers.Adam, 0.1, beta)
        found = weights_of(make(), 1, monkeypatch)
        counts.append(len(programs))
        plain = weights_of(make(), 2**60, monkeypatch)
        for a, b in zip(found, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    assert counts == [2, 2, 4]  # one for the equal layers, one for the last
