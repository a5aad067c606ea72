import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    """320 real images of 8 x 8 digits, and their labels: ten batches of 32."""
    x, y = load_digits(return_X_y=True)
    return (x[:320] / 16).astype("float32").reshape(-1, 8, 8, 1), y[:320]
