"""Arithmetic of learning rates."""

import numpy as np


def multiply(rate: np.floating, factor: float) -> np.float32:
    """Returns `rate * factor` as the backends compute it; NumPy 1 would make it a float64."""
    return np.float32(rate) * np.float32(factor)


def divide(rate: np.floating, factor: float) -> np.float32:
    """Returns the float32 that, multiplied by `factor`, gives `rate` again where there is one."""
    near = np.float32(rate / factor)
    candidates = [near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))]
    return next((c for c in candidates if multiply(c, factor) == rate), near)
