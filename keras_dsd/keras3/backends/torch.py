"""Masks on PyTorch: weights are changed in place."""

from typing import Any

import numpy as np
import torch

from keras_dsd.keras3.backends.stateful import around as around
from keras_dsd.keras3.backends.stateful import feed as feed
from keras_dsd.patches import Patch

# On a CPU a product of two types casts the one first: in parts that stay in a core's cache.
_PART = 2**18


def put_mask(mask: np.ndarray, variable: Any, model: Any, earlier: Any) -> Any:
    """Returns `mask` on the variable's device, as int8, which PyTorch casts faster than bool."""
    del model, earlier
    return torch.from_numpy(mask.astype(np.int8)).to(variable.value.device)


def drop_mask(mask: Any) -> None:
    """Returns None: there is nothing to use again. PyTorch frees what nothing refers to."""
    del mask


def mask_to_numpy(mask: Any) -> np.ndarray:
    """Returns the mask as a boolean array."""
    return mask.cpu().numpy().astype(bool)


def apply_mask(variable: Any, mask: Any) -> None:
    """Sets a variable to zero where `mask` is 0."""
    value = variable.value
    with torch.no_grad():
        if value.device.type != "cpu" or not value.is_contiguous():
            value.mul_(mask)
            return
        parts = zip(value.view(-1).split(_PART), mask.view(-1).split(_PART), strict=True)
        for part, kept in parts:
            part.mul_(kept)


def update_patches(optimizer: Any, held: Any) -> list[Patch]:
    """Returns nothing: optimizers update all variables in one call, which ends in `apply`."""
    del optimizer, held
    return []


def forward(model: Any, inputs: Any) -> None:
    """Runs a model as in training."""
    with torch.no_grad():
        model(inputs, training=True)
