"""Costs of DSD for kernels that are sharded over several devices, of one or more processes.

Keras 3 on JAX, with every kernel sharded over all devices (`ModelParallel`), which are parts of one
CPU. Masks are made on the devices, as on accelerators. Printed, as JSON, of the first process:

- `kernels`, `masks`: bytes of both on a device, in the sparse phase;
- `boundary bytes`, `epoch bytes`: what is copied to the host as masks are made, and in an epoch;
- `boundary transfers`, `epoch transfers`: in how many copies;
- `boundary`, `epoch end`: seconds that the schedule takes then;
- `step`, `sparse step`: seconds of a training step, the median of its phase;
- `compiled`: training steps that were compiled, with DSD.

    KERAS_BACKEND=jax python benchmarks/cost/devices.py --network=units-1000 --devices=4
"""

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import networks
import numpy as np
from absl import app, flags
from flavour import NETWORK

_DEVICES = flags.DEFINE_integer("devices", 1, "Devices of all processes together.")
_PROCESSES = flags.DEFINE_integer("processes", 1, "Processes.")
_INDEX = flags.DEFINE_integer("index", -1, "Of this process; -1: it starts all of them.")
_ADDRESS = flags.DEFINE_string("address", "", "Where the processes find each other.")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps of an epoch, of which each phase has one.")
_SPARSITY = 0.3


def main(argv: list[str]) -> None:
    """Prints what was measured, or has several processes do it."""
    if _INDEX.value >= 0:
        measure()
        return
    own = _DEVICES.value // _PROCESSES.value
    count = f"--xla_force_host_platform_device_count={own}"
    environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}"}
    address = f"127.0.0.1:{free_port()}"
    given = [sys.executable, *argv[:1], *(f"--{each.name}={each.value}" for each in changed())]
    running = [
        subprocess.Popen(
            [*given, f"--index={index}", f"--address={address}"],
            env=environment, text=True, stdout=None if index == 0 else subprocess.DEVNULL,
        )
        for index in range(_PROCESSES.value)
    ]  # fmt: skip
    codes = [each.wait() for each in running]
    if any(codes):
        sys.exit(f"Expected all processes to end well. Received: codes={codes}")


def changed() -> list[Any]:
    """Returns the flags that were given."""
    return [each for name in flags.FLAGS if (each := flags.FLAGS[name]).present]


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def measure() -> None:
    """Trains a model, and prints what was measured."""
    import jax
    import keras

    import keras_dsd as dsd
    from keras_dsd.adapters.keras3.backends.jax_arrays import JaxArrays

    if _PROCESSES.value > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(_ADDRESS.value, _PROCESSES.value, _INDEX.value)
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((1, len(devices)), ("batch", "model"), devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*kernel"] = ("model", None)  # 10 classes can't be parted in 8
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(
            layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False
        )
    )
    JaxArrays.is_on_host = lambda self, values: False  # type: ignore[method-assign]
    network = networks.named(NETWORK.value)
    model = networks.compiled(keras, dsd.apply(network.build(keras), _SPARSITY))
    x, y = network.batches(_STEPS.value)
    with host_copies(JaxArrays) as copies, compiled_steps() as compiled:
        schedule, seen = dsd.DSDSchedule(1, 1, 1), Seen(keras, copies)
        seen.time_hooks(schedule)
        model.fit(x, y, batch_size=network.shape[0], epochs=3, verbose=0, shuffle=False,
                  callbacks=[schedule, seen.callback()])  # fmt: skip
    print(json.dumps({**seen.found(), "compiled": len(compiled)}))


class Seen:
    """Measurements of a run, hook by hook."""

    def __init__(self, keras: Any, copies: list[int]) -> None:
        self._keras, self._copies = keras, copies
        self._seconds: dict[str, list[float]] = {}
        self._bytes: dict[str, list[list[int]]] = {}
        self._ends: list[float] = []
        self._held = (0, 0)

    def time_hooks(self, schedule: Any) -> None:
        """Has the hooks of a schedule note what they take and copy."""
        for name in ("on_epoch_begin", "on_epoch_end"):
            vars(schedule)[name] = self._noting(name, getattr(schedule, name))

    def _noting(self, name: str, hook: Any) -> Any:
        def noted(*args: Any) -> None:
            before, began = len(self._copies), time.perf_counter()
            hook(*args)
            self._seconds.setdefault(name, []).append(time.perf_counter() - began)
            self._bytes.setdefault(name, []).append(self._copies[before:])

        return noted

    def callback(self) -> Any:
        """Returns a callback that notes when steps end, and what devices hold."""
        import keras_dsd as dsd

        seen = self

        class Clock(self._keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                float(logs["loss"])  # the step has run then
                seen._ends.append(time.perf_counter())

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                if epoch == 1:
                    weights = dsd.weights(self.model)
                    masks = [weight.mask_tensor() for weight in weights]
                    kernels = [weight.tensor() for weight in weights]
                    seen._held = (on_a_device(kernels), on_a_device(masks))

        return Clock()

    def found(self) -> dict[str, Any]:
        """Returns what was seen."""
        steps = np.median(np.diff(np.reshape(self._ends, (3, -1)), axis=1), axis=1)
        boundary, epoch = self._bytes["on_epoch_begin"][1], self._bytes["on_epoch_end"][1]
        return {
            "kernels": self._held[0], "masks": self._held[1],
            "boundary bytes": sum(boundary), "boundary transfers": len(boundary),
            "epoch bytes": sum(epoch), "epoch transfers": len(epoch),
            "boundary": self._seconds["on_epoch_begin"][1],
            "epoch end": self._seconds["on_epoch_end"][1],
            "step": float(steps[0]), "sparse step": float(steps[1]),
        }  # fmt: skip


def on_a_device(arrays: list[Any]) -> int:
    """Returns the bytes of arrays that the first device holds."""
    return sum(each.addressable_shards[0].data.nbytes for each in arrays)


@contextlib.contextmanager
def host_copies(kind: Any) -> Iterator[list[int]]:
    """Yields a list that gets the bytes of all that is copied to the host."""
    sizes: list[int] = []
    fetch = kind.fetch

    def counted(self: Any, *args: Any, **static: Any) -> np.ndarray:
        found = fetch(self, *args, **static)
        sizes.append(found.nbytes)
        return found

    kind.fetch = counted
    yield sizes
    kind.fetch = fetch


@contextlib.contextmanager
def compiled_steps() -> Iterator[list[str]]:
    """Yields a list that gets an entry for each training step that is compiled."""
    import jax

    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            name = record.getMessage().split(" with ")[0]
            if name.startswith("Compiling ") and "train_step" in name:
                found.append(name)

    logger = logging.getLogger("jax")
    logger.addHandler(Handler())
    logger.propagate = False
    with jax.log_compiles(True):
        yield found


if __name__ == "__main__":
    app.run(main)
