"""Arithmetic of learning rates."""

import numpy as np


def divide(rate: np.floating, factor: float) -> np.float32:
    """Returns the float32 that, multiplied by `factor`, gives `rate` again where there is one."""
    near = np.float32(rate / factor)
    candidates = [near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf))]
    return next((c for c in candidates if np.float32(c * factor) == rate), near)
