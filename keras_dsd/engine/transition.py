"""What changes where two phases meet: weights are pruned, or return, and slots begin anew."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from keras_dsd.algorithm.masks import check_finite, masks_for
from keras_dsd.algorithm.sparsity import num_zeros, sample_pruned
from keras_dsd.protocols import PrunableWeight


class Change(NamedTuple):
    """What a boundary changed.

    Attributes:
        words: What happened to the weights.
        num_pruned: How many weights the masks prune that are in force now.
        returned: The weights that some values of have returned, each with the flat indices of a
            sample of these.
    """

    words: str
    num_pruned: int = 0
    returned: tuple[tuple[PrunableWeight, np.ndarray], ...] = ()


class Slots:
    """Sets back what optimizers keep of weights that are pruned or return, and counts them.

    Args:
        reset: `"pruned"`, `"all"` or `"none"`, as `DSDSchedule` has it.
    """

    def __init__(self, reset: str) -> None:
        self._reset = reset
        self._num_cleared = 0

    def clear(self, weight: PrunableWeight, positions: np.ndarray) -> None:
        """Sets back what optimizers keep of `weight` where `positions` is True."""
        if self._reset == "none":
            weight.reset_averages(positions)
        else:
            weight.reset_slots(positions)
        self._num_cleared += int(np.count_nonzero(positions))

    @property
    def all_begin_anew(self) -> bool:
        """Whether those of all other weights are to be set back too."""
        return self._reset == "all" and self._num_cleared > 0

    @property
    def words(self) -> str:
        """What happened to the slots; empty where nothing did."""
        if not self._num_cleared:
            return ""
        if self._reset == "none":
            return "optimizer slots are kept"
        whose = "all" if self._reset == "all" else f"{self._num_cleared:,}"
        return f"optimizer slots of {whose} weights begin anew"


def prune(
    weights: Sequence[PrunableWeight],
    sparsity: float | None,
    slots: Slots,
    told: Callable[[str], None],
) -> Change:
    """Makes the masks of a sparse phase and puts them in force.

    Args:
        weights: What DSD prunes.
        sparsity: What the phase asks for, a fraction; None where `apply` said it.
        slots: Sets back those of weights that are pruned.
        told: Called after each weight with its path.

    Raises:
        ValueError: There are no weights, or one holds NaN or infinity; nothing was changed.
    """
    began = time.perf_counter()
    if not weights:
        raise ValueError(
            "Expected trainable weights to prune when a sparse phase begins. Received: a model "
            "that has not been built, or in which all that was selected is frozen. Call "
            "model.build(input_shape), or the model on one batch, before fit; or unfreeze."
        )
    num_pruned = 0
    for weight, mask in masks_for(weights, sparsity):
        num_pruned += _hold(weight, mask, slots)
        told(weight.path)
    size = sum(int(np.prod(weight.shape)) for weight in weights)
    words = (
        f"pruned {num_pruned:,} of {size:,} weights in {len(weights)} tensors, "
        f"masks took {time.perf_counter() - began:.3f} s"
    )
    return Change(words, num_pruned)


def release(weights: Sequence[PrunableWeight], slots: Slots) -> Change:
    """Takes all masks out of force: pruned weights return from zero.

    Args:
        weights: What DSD prunes.
        slots: Sets back those of weights that return.

    Raises:
        ValueError: A weight that was held holds NaN or infinity; nothing was changed.
    """
    held = [weight for weight in weights if weight.mask is not None]
    for weight in held:
        check_finite(weight.numpy(), weight.path)
    returned, num_returned = [], 0
    for weight in held:
        mask = np.asarray(weight.mask)
        slots.clear(weight, ~mask)
        weight.remove_mask()
        num_returned += num_zeros(mask, None)
        if not mask.all():
            returned.append((weight, sample_pruned(mask)))
    words = f"{num_returned:,} weights return from zero" if held else "all weights train"
    return Change(words, returned=tuple(returned))


def _hold(weight: PrunableWeight, mask: np.ndarray, slots: Slots) -> int:
    """Puts a mask in force, unless it is already, and returns how many weights it prunes."""
    values, before = weight.numpy(), weight.mask
    if before is None or not np.array_equal(before, mask):
        returned = np.zeros(mask.shape, bool) if before is None else mask & ~before
        weight.apply_mask(mask)
        if values[~mask].any() or returned.any():
            weight.assign(np.where(mask, values, np.zeros((), values.dtype)))
            slots.clear(weight, ~mask | returned)
    return int(np.count_nonzero(~mask))
