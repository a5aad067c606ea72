"""Masks on PyTorch: weights are changed in place."""

from typing import Any

import numpy as np
import torch

from keras_dsd.adapters.keras3.backends.stateful import around as around
from keras_dsd.adapters.keras3.backends.stateful import feed as feed
from keras_dsd.adapters.keras3.backends.torch_updates import apply_masks as apply_masks
from keras_dsd.adapters.keras3.backends.torch_updates import update_patches as update_patches

# What may train a model besides optimizers of Keras's.
OPTIMIZERS = (torch.optim.Optimizer,)


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


def mask_to_tensor(mask: Any) -> Any:
    """Returns the mask as a boolean tensor."""
    return mask.bool()


def is_tracing() -> bool:
    """Returns False: PyTorch runs what it is told."""
    return False


def reset_slots(optimizer: Any, variable: Any, positions: np.ndarray) -> None:
    """Sets the slots that `torch.optim` keeps of `variable` to what they began with.

    Args:
        optimizer: Of `torch.optim`.
        variable: Of Keras's.
        positions: Where to do so, a boolean array of its shape.
    """
    where = torch.from_numpy(positions).to(variable.value.device)
    for name, slot in _slots_of(optimizer, variable.value).items():
        slot[where] = _initial(optimizer, name)


def reset_all(optimizer: Any) -> None:
    """Sets every slot of `torch.optim` to what it began with; counts of steps stay."""
    for parameter in optimizer.state:
        for name, slot in _slots_of(optimizer, parameter).items():
            slot.fill_(_initial(optimizer, name))


def _slots_of(optimizer: Any, parameter: Any) -> dict[str, Any]:
    held = optimizer.state.get(parameter, {})
    return {
        name: slot for name, slot in held.items()
        if isinstance(slot, torch.Tensor) and slot.dim() and slot.shape == parameter.shape
    }  # fmt: skip


def _initial(optimizer: Any, name: str) -> float:
    """Returns what a slot begins with: zero but for Adagrad's sums and Rprop's steps."""
    begins = {"sum": "initial_accumulator_value", "step_size": "lr"}
    return float(optimizer.defaults.get(begins.get(name), 0.0))


def num_workers(model: Any) -> int:
    """Returns 1: Keras knows of no others."""
    del model
    return 1


def forward(model: Any, inputs: Any) -> None:
    """Runs a model as in training."""
    with torch.no_grad():
        model(inputs, training=True)
