"""Updates and masks with PyTorch; on a CPU in chunks, which stay in cache until they are masked.

PyTorch runs every operation separately. An update is several passes over weight, gradient and
slots, and the mask is one more: each reads large tensors from memory. Running all passes on one
chunk before the next saves more time than the mask takes.
"""

from collections.abc import Sequence

import keras
import torch

from keras_dsd.adapters.base.private_names import UPDATE_ALL, key_of
from keras_dsd.adapters.keras3.backends import MaskOf, SlotsOf
from keras_dsd.utils.patches import Patch

# Number of values in a chunk: with fewer, calls would take more time than is saved.
PART = 2**19
# On a CPU a product of two dtypes casts one of them first. The cast of a tensor up to this size
# fits a shared cache; a larger tensor is multiplied in chunks, which fit a core's cache.
_MASKED_WHOLE = 2**20
_MASKED_PART = 2**18
# Optimizers with elementwise updates that count no updates, and that take more passes over the
# values than SGD, which is slower in chunks.
_BY_VALUE = tuple(
    getattr(keras.optimizers, name)
    for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "Lion", "RMSprop")
)


def apply_masks(pairs: Sequence[tuple[keras.Variable, torch.Tensor]]) -> None:
    """Sets each variable to zero where its mask is 0."""
    with torch.no_grad():
        for variable, mask in pairs:
            value = variable.value
            on_cpu = value.device.type == "cpu"
            if value.numel() <= _MASKED_WHOLE or not on_cpu or not value.is_contiguous():
                value.mul_(mask)
                continue
            parts = (each.view(-1).split(_MASKED_PART) for each in (value, mask))
            for part, kept in zip(*parts, strict=True):
                part.mul_(kept)


def patches(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    mask_of: MaskOf[torch.Tensor],
    slots_of: SlotsOf,
) -> list[Patch]:
    """Returns the patches that mask variables without a constraint within their update.

    None for weights on a GPU, whose memory is fast and whose calls are slow, or if the optimizer
    can't update chunks, such as a custom one.
    """
    known = type(optimizer).__module__.startswith("keras.") and isinstance(optimizer, _BY_VALUE)
    known = known and hasattr(optimizer, UPDATE_ALL)
    if not known or any(each.value.device.type != "cpu" for each in variables):
        return []
    updates = _Updates(optimizer, mask_of, slots_of)
    return [Patch(vars(optimizer), UPDATE_ALL, updates.all)]


class _Updates:
    """Masked updates of one optimizer; of large tensors in chunks."""

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        mask_of: MaskOf[torch.Tensor],
        slots_of: SlotsOf,
    ) -> None:
        self._optimizer = optimizer
        self._mask_of_key = mask_of
        self._slots_of = slots_of
        self._plain = getattr(optimizer, UPDATE_ALL)

    @torch.no_grad()
    def all(
        self,
        gradients: Sequence[torch.Tensor],
        variables: Sequence[keras.Variable],
        learning_rate: torch.Tensor,
    ) -> None:
        """Updates all variables: large ones in chunks, the others together."""
        together = []
        for gradient, variable in zip(gradients, variables, strict=True):
            if variable.value.numel() < 2 * PART or torch.compiler.is_compiling():
                together.append((gradient, variable))
            else:
                self._in_parts(gradient, variable, learning_rate)
        if together:
            self._complete(together, learning_rate)

    def _complete(
        self, updates: Sequence[tuple[torch.Tensor, keras.Variable]], learning_rate: torch.Tensor
    ) -> None:
        gradients, variables = zip(*updates, strict=True)
        self._plain(gradients, variables, learning_rate)
        pairs = [
            (each, self._mask_of(each)) for each in reversed(variables)
        ]  # those that fit the cache
        apply_masks([(variable, mask) for variable, mask in pairs if mask is not None])

    def _in_parts(
        self, gradient: torch.Tensor, variable: keras.Variable, learning_rate: torch.Tensor
    ) -> None:
        slots = self._slots_of(variable).values()
        tensors = [variable.value, *(slot.value for slot in slots)]
        mask = self._mask_of(variable)
        if mask is None or not all(each.is_contiguous() for each in tensors):
            self._complete([(gradient, variable)], learning_rate)
            return
        whole = [each.data for each in tensors]
        parts = zip(*map(_split, [gradient.contiguous(), mask, *whole]), strict=True)
        try:
            # Keras looks slots up by their variable, so chunks can't be passed.
            for part_of_gradient, part_of_mask, *values in parts:
                for tensor, part in zip(tensors, values, strict=True):
                    tensor.data = part
                self._plain([part_of_gradient], [variable], learning_rate)
                values[0].mul_(part_of_mask)
        finally:
            for tensor, values_of_all in zip(tensors, whole, strict=True):
                tensor.data = values_of_all

    def _mask_of(self, variable: keras.Variable) -> torch.Tensor | None:
        return self._mask_of_key(key_of(self._optimizer, variable))


def _split(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    return tensor.view(-1).split(PART)
