import pathlib

import programs
import pytest
import tf_keras
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """320 real images of 8 x 8 digits, and their labels: ten batches of 32."""
    x, y = load_digits(return_X_y=True)
    return (x[:320] / 16).astype("float32").reshape(-1, 8, 8, 1), y[:320]


@pytest.fixture(autouse=True)
def _seeded():
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(1)


@pytest.fixture
def compiled():
    """Compiles a model for digits and returns it."""

    def compile_(model, optimizer="adam", **options):
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, **options)
        return model

    return compile_


@pytest.fixture
def mlp():
    """Makes a small model of 8 x 8 digits."""

    def make():
        layers = tf_keras.layers
        return tf_keras.Sequential([
            layers.Input((8, 8, 1)), layers.Flatten(),
            layers.Dense(16, activation="relu"), layers.Dense(10),
        ])  # fmt: skip

    return make


@pytest.fixture(scope="session")
def strategy_runs(tmp_path_factory):
    """A folder of what distributed_run.py saw on one device, and under strategies on two."""
    path = tmp_path_factory.mktemp("strategies")
    program = pathlib.Path(__file__).with_name("distributed_run.py")
    programs.run(program, path, "one", "one_device", "mirrored", "central_storage")
    return path
