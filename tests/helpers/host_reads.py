"""Copies of a backend's tensors to NumPy: numbers of values and of reads."""

import contextlib
import importlib
import math

from tests.helpers.paths import keras

# By backend, what to import, a class or function there, and the methods by which NumPy gets the
# values of tensors. It reads those of JAX on a CPU through a buffer, past all methods.
_READ_BY = {
    "tensorflow": [("tensorflow.python.framework.ops", "_EagerTensorBase", "_numpy")],
    "torch": [("torch", "Tensor", name) for name in ("numpy", "tolist", "item")],
    "jax": [("numpy", None, "asarray"), ("numpy", None, "array"),
            ("jax._src.array", "ArrayImpl", "_value")],
}  # fmt: skip


class HostReads:
    """Notes the size of each tensor that is read while `noting` is on."""

    def __init__(self):
        self.sizes = []

    @contextlib.contextmanager
    def noting(self, patch):
        """Notes reads within the block.

        Args:
            patch: pytest's `monkeypatch`.
        """
        with patch.context() as patched:
            for module, kind, name in _READ_BY[keras.backend.backend()]:
                holder = importlib.import_module(module)
                holder = holder if kind is None else getattr(holder, kind)
                patched.setattr(holder, name, self._noted(getattr(holder, name)))
            yield

    def _noted(self, read):
        if isinstance(read, property):
            return property(self._noted(read.fget))

        def noted(tensor, *args, **kwargs):
            if hasattr(tensor, "shape") and type(tensor).__module__ != "numpy":
                self.sizes.append(math.prod(map(int, tensor.shape)))
            return read(tensor, *args, **kwargs)

        return noted
