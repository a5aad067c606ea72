import keras
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """320 real images of 8 x 8 digits, and their labels: ten batches of 32."""
    x, y = load_digits(return_X_y=True)
    return (x[:320] / 16).astype("float32").reshape(-1, 8, 8, 1), y[:320]


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.clear_session(free_memory=False)  # looking through all memory takes its time
    keras.utils.set_random_seed(1)


@pytest.fixture
def compiled():
    """Compiles a model for digits and returns it."""

    def compile_(model, optimizer="adam", **options):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, **options)
        return model

    return compile_


@pytest.fixture
def mlp():
    """Makes a small model of 8 x 8 digits."""

    def make():
        layers = keras.layers
        return keras.Sequential([
            layers.Input((8, 8, 1)), layers.Flatten(),
            layers.Dense(16, activation="relu"), layers.Dense(10),
        ])  # fmt: skip

    return make
