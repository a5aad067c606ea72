"""Time and memory of making masks, as ratios to numpy.partition on the same array.

Every round makes each kind of mask once, in an order of its own, and gives one ratio to the time
numpy.partition took in it. Printed: median and quartiles of the rounds, and the most memory that
NumPy held besides the array, as a multiple of the array.

    python benchmarks/masks.py --size=100000000 --rounds=5
"""

import time
import tracemalloc
import types
from collections.abc import Callable

import numpy as np
from absl import app, flags

from keras_dsd import pruning
from keras_dsd.layouts import Layout
from keras_dsd.patterns import NM, Block

_SIZE = flags.DEFINE_integer("size", 10_000_000, "Number of float32 weights, a square matrix.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; each gives one ratio for each kind.")
_SPARSITY = flags.DEFINE_float("sparsity", 0.3, "Share of the weights to prune.")


def kinds(kernel: np.ndarray) -> dict[str, Callable[[], object]]:
    """Returns what to time, by name."""
    rank = int(_SPARSITY.value * kernel.size)

    def mask(pattern: Block | NM | None, scope: str = "layer") -> Callable[[], object]:
        weight = types.SimpleNamespace(
            path="kernel", shape=kernel.shape, layout=Layout((), (0,), (1,)), pattern=pattern,
            scope=scope, sparsity=_SPARSITY.value, numpy=lambda: kernel,
        )  # fmt: skip
        if scope == "global":
            return lambda: list(pruning.masks_for([weight], None))
        return lambda: pruning.mask_of(kernel, weight, None)

    return {
        "numpy.partition": lambda: np.partition(kernel.ravel(), rank),
        "single weights": mask(None),
        "one ranking for all": mask(None, "global"),
        "blocks of 4 x 4": mask(Block(4, 4)),
        "blocks of 1 x 16, max": mask(Block(1, 16, "max")),
        "2:4": mask(NM(2, 4)),
        "4:16": mask(NM(4, 16)),
    }


def seconds(make: Callable[[], object]) -> float:
    """Returns how long a call takes."""
    began = time.perf_counter()
    make()
    return time.perf_counter() - began


def in_any_order(made: list[Callable[[], object]], seed: int) -> list[float]:
    """Returns how long each takes: what was freed just before makes memory cheaper."""
    found = np.zeros(len(made))
    for index in np.random.default_rng(seed).permutation(len(made)):
        found[index] = seconds(made[index])
    return found.tolist()


def peak(make: Callable[[], object]) -> int:
    """Returns the most bytes that a call holds at a time."""
    tracemalloc.start()
    make()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def main(argv: list[str]) -> None:
    """Prints a line for each kind of mask."""
    del argv
    side = int(_SIZE.value**0.5)
    kernel = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    made = kinds(kernel)
    for make in made.values():
        make()
    times = [in_any_order(list(made.values()), seed) for seed in range(_ROUNDS.value)]
    ratios = np.array(times) / np.array(times)[:, :1]
    print(f"{kernel.size:,} float32 weights, numpy.partition "
          f"{np.median(times, axis=0)[0]:.3f} s, {_ROUNDS.value} rounds")  # fmt: skip
    for (name, make), of_kind in zip(made.items(), ratios.T, strict=True):
        low, median, high = np.quantile(of_kind, [0.25, 0.5, 0.75])
        memory = peak(make) / kernel.nbytes
        print(f"{name:22s} {median:6.2f}  ({low:.2f} to {high:.2f})   memory {memory:.2f}")


if __name__ == "__main__":
    app.run(main)
