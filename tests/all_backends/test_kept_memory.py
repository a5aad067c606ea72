"""TensorFlow keeps all that the steps of plain training read; of a run with DSD it keeps none."""

import gc
import importlib
import weakref

import pytest

import keras_dsd as dsd
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


@pytest.mark.parametrize(
    "how",
    [
        {},
        pytest.param({"scaled": True}, marks=pytest.mark.slow),
        pytest.param({"steps_per_execution": 2}, marks=pytest.mark.slow),
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
)
def test_no_training_step_stays_in_memory(how):
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
