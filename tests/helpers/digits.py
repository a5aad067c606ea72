"""scikit-learn's digits: 1,797 real images of 8 x 8."""

from sklearn.datasets import load_digits


def images(count=320):
    """The first images, in [0, 1] and with one channel, and their labels."""
    x, y = load_digits(return_X_y=True)
    return (x[:count] / 16).astype("float32").reshape(-1, 8, 8, 1), y[:count]


def rows(count=320):
    """The first images as rows of 64 pixels, and their labels."""
    x, y = images(count)
    return x.reshape(len(x), -1), y
