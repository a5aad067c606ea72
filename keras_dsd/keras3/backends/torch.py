"""Masks on PyTorch: weights are changed in place."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from keras_dsd.patches import Patch

KEEPS_MASKED_STEP = True


def put_mask(mask: np.ndarray, variable: Any, model: Any, earlier: Any) -> Any:
    """Returns the positions that are pruned, which is what PyTorch fills, on the device."""
    del model, earlier
    return torch.from_numpy(~mask).to(variable.value.device)


def mask_to_numpy(mask: Any) -> np.ndarray:
    """Returns the mask as a boolean array, True where kept."""
    return ~mask.cpu().numpy()


def apply_mask(variable: Any, mask: Any) -> None:
    """Sets a variable to zero where it is pruned."""
    with torch.no_grad():
        variable.value.masked_fill_(mask, 0)


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
