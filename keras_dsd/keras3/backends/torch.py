"""Masks on PyTorch: weights are changed in place."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

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


def around(train_step: Callable[..., Any], held: Any, whole: bool) -> Callable[..., Any]:
    """Returns `train_step`, followed by the mask where `whole` is True."""

    def step(data: Any) -> Any:
        logs = train_step(data)
        held.mask_all()
        return logs

    return step if whole else train_step


def feed(step: Callable[..., Any], masks: Callable[[], Sequence[Any]]) -> Callable[..., Any]:
    """Returns `step`: it reads the masks where they are."""
    del masks
    return step
