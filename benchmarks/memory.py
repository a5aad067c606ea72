"""Memory that DSD takes on Keras 3 in each phase, beside plain training: live arrays, in bytes.

Counted at each epoch's end, when a phase's steps have run: all arrays of the backend that are
alive, for a model that trains plainly and for one under DSD. What DSD adds is divided by the
number of weights that it prunes tensors of. The inputs are random: only the memory counts here.

    KERAS_BACKEND=jax python benchmarks/memory.py --model=wide_mlp
"""

import gc
from typing import Any

import keras
import numpy as np
from absl import app, flags
from models import batch_of, build

import keras_dsd as dsd

_MODEL = flags.DEFINE_enum("model", "mlp", ["mlp", "wide_mlp", "conv", "lstm"], "What to train.")
_SPARSITY = flags.DEFINE_float("sparsity", 0.3, "Share of each weight tensor to prune.")


def live_bytes() -> int:
    """Returns the bytes of all arrays of the backend that are alive."""
    gc.collect()
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return sum(array.nbytes for array in jax.live_arrays())
    if backend == "torch":
        import torch

        tensors = [each for each in gc.get_objects() if isinstance(each, torch.Tensor)]
        stores = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in tensors}
        return sum(store.nbytes() for store in stores.values())
    return sum(map(bytes_behind, live_handles()))


def live_handles() -> list[Any]:
    """Returns what names the memory of TensorFlow's variables, each once.

    A variable's memory lives as long as its handle, and TensorFlow's registry of gradients keeps
    every graph that was traced with it.
    """
    import tensorflow as tf
    from tensorflow.python.framework.func_graph import FuncGraph

    found = [each.handle for each in gc.get_objects() if isinstance(each, tf.Variable)]
    for graph in [each for each in gc.get_objects() if isinstance(each, FuncGraph)]:
        found += [outer for outer, _ in graph.captures if outer.dtype == tf.resource]
    real = [each for each in found if hasattr(each, "numpy")]  # not those within a graph
    return list({each._id: each for each in real if each._handle_data.is_set}.values())


def bytes_behind(handle: Any) -> int:
    """Returns the bytes of the variable that `handle` names."""
    import tensorflow as tf

    dtype = tf.as_dtype(handle._handle_data.shape_and_type[0].dtype)
    return int(np.prod(tf.raw_ops.VariableShape(input=handle).numpy())) * dtype.size


class Count(keras.callbacks.Callback):
    """Counts at each epoch's end."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts, with the weights back in the model."""
        self.model  # noqa: B018  JAX: brings them back
        self.bytes.append(live_bytes())


def measured(under_dsd: bool) -> tuple[list[int], int]:
    """Returns the bytes at the end of each of three epochs, and the number of prunable weights."""
    keras.utils.clear_session()
    before = live_bytes()  # what a backend keeps of earlier runs
    model, shape = build(keras, _MODEL.value)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    count, callbacks, size = Count(), [], 0
    if under_dsd:
        dsd.apply(model, _SPARSITY.value)
        callbacks = [dsd.DSDSchedule(1, 1, 1)]
        size = dsd.report(model).size
    x, y = batch_of(shape)
    model.fit(x, y, batch_size=len(y), epochs=3, verbose=0, callbacks=[*callbacks, count])
    return [each - before for each in count.bytes], size


def main(argv: list[str]) -> None:
    """Prints a line for each phase."""
    del argv
    measured(under_dsd=False)  # what a backend makes in its first run is not ours
    plain, _ = measured(under_dsd=False)
    ours, size = measured(under_dsd=True)
    print(f"backend={keras.backend.backend()} model={_MODEL.value} sparsity={_SPARSITY.value:g} "
          f"weights in pruned tensors: {size:,}")  # fmt: skip
    for phase, with_dsd, without in zip(("dense", "sparse", "re-dense"), ours, plain, strict=True):
        added = with_dsd - without
        print(f"{phase:9s} plain {without:>12,} bytes, DSD adds {added:>11,} "
              f"({added / size:.4f} a weight)")  # fmt: skip


if __name__ == "__main__":
    app.run(main)
