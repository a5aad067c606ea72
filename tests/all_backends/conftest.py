import paths
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """320 real images of 8 x 8 digits, and their labels: ten batches of 32."""
    x, y = load_digits(return_X_y=True)
    return (x[:320] / 16).astype("float32").reshape(-1, 8, 8, 1), y[:320]


@pytest.fixture(autouse=True)
def _seeded():
    paths.fresh()
    paths.seed(1)


@pytest.fixture
def compiled():
    """Compiles a model for digits and returns it."""
    return lambda *args, **options: paths.compiled(*args, **{"metrics": None, **options})


@pytest.fixture
def mlp():
    """Makes a small model of 8 x 8 digits."""
    return paths.classifier
