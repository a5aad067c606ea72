"""Memory that a process keeps of every model that was built, trained and thrown away.

One way to train in one process. Printed, as JSON, in bytes a model: `live`, the arrays of the
backend that are alive, and `resident`, what the process holds (VmRSS, Linux).

    python benchmarks/cost/models.py --keras=tf_keras --network=units-1400 --dsd
"""

import ctypes
import json
import pathlib
import re
from typing import Any

import networks
from absl import app, flags
from flavour import NETWORK, keras_module
from live_bytes import live_bytes

import keras_dsd as dsd

_DSD = flags.DEFINE_bool("dsd", False, "Whether to train with DSD, or plainly.")
_MODELS = flags.DEFINE_integer("models", 5, "Models to build, train and throw away.")
_WARM_UP = 2  # models over which a process grows by what it keeps once


def main(argv: list[str]) -> None:
    """Prints what was measured."""
    del argv
    keras, network = keras_module(), networks.named(NETWORK.value)
    for _ in range(_WARM_UP):
        train(keras, network)
    before = held(keras)
    for _ in range(_MODELS.value):
        train(keras, network)
    after = held(keras)
    print(json.dumps({name: (after[name] - before[name]) / _MODELS.value for name in before}))


def train(keras: Any, network: networks.Network) -> None:
    """Builds a model and trains it, for as many epochs with DSD as plainly."""
    model, callbacks = network.build(keras), []
    if _DSD.value:
        model = dsd.apply(model, 0.3)
        callbacks = [dsd.DSDSchedule(1, 1, 1)]
    networks.compiled(keras, model)
    x, y = network.batches(2)
    model.fit(x, y, batch_size=network.shape[0], epochs=3, verbose=0, callbacks=callbacks)
    if _DSD.value:
        dsd.strip(model)


def held(keras: Any) -> dict[str, int]:
    """Returns the bytes of live arrays and of the process, without what is free to be used."""
    live = live_bytes(keras)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return {"live": live, "resident": 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])}


if __name__ == "__main__":
    app.run(main)
