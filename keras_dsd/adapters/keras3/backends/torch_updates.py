"""Updates and masks with PyTorch; on a CPU in chunks, which stay in cache until they are masked.

PyTorch runs every operation separately. An update is several passes over weight, gradient and
slots, and the mask is one more: each reads large tensors from memory. Running all passes on one
chunk before the next saves more time than the mask takes. SGD with momentum has so few passes
that this is not enough: PyTorch's own fused update makes one of them, where it changes no bit.
"""

import functools
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

import keras
import numpy as np
import torch

from keras_dsd.adapters.base.private_names import UPDATE_ALL, key_of
from keras_dsd.adapters.keras3.backends import DerivedOf, MaskOf, SlotsOf
from keras_dsd.utils.patches import Patch

# Number of values in a chunk. A chunk of weight, gradient and slots fits a shared cache, of 8 MiB
# and more; with smaller ones, calls take more time than is saved.
PART = 2**19
# On a CPU a product of two dtypes casts one of them first, to a tensor that it allocates. Up to
# this size the cast fits a shared cache. For a larger one the system maps new pages, which
# takes longer than the product: the mask is cast chunk by chunk, to a buffer that is reused.
_MASKED_WHOLE = 2**20
# Up to so many weights a mask is kept in the dtype of its weight as well: a cast takes longer than
# the product, and without casts one call multiplies all.
_SMALL = 2**16
# Fused updates round values beyond the last whole vector register otherwise: of none so many.
_VECTOR = 64
# A tensor and its mask, by the id of the variable.
Pairs: TypeAlias = dict[int, tuple[torch.Tensor, torch.Tensor]]
# Optimizers with elementwise updates that count no updates.
_BY_VALUE = tuple(
    getattr(keras.optimizers, name)
    for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "Lion", "RMSprop", "SGD")
)


def apply_masks(pairs: Sequence[tuple[keras.Variable, torch.Tensor]]) -> None:
    """Sets each variable to zero where its mask is 0."""
    with torch.no_grad():
        _multiply_all(((variable.value, mask) for variable, mask in pairs), _Buffers())


def _multiply_all(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], buffers: "_Buffers") -> None:
    """Multiplies tensors by their masks."""
    for value, mask in pairs:
        if value.numel() <= _MASKED_WHOLE or not (
            _is_eager_on_cpu(value) and value.is_contiguous()
        ):
            value.mul_(mask)
        else:
            _multiply(value.view(-1), mask.view(-1), buffers)


class _Buffers(dict[torch.dtype, torch.Tensor]):
    """Memory for the casts of masks: one buffer for each dtype, allocated at the first cast."""

    def __missing__(self, dtype: torch.dtype) -> torch.Tensor:
        self[dtype] = torch.empty(PART, dtype=dtype, device="cpu")
        return self[dtype]


def _multiply(values: torch.Tensor, mask: torch.Tensor, buffers: _Buffers) -> None:
    """Multiplies a flat tensor by its mask, of which it casts a chunk at a time."""
    buffer = buffers[values.dtype]
    for part, kept in zip(values.split(PART), mask.split(PART), strict=True):
        part.mul_(buffer[: kept.numel()].copy_(kept))


def patches(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    mask_of: MaskOf[torch.Tensor],
    derived: DerivedOf,
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
    updates = _Updates(optimizer, variables, mask_of, derived, slots_of)
    return [Patch(vars(optimizer), UPDATE_ALL, updates.all)]


class _Updates:
    """Masked updates of one optimizer; of large tensors in chunks."""

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[keras.Variable],
        mask_of: MaskOf[torch.Tensor],
        derived: DerivedOf,
        slots_of: SlotsOf,
    ) -> None:
        self._plain = getattr(optimizer, UPDATE_ALL)
        self._mask_of = mask_of
        self._derived = derived
        self._slots_of = slots_of
        self._buffers = _Buffers()
        self._momentum = _momentum_of(optimizer)
        self._keys = {id(each): key_of(optimizer, each) for each in variables}
        self._large = {id(each) for each in variables if each.value.numel() >= 2 * PART}
        # The last ones first, which a cache still holds after their update. A variable keeps its
        # tensor while it trains; reading it at each step takes as long as a small product.
        self._tensors = {id(each): each.value for each in reversed(variables)}

    @torch.no_grad()
    def all(
        self,
        gradients: Sequence[torch.Tensor],
        variables: Sequence[keras.Variable],
        learning_rate: Any,
    ) -> None:
        """Updates all variables: large masked ones in chunks, the others together."""
        if self._large and not torch.compiler.is_compiling():
            gradients, variables = self._large_in_parts(gradients, variables, learning_rate)
        if not variables:
            return
        self._plain(gradients, variables, learning_rate)
        updated = set(map(id, variables))
        is_eager = not torch.compiler.is_compiling()
        small, others = self._derived(self, self._by_size) if is_eager else self._by_size()
        if pairs := _of(small, updated):
            torch._foreach_mul_(*map(list, zip(*pairs, strict=True)))
        _multiply_all(_of(others, updated), self._buffers)

    def _by_size(self) -> tuple[Pairs, Pairs]:
        """Returns tensors with masks: small ones, whose masks have their dtype, and the others."""
        small, others = {}, {}
        for each, value in self._tensors.items():
            mask = self._mask_of(self._keys[each])
            if mask is None:
                continue
            if value.numel() <= _SMALL:
                small[each] = value, mask.to(value.dtype)
            else:
                others[each] = value, mask
        return small, others

    def _large_in_parts(
        self,
        gradients: Sequence[torch.Tensor],
        variables: Sequence[keras.Variable],
        learning_rate: Any,
    ) -> tuple[Sequence[torch.Tensor], Sequence[keras.Variable]]:
        """Updates and masks large variables; returns gradients and variables of the others."""
        rest = [
            (gradient, variable)
            for gradient, variable in zip(gradients, variables, strict=True)
            if id(variable) not in self._large
            or not self._in_parts(gradient, variable, learning_rate)
        ]
        return [gradient for gradient, _ in rest], [variable for _, variable in rest]

    def _in_parts(
        self,
        gradient: torch.Tensor,
        variable: keras.Variable,
        learning_rate: Any,
    ) -> bool:
        """Updates and masks a variable in chunks, if it has a mask and its chunks are views."""
        slots = self._slots_of(variable)
        tensors = [variable.value, *(slot.value for slot in slots.values())]
        mask = self._mask_of(self._keys[id(variable)])
        if mask is None or not all(each.is_contiguous() for each in tensors):
            return False
        if isinstance(learning_rate, keras.Variable):
            learning_rate = learning_rate.value  # operations on a variable take longer
        whole = [each.data for each in tensors]
        parts = zip(*map(_split, [gradient.contiguous(), mask, *whole]), strict=True)
        if list(slots) == ["momentums"] and self._can_fuse(gradient, tensors):
            for part_of_gradient, part_of_mask, weights, momentums in parts:
                _fused(weights, part_of_gradient, momentums, self._momentum, learning_rate)
                _multiply(weights, part_of_mask, self._buffers)
            return True
        try:
            # Keras looks slots up by their variable, so chunks can't be passed.
            for part_of_gradient, part_of_mask, *values in parts:
                for tensor, part in zip(tensors, values, strict=True):
                    tensor.data = part
                self._plain([part_of_gradient], [variable], learning_rate)
                _multiply(values[0], part_of_mask, self._buffers)
        finally:
            for tensor, values_of_all in zip(tensors, whole, strict=True):
                tensor.data = values_of_all
        return True

    def _can_fuse(self, gradient: torch.Tensor, tensors: Sequence[torch.Tensor]) -> bool:
        """Returns whether PyTorch's fused update of these changes no bit."""
        is_float32 = all(each.dtype == torch.float32 for each in (gradient, *tensors))
        is_known = is_float32 and gradient.numel() % _VECTOR == 0 and self._momentum != 0.0
        return is_known and _fused_is_exact(self._momentum)


def _momentum_of(optimizer: keras.optimizers.Optimizer) -> float:
    """Returns the momentum of an optimizer whose update PyTorch has as a fused one; else 0.0."""
    is_fused = isinstance(optimizer, keras.optimizers.SGD) and not optimizer.nesterov
    return float(optimizer.momentum) if is_fused else 0.0


def _fused(
    weights: torch.Tensor,
    gradient: torch.Tensor,
    momentums: torch.Tensor,
    momentum: float,
    learning_rate: Any,
) -> None:
    """Updates weights by SGD with momentum, in one pass over memory.

    Keras has v = momentum * v - learning_rate * g and w = w + v, PyTorch
    v = momentum * v + (1 - dampening) * g and w = w - learning_rate * v.
    """
    torch._fused_sgd_(
        [weights], [gradient], [momentums], momentum=momentum, dampening=1.0 + float(learning_rate),
        lr=-1.0, weight_decay=0.0, nesterov=False, maximize=False, is_first_step=False,
    )  # fmt: skip


@functools.cache
def _fused_is_exact(momentum: float) -> bool:
    """Returns whether the fused update gives Keras's bits: products may be rounded or not."""
    values = np.random.default_rng(0).normal(size=(3, 64 * _VECTOR)).astype(np.float32)
    weights, gradient, momentums = map(torch.from_numpy, values)
    with keras.device("cpu"), torch.no_grad():
        optimizer = keras.optimizers.SGD(0.01, momentum, name="probe")
        variable = keras.Variable(weights.clone(), name="probe")
        optimizer.build([variable])
        optimizer.momentums[0].assign(momentums)
        rate = optimizer.learning_rate.value
        getattr(optimizer, UPDATE_ALL)([gradient], [variable], rate)
        _fused(weights, gradient, momentums, momentum, rate)
        ours, plain = (weights, momentums), (variable.value, optimizer.momentums[0].value)
        return all(map(torch.equal, ours, plain))


def _of(pairs: Pairs, updated: AbstractSet[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Returns the pairs whose variables were updated."""
    if pairs.keys() <= updated:
        return list(pairs.values())
    return [pair for each, pair in pairs.items() if each in updated]


def _is_eager_on_cpu(value: torch.Tensor) -> bool:
    return value.device.type == "cpu" and not torch.compiler.is_compiling()


def _split(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    return tensor.view(-1).split(PART)
