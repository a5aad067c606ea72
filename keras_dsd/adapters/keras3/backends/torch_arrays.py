"""Operations on PyTorch tensors."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from keras_dsd.adapters.base.device_arrays import ArrayOperations

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class TorchArrays(ArrayOperations):
    """PyTorch runs operations eagerly, on the device of the tensors."""

    def is_on_host(self, values: torch.Tensor) -> bool:
        """Returns whether the values are in host memory."""
        return values.device.type == "cpu"

    def dtype_of(self, values: torch.Tensor) -> str:
        """Returns the name of the dtype."""
        return str(values.dtype).removeprefix("torch.")

    def to_device(self, mask: np.ndarray, values: torch.Tensor) -> torch.Tensor:
        """Returns `mask` as a tensor on the device of `values`."""
        return torch.from_numpy(np.ascontiguousarray(mask)).to(values.device)

    def run(
        self,
        function: Callable[..., torch.Tensor],
        *arguments: Any,
        like: torch.Tensor | None = None,
        **static: Any,
    ) -> torch.Tensor:
        """Returns the result, on the device of the tensors."""
        del like
        with torch.no_grad():
            return function(*arguments, **static)

    def fetch(
        self, function: Callable[..., torch.Tensor], *arguments: Any, **static: Any
    ) -> np.ndarray:
        """Returns the result on the host."""
        return self.run(function, *arguments, **static).cpu().numpy()

    def copy(self, values: torch.Tensor) -> torch.Tensor:
        """Returns a copy."""
        return values.clone()

    def numbers(self, array: np.ndarray) -> Any:
        """Returns integers unchanged."""
        return array.tolist()

    def magnitudes(self, values: torch.Tensor) -> torch.Tensor:
        """Returns the keys of floats; returns keys unchanged."""
        if not values.is_floating_point():
            return values
        raw = _INTEGERS[values.element_size()]
        bits = values.view(raw) & torch.iinfo(raw).max
        return bits.to(torch.int32) if raw is torch.int16 else bits

    def negatives(self, values: torch.Tensor) -> torch.Tensor:
        """Returns where the sign of floats is that of negative numbers."""
        return torch.signbit(values)

    def lowest(self, keys: torch.Tensor) -> torch.Tensor:
        """Returns the smallest of some integers."""
        most = torch.iinfo(keys.dtype).max
        return keys.min() if keys.numel() else torch.tensor(most, dtype=keys.dtype)

    def floats(self, values: torch.Tensor, double: bool) -> torch.Tensor:
        """Returns values as float32 or, if they are float64, as float64."""
        return values.to(torch.float64 if double else torch.float32)

    def where(self, condition: torch.Tensor, one: Any, other: torch.Tensor) -> torch.Tensor:
        """Returns `one` where `condition` is True, and `other` elsewhere."""
        return torch.where(condition, one, other)

    def totals(self, conditions: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns the number of True entries of each condition."""
        return torch.stack([torch.count_nonzero(each) for each in conditions])

    def totals_below(
        self, keys: torch.Tensor, limits: Sequence[int], condition: torch.Tensor
    ) -> torch.Tensor:
        """Returns how many keys are below each limit, one after another to spare memory."""
        found = [torch.count_nonzero(condition & (keys < limit)) for limit in limits]
        return torch.stack(found)

    def totals_along(self, condition: torch.Tensor, axis: int) -> torch.Tensor:
        """Returns the number of True entries of a condition at each index of an axis."""
        others = [each for each in range(condition.ndim) if each != axis]
        return torch.sum(condition, others) if others else condition.long()

    def positions(self, like: torch.Tensor, axis: int) -> torch.Tensor:
        """Returns the indices along an axis."""
        shape = [-1 if each == axis else 1 for each in range(like.ndim)]
        return torch.arange(like.shape[axis], device=like.device).reshape(shape)

    def reshape(self, array: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Returns a reshaped array."""
        return array.reshape(*shape)

    def transpose(self, array: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
        """Returns a transposed array."""
        return array.permute(*axes)

    def concatenate(self, arrays: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
        """Returns arrays concatenated along an axis, on the device of the first."""
        return torch.cat([each.to(arrays[0].device) for each in arrays], axis)

    def repeat(self, array: torch.Tensor, times: int, axis: int) -> torch.Tensor:
        """Returns an array whose entries are repeated along an axis."""
        return torch.repeat_interleave(array, times, axis)


ARRAYS = TorchArrays()
