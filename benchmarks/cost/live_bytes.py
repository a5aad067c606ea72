"""Bytes of all arrays of a backend that are alive."""

import gc
from typing import Any

import numpy as np
from flavour import backend_of


def live_bytes(keras: Any) -> int:
    """Returns the bytes of all arrays of the backend of `keras` that are alive."""
    gc.collect()
    return {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}[backend_of(keras)]()


def _jax() -> int:
    import jax

    return sum(array.nbytes for array in jax.live_arrays())


def _torch() -> int:
    import torch

    tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
    stores = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in tensors}
    return sum(store.nbytes() for store in stores.values())


def _tensorflow() -> int:
    """Counts variables, which live as long as their handles.

    TensorFlow's registry of gradients keeps every graph that was traced with a handle.
    """
    import tensorflow as tf
    from tensorflow.python.framework.func_graph import FuncGraph

    found = [each.handle for each in gc.get_objects() if isinstance(each, tf.Variable)]
    for graph in [each for each in gc.get_objects() if isinstance(each, FuncGraph)]:
        found += [outer for outer, _ in graph.captures if outer.dtype == tf.resource]
    real = [each for each in found if hasattr(each, "numpy")]  # not those within a graph
    handles = {each._id: each for each in real if each._handle_data.is_set}
    return sum(map(_bytes_behind, handles.values()))


def _bytes_behind(handle: Any) -> int:
    import tensorflow as tf

    dtype = tf.as_dtype(handle._handle_data.shape_and_type[0].dtype)
    return int(np.prod(tf.raw_ops.VariableShape(input=handle).numpy())) * dtype.size
