"""Time of whole fits: plain, with DSD, and in TF-MOT's three stages; and of going between phases.

Each round trains a new model in each way, for as many steps: three epochs, in which DSD is dense,
sparse and dense again. TF-MOT's way is a fit, `prune_low_magnitude`, a fit, `strip_pruning` and a
fit. Printed, as JSON, in seconds, a list of the rounds' for each way and each of:

- `total`: from the first call of `fit` to the end of the last one;
- `first`, `to sparse`, `to re-dense`: from the end of the step before, or from that call, to the
  end of a phase's first step, less what a step takes then;
- `masks`: what of `to sparse` is making masks and pruning by them, with DSD;
- `step`, `sparse step`, `re-dense step`: the median of a phase's others.

    KERAS_BACKEND=jax python benchmarks/cost/whole_fit.py --keras=keras --network=mlp
"""

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import networks
import numpy as np
from absl import app, flags
from flavour import NETWORK, keras_module, scope

import keras_dsd as dsd

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds; each trains a model in each way.")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps of an epoch.")
_TFMOT = flags.DEFINE_bool("tfmot", True, "Whether to train in TF-MOT's way, with tf_keras.")
_SPARSITY = 0.3
PHASES = (("first", "step"), ("to sparse", "sparse step"), ("to re-dense", "re-dense step"))


def main(argv: list[str]) -> None:
    """Prints what was measured."""
    del argv
    keras = keras_module()
    ways: dict[str, Callable[..., Any]] = {"plain": plain, "DSD": by_dsd}
    if keras.__name__ == "tf_keras" and _TFMOT.value:
        ways["TF-MOT"] = by_tfmot
    found: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    sys.setrecursionlimit(100_000)  # Keras goes down a stack of layers by calls within calls
    for _ in range(_ROUNDS.value):
        for way, train in ways.items():
            for name, seconds in measured(keras, train).items():
                found[way].setdefault(name, []).append(seconds)
    print(json.dumps(found))


def measured(keras: Any, train: Callable[..., Any]) -> dict[str, float]:
    """Returns what took how long, in seconds, in one way to train."""
    keras.backend.clear_session()
    gc.collect()
    network = networks.named(NETWORK.value)
    x, y = network.batches(_STEPS.value)
    clock = clock_of(keras)

    def fit(model: Any, epochs: int, callbacks: list[Any]) -> None:
        model.fit(x, y, batch_size=network.shape[0], epochs=epochs, shuffle=False, verbose=0,
                  callbacks=callbacks)  # fmt: skip

    with scope():  # not around clear_session, which forgets it
        model = network.build(keras)
        clock.ends.append(time.perf_counter())
        train(keras, model, fit, clock)
    found = {"total": time.perf_counter() - clock.ends[0]}
    steps = np.diff(clock.ends).reshape(3, _STEPS.value)
    usual = np.median(steps[:, 1:], axis=1)
    for (switch, step), first, middle in zip(PHASES, steps[:, 0], usual, strict=True):
        found[switch], found[step] = float(first - middle), float(middle)
    if clock.schedule:
        found["masks"] = clock.schedule[1]
    return found


def clock_of(keras: Any) -> Any:
    """Returns a callback that notes when steps end: `ends`."""

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[float] = []
            self.schedule: list[float] = []  # what `timed` notes

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(logs["loss"])  # the step has run then
            self.ends.append(time.perf_counter())

    return Clock()


def plain(keras: Any, model: Any, fit: Callable[..., None], clock: Any) -> None:
    """Trains without DSD."""
    fit(networks.compiled(keras, model), 3, [clock])


def by_dsd(keras: Any, model: Any, fit: Callable[..., None], clock: Any) -> None:
    """Trains with DSD."""
    model = networks.compiled(keras, dsd.apply(model, _SPARSITY))
    schedule = dsd.DSDSchedule(1, 1, 1)
    begin = schedule.on_epoch_begin

    def timed(*args: Any) -> None:
        began = time.perf_counter()
        begin(*args)
        clock.schedule.append(time.perf_counter() - began)

    vars(schedule)["on_epoch_begin"] = timed
    fit(model, 3, [schedule, clock])


def by_tfmot(keras: Any, model: Any, fit: Callable[..., None], clock: Any) -> None:
    """Trains in the three stages that TF-MOT asks for."""
    from tensorflow_model_optimization.python.core.api import sparsity

    fit(networks.compiled(keras, model), 1, [clock])
    constant = sparsity.keras.ConstantSparsity(_SPARSITY, 0, -1, frequency=1)
    model = networks.compiled(keras, sparsity.keras.prune_low_magnitude(model, constant))
    fit(model, 1, [sparsity.keras.UpdatePruningStep(), clock])
    fit(networks.compiled(keras, sparsity.keras.strip_pruning(model)), 1, [clock])


if __name__ == "__main__":
    app.run(main)
