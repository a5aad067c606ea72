"""A weight as the algorithm reads it; the adapters' protocol adds methods that change it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import Pattern


class Tensor(Protocol):
    """A tensor of any backend."""

    @property
    def shape(self) -> Sequence[int]:
        """The size of each axis."""

    @property
    def dtype(self) -> object:
        """The backend's dtype of the values."""


class SelectableWeight(Protocol):
    """A weight that `apply` may select."""

    @property
    def path(self) -> str:
        """The path of the weight in the model, such as `"dense/kernel"`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""

    @property
    def layout(self) -> Layout:
        """Its input and output axes."""


class ReadableWeight(SelectableWeight, Protocol):
    """One weight tensor that DSD prunes, read only."""

    @property
    def short_path(self) -> str:
        """Path without the model name: the same before saving and after loading."""

    @property
    def sparsity(self) -> float:
        """Target sparsity: the fraction of the tensor to prune, in [0, 1)."""

    @property
    def pattern(self) -> Pattern:
        """Pruning pattern, or None for single values."""

    @property
    def scope(self) -> str:
        """`"layer"` if it is ranked alone, `"global"` if together with others."""

    @property
    def mask(self) -> np.ndarray | None:
        """Boolean mask of the kept weights, of shape `shape`; None in dense phases."""

    def numpy(self) -> np.ndarray:
        """Returns a copy of the values, in the dtype the optimizer updates."""
