"""Time of making the masks of VGG-16 whole (138 million weights), beside TF-MOT's own.

Every round makes each kind of mask once with either, in turns, for all kernels of the model, and
gives one ratio of ours to TF-MOT's. Blocks are those of the dense kernels: TF-MOT has no others.
Ours is what `DSDSchedule` does when a sparse phase begins, reading and checking weights included.

    python benchmarks/masks_vgg16.py --rounds=5
"""

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras
from absl import app, flags
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

import keras_dsd as dsd
from keras_dsd import pruning

_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; each gives one ratio for each kind.")
_SPARSITY = flags.DEFINE_float("sparsity", 0.3, "Share of the weights to prune.")
DENSE = ["fc1/", "fc2/", "predictions/"]


def by_tfmot(kernels: list[tf.Variable], **how: object) -> Callable[[], None]:
    """Returns what makes the masks of `kernels` as TF-MOT does."""
    how = {"block_size": [1, 1], "block_pooling_type": "AVG", **how}
    pruner = pruning_impl.Pruning(
        training_step_fn=lambda: 0, pruning_vars=[],
        pruning_schedule=lambda step: (True, _SPARSITY.value), **how,
    )  # fmt: skip

    def make() -> None:
        for kernel in kernels:
            pruner._maybe_update_block_mask(kernel)[1].numpy()

    return make


def by_us(model: tf_keras.Model, **how: object) -> Callable[[], None]:
    """Returns what makes the masks of `model` as a sparse phase does."""
    weights = dsd.weights(dsd.apply(model, **how))

    def make() -> None:
        for _ in pruning.masks_for(weights, None):
            pass

    return make


def seconds(make: Callable[[], None]) -> float:
    """Returns how long a call takes."""
    began = time.perf_counter()
    make()
    return time.perf_counter() - began


def main(argv: list[str]) -> None:
    """Prints a line for each kind of mask."""
    del argv
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.applications.VGG16(weights=None)
    kernels = [weight for weight in model.weights if len(weight.shape) > 1]
    dense = [weight for weight in kernels if len(weight.shape) == 2]
    share, only = _SPARSITY.value, dict.fromkeys(DENSE, _SPARSITY.value)
    kinds = {
        "single weights": (by_us(model, sparsity=share), by_tfmot(kernels)),
        "2:4": (by_us(model, pattern=dsd.NM(2, 4)), by_tfmot(kernels, sparsity_m_by_n=(2, 4))),
        "blocks of 4 x 4, dense layers": (
            by_us(model, sparsity=only, pattern=dsd.Block(4, 4)),
            by_tfmot(dense, block_size=[4, 4]),
        ),
    }
    print(f"VGG-16, {sum(int(np.prod(k.shape)) for k in kernels):,} weights in {len(kernels)} "
          f"kernels, {_ROUNDS.value} rounds")  # fmt: skip
    for name, (ours, theirs) in kinds.items():
        times = np.array([(seconds(ours), seconds(theirs)) for _ in range(_ROUNDS.value)])
        low, median, high = np.quantile(times[:, 0] / times[:, 1], [0.25, 0.5, 0.75])
        print(f"{name:30} ours {np.median(times[:, 0]):6.2f} s, TF-MOT "
              f"{np.median(times[:, 1]):6.2f} s, ratio {median:.3f} ({low:.3f} to {high:.3f})",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    app.run(main)
