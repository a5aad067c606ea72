"""Masks on PyTorch: weights are changed in place."""

from collections.abc import Sequence

import keras
import numpy as np
import torch

from keras_dsd.adapters.keras3.backends import Backend, MaskOf, SlotsOf, torch_updates
from keras_dsd.protocols import Inputs
from keras_dsd.utils.patches import Patch


class TorchBackend(Backend[torch.Tensor]):
    """A mask is a tensor; PyTorch runs each operation at once."""

    optimizers = (torch.optim.Optimizer,)

    def put_mask(
        self,
        mask: np.ndarray,
        variable: keras.Variable,
        model: keras.Layer,
        earlier: torch.Tensor | None,
    ) -> torch.Tensor:
        """Returns `mask` on the variable's device; PyTorch casts int8 faster than bool."""
        del model, earlier
        return torch.from_numpy(mask.astype(np.int8)).to(variable.value.device)

    def mask_to_numpy(self, mask: torch.Tensor) -> np.ndarray:
        """Returns the mask as a boolean array."""
        return mask.cpu().numpy().astype(bool)

    def mask_to_tensor(self, mask: torch.Tensor) -> torch.Tensor:
        """Returns the mask as a boolean tensor."""
        return mask.bool()

    def apply_masks(self, pairs: Sequence[tuple[keras.Variable, torch.Tensor]]) -> None:
        """Sets each variable to zero where its mask is 0."""
        torch_updates.apply_masks(pairs)

    def update_patches(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        mask_of: MaskOf[torch.Tensor],
        slots_of: SlotsOf,
    ) -> list[Patch]:
        """Returns the patches that mask variables within their update, where that pays."""
        return torch_updates.patches(optimizer, variables, mask_of, slots_of)

    def forward(self, model: keras.Model, inputs: Inputs) -> None:
        """Runs a model in training mode."""
        with torch.no_grad():
            super().forward(model, inputs)


BACKEND = TorchBackend()


def reset_slots(
    optimizer: torch.optim.Optimizer, variable: keras.Variable, entries: np.ndarray
) -> None:
    """Resets the slots that `torch.optim` keeps of `variable` to their initial value."""
    where = torch.from_numpy(entries).to(variable.value.device)
    for name, slot in _slots_of(optimizer, variable.value).items():
        slot[where] = _initial(optimizer, name)


def reset_all(optimizer: torch.optim.Optimizer) -> None:
    """Resets every slot of `torch.optim` to its initial value; counts of steps stay."""
    for parameter in optimizer.state:
        for name, slot in _slots_of(optimizer, parameter).items():
            slot.fill_(_initial(optimizer, name))


def _slots_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    held = optimizer.state.get(parameter, {})
    return {
        name: slot for name, slot in held.items()
        if isinstance(slot, torch.Tensor) and slot.dim() and slot.shape == parameter.shape
    }  # fmt: skip


def _initial(optimizer: torch.optim.Optimizer, name: str) -> float:
    """Returns a slot's initial value: zero but for Adagrad's sums and Rprop's steps."""
    source = {"sum": "initial_accumulator_value", "step_size": "lr"}
    return float(optimizer.defaults.get(source.get(name, name), 0.0))
