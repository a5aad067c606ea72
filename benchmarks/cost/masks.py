"""Time of making masks of one tensor, beside numpy.partition on the same and TF-MOT's own.

Every round makes each kind once, in a random order: what was freed just before makes memory
cheaper. Printed, as JSON: the seconds of each kind, a list of the rounds', and under `memory` the
most bytes a weight that NumPy held besides the tensor.

    python benchmarks/cost/masks.py --size=100000000 --rounds=5
"""

import json
import time
import tracemalloc
import types
from collections.abc import Callable

import numpy as np
from absl import app, flags

from keras_dsd.algorithm import masks
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM, Block, Pattern

_SIZE = flags.DEFINE_integer("size", 10**7, "Number of float32 weights, about: a square matrix.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; each makes a mask of each kind.")
_KINDS = flags.DEFINE_list("kinds", [], "Some of the kinds, by name; none: all.")
_SPARSITY = 0.3


def main(argv: list[str]) -> None:
    """Prints what was measured."""
    del argv
    side = int(_SIZE.value**0.5)
    kernel = np.random.default_rng(0).standard_normal((side, side), np.float32)
    chosen = _KINDS.value or list(KINDS)
    makers = {name: KINDS[name](kernel) for name in chosen}
    if kernel.size < 10**8:
        for make in makers.values():  # what is imported and allocated once
            make()
    found = {name: list[float]() for name in makers}
    order = np.random.default_rng(0)
    for _ in range(_ROUNDS.value):
        for name in order.permutation(list(makers)):
            began = time.perf_counter()
            makers[name]()
            found[name].append(time.perf_counter() - began)
    memory = {name: peak(make) / kernel.size for name, make in makers.items() if name != "TF-MOT"}
    print(json.dumps({"size": kernel.size, "seconds": found, "memory": memory}))


def peak(make: Callable[[], object]) -> int:
    """Returns the most bytes that NumPy holds at a time in a call."""
    tracemalloc.start()
    make()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def by_numpy(kernel: np.ndarray) -> Callable[[], object]:
    """Returns what ranks the weights with numpy.partition, which copies them."""
    rank = int(_SPARSITY * kernel.size)
    return lambda: np.partition(kernel.ravel(), rank)


def by_tfmot(kernel: np.ndarray) -> Callable[[], object]:
    """Returns what makes the mask that TF-MOT would."""
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

    pruner = pruning_impl.Pruning(
        training_step_fn=lambda: 0, pruning_vars=[], block_size=[1, 1], block_pooling_type="AVG",
        pruning_schedule=lambda step: (True, _SPARSITY),
    )  # fmt: skip
    variable = tf.Variable(kernel)
    return lambda: pruner._maybe_update_block_mask(variable)[1].numpy()


def by_us(
    pattern: Pattern = None, scope: str = "layer"
) -> Callable[[np.ndarray], Callable[[], object]]:
    """Returns what makes the mask as a sparse phase does."""

    def maker(kernel: np.ndarray) -> Callable[[], object]:
        weight = types.SimpleNamespace(
            path="kernel", shape=kernel.shape, layout=Layout((), (0,), (1,)), pattern=pattern,
            scope=scope, sparsity=_SPARSITY, mask=None, numpy=lambda: kernel,
        )  # fmt: skip
        return lambda: list(masks.masks_for([weight], None))

    return maker


KINDS = {
    "numpy.partition": by_numpy, "TF-MOT": by_tfmot, "single weights": by_us(),
    "one ranking for all": by_us(scope="global"), "blocks of 4 x 4": by_us(Block(4, 4)),
    "blocks of 1 x 16, max": by_us(Block(1, 16, "max")), "2:4": by_us(NM(2, 4)),
    "4:16": by_us(NM(4, 16)),
}  # fmt: skip

if __name__ == "__main__":
    app.run(main)
