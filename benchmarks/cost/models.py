"""Memory that a process keeps of every model that was built, trained and thrown away.

Plain training and DSD (`apply`, `fit`, `strip`) take turns in one process, each on new models.
Printed, as JSON: the bytes by which the process (VmRSS, Linux) grew over each model, by way.

    python benchmarks/cost/models.py --keras=tf_keras --network=units-1400
"""

import collections
import gc
import json
import pathlib
import re
from typing import Any

import networks
from absl import app, flags
from flavour import NETWORK, keras_module

import keras_dsd as dsd

_ROUNDS = flags.DEFINE_integer("rounds", 10, "Models of each way.")
_WARM_UP = 2  # models of each way, over which a process grows by what it keeps once


def main(argv: list[str]) -> None:
    """Prints what was measured."""
    del argv
    keras, network = keras_module(), networks.named(NETWORK.value)
    grown = collections.defaultdict(list)
    for number in range(_WARM_UP + _ROUNDS.value):
        for way in ("plain", "dsd"):
            before = resident()
            train(keras, network, with_dsd=way == "dsd")
            keras.backend.clear_session()
            gc.collect()
            if number >= _WARM_UP:
                grown[way].append(resident() - before)
    print(json.dumps(grown))


def train(keras: Any, network: networks.Network, with_dsd: bool) -> None:
    """Builds a model and trains it for as many epochs with DSD as plainly."""
    model, callbacks = network.build(keras), []
    if with_dsd:
        model = dsd.apply(model, 0.3)
        callbacks = [dsd.DSDSchedule(1, 1, 1)]
    networks.compiled(keras, model)
    x, y = network.batches(2)
    model.fit(x, y, batch_size=network.shape[0], epochs=3, verbose=0, callbacks=callbacks)
    if with_dsd:
        dsd.strip(model)


def resident() -> int:
    """Returns the bytes that the process holds."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


if __name__ == "__main__":
    app.run(main)
