"""Memory that training takes in each phase: of the process, of the backend's arrays, of a GPU.

One way to train in one process: a process does not give back all that it took. Printed, as JSON:
the number of weights that DSD prunes tensors of, and for each phase, in bytes,

- `resident`: the most that the process held ((VmHWM, reset when the phase starts; Linux));
- `live`: all arrays of the backend that are alive when the phase ends;
- `device`: the most that PyTorch or JAX held on a GPU, where there is one; on JAX, so far.

    KERAS_BACKEND=jax python benchmarks/cost/memory.py --keras=keras --network=wide_mlp --dsd
"""

import json
import pathlib
import re
from typing import Any

import networks
from absl import app, flags
from flavour import NETWORK, backend_of, keras_module
from live_bytes import live_bytes

import keras_dsd as dsd

_DSD = flags.DEFINE_bool("dsd", False, "Whether to train with DSD, or plainly.")
_STEPS = flags.DEFINE_integer("steps", 3, "Steps of an epoch, of which each phase has two.")
_SPARSITY = 0.3


def main(argv: list[str]) -> None:
    """Prints what was measured."""
    del argv
    keras = keras_module()
    network = networks.named(NETWORK.value)
    model = network.build(keras)
    size = 0
    callbacks = [count_of(keras)]
    if _DSD.value:
        model = dsd.apply(model, _SPARSITY)
        size = dsd.report(model).size
        callbacks.append(dsd.DSDSchedule(2, 2, 2))
    networks.compiled(keras, model)
    x, y = network.batches(_STEPS.value)
    model.fit(x, y, batch_size=network.shape[0], epochs=6, verbose=0, callbacks=callbacks)
    print(json.dumps({"size": size, **callbacks[0].found}))


def count_of(keras: Any) -> Any:
    """Returns a callback that counts as the second epoch of each phase ends.

    In the first one a step is traced and compiled; `resident` is of both.
    """

    class Count(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.found: dict[str, list[int]] = {"resident": [], "live": [], "device": []}

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch % 2 == 0:
                set_peak_back(keras)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch % 2:
                self.model  # noqa: B018  JAX: brings the weights back
                self.found["resident"].append(peak_resident())
                self.found["live"].append(live_bytes(keras))
                self.found["device"] += peak_on_device(keras)

    return Count()


def set_peak_back(keras: Any) -> None:
    """Has the peaks count from now on."""
    pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if backend_of(keras) == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()


def peak_resident() -> int:
    """Returns the most bytes that the process held."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def peak_on_device(keras: Any) -> list[int]:
    """Returns the most bytes that a GPU held; an empty list without one."""
    if backend_of(keras) == "torch":
        import torch

        return [torch.cuda.max_memory_allocated()] if torch.cuda.is_available() else []
    if backend_of(keras) == "jax":
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        return [stats["peak_bytes_in_use"]] if "peak_bytes_in_use" in stats else []
    return []


if __name__ == "__main__":
    app.run(main)
