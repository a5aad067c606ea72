"""Jobs of `make bench`: programs of this folder, each run in a separate process."""

import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

# What a page calls it, with its Keras and what that computes with.
FLAVOURS = {
    "tf_keras": ("tf_keras", "tensorflow"),
    "tensorflow": ("keras", "tensorflow"),
    "jax": ("keras", "jax"),
    "torch": ("keras", "torch"),
}
ON_GPU = ("jax", "torch")
MIRRORED = ("tf_keras", "tensorflow")
NETWORKS = ("mlp", "conv", "lstm", "transformer", "resnet50", "vgg16")
LARGE = ("resnet50", "vgg16")
# Their steps take the time of reading memory, and of calls.
BY_MEMORY, BY_CALLS = "wide_mlp", ("units-64", "layers-100")
STEPS = (*NETWORKS, BY_MEMORY, *BY_CALLS)  # whose step is timed
ROUNDS = {
    "resnet50": ("--rounds=12",),
    "vgg16": ("--rounds=12",),
    **dict.fromkeys(BY_CALLS, ("--rounds=60", "--builds=6")),  # equal models differ most there
}
NUM_LAYERS = (10, 100, 300, 1000)
NUM_UNITS = (300, 1000, 6000)
NUM_REPLICAS = (1, 2, 4)
NUM_DEVICES = (1, 2, 4, 8)  # of a process
NUM_PROCESSES = (2, 4)  # of a device each
SIZES = (10**6, 10**7, 10**8, 10**9)


class Job(NamedTuple):
    """A program to run.

    Attributes:
        kind: The program, without ending.
        flavour: A key of FLAVOURS; empty where no Keras trains.
        subject: What is measured: a network, or a size.
        variant: Which of several measurements of that.
        flags: What the program is given.
        on_gpu: Whether it computes on a GPU.
    """

    kind: str
    flavour: str
    subject: str
    variant: str
    flags: tuple[str, ...]
    on_gpu: bool = False

    @property
    def name(self) -> str:
        """Name of its file."""
        parts = [self.kind, self.flavour, self.subject, self.variant, "gpu" * self.on_gpu]
        return "-".join(part for part in parts if part)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of backend and device."""
        backend = FLAVOURS[self.flavour][1] if self.flavour else "tensorflow"
        chosen = {**os.environ, "KERAS_BACKEND": backend}
        hidden = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        return chosen if self.on_gpu else chosen | hidden


def jobs(has_gpu: bool) -> list[Job]:
    """Returns all there is to measure."""
    found = [*_steps(), *_fits(), *_growing(), *_masks(), *_memory(), *_devices(), *_models()]
    if has_gpu:
        kinds = ("step_time", "whole_fit", "memory")
        found += [
            job._replace(on_gpu=True)
            for job in found
            if job.kind in kinds and job.flavour in ON_GPU and "-" not in job.subject
        ]
    return found


def _steps() -> Iterator[Job]:
    for network, flavour in itertools.product(STEPS, FLAVOURS):
        flags = ROUNDS.get(network, ("--rounds=30", "--builds=3"))
        yield _training("step_time", flavour, network, "", *flags)
    for network, flavour in itertools.product((*NETWORKS, BY_MEMORY), MIRRORED):
        flags = ("--rounds=8",) if network in LARGE else ("--rounds=21", "--builds=3")
        yield _training("step_time", flavour, network, "mirrored", *flags, "--replicas=2")
    for flavour in FLAVOURS:
        flags = ("--rounds=30", "--builds=3", "--sgd")
        yield _training("step_time", flavour, BY_MEMORY, "sgd", *flags)
    for flavour in ("tf_keras", "tensorflow", "jax"):  # PyTorch compiles for minutes
        flags = ("--rounds=30", "--builds=3", "--jit")
        yield _training("step_time", flavour, "dropout", "jit", *flags)


def _fits() -> Iterator[Job]:
    for network, flavour in itertools.product(NETWORKS[:-1], FLAVOURS):
        flags = ("--rounds=2", f"--steps={5 if network in LARGE else 20}")
        yield _training("whole_fit", flavour, network, "", *flags)


def _growing() -> Iterator[Job]:
    for count, flavour in itertools.product(NUM_LAYERS, FLAVOURS):
        flags = (f"--rounds={1 if count > 10 else 3}", "--steps=10")
        yield _training("whole_fit", flavour, f"layers-{count}", "", *flags, "--notfmot")
    for units, flavour in itertools.product(NUM_UNITS, FLAVOURS):
        flags = ("--rounds=2", "--steps=10", "--notfmot")
        yield _training("whole_fit", flavour, f"units-{units}", "", *flags)
    for count, flavour in itertools.product(NUM_REPLICAS, MIRRORED):
        flags = ("--rounds=3", "--notfmot", f"--replicas={count}")
        yield _training("whole_fit", flavour, "mlp", f"replicas-{count}", *flags)


def _masks() -> Iterator[Job]:
    for size in SIZES:
        flags = [f"--size={size}", f"--rounds={11 if size < 10**8 else 3}"]
        if size > 10**8:  # of TF-MOT's sort alone, some hundred seconds and 20 GB
            flags.append("--kinds=numpy.partition,single weights")
        yield Job("masks", "", f"{size}", "", tuple(flags))


def _memory() -> Iterator[Job]:
    for network, flavour in itertools.product(("wide_mlp", "vgg16"), FLAVOURS):
        for way, repeat in itertools.product(("nodsd", "dsd"), range(2)):
            yield _training("memory", flavour, network, f"{way}-{repeat}", f"--{way}")


def _devices() -> Iterator[Job]:
    for count in NUM_DEVICES:
        yield _training("devices", "jax", "units-1000", f"devices-{count}", f"--devices={count}")
    for count in NUM_PROCESSES:
        flags = (f"--devices={count}", f"--processes={count}")
        yield _training("devices", "jax", "units-1000", f"processes-{count}", *flags)


def _models() -> Iterator[Job]:
    for flavour, way in itertools.product(FLAVOURS, ("nodsd", "dsd")):
        yield _training("models", flavour, "units-1400", way, f"--{way}")


def _training(kind: str, flavour: str, network: str, variant: str, *flags: str) -> Job:
    return Job(
        kind, flavour, network, variant,
        (f"--keras={FLAVOURS[flavour][0]}", f"--network={network}", *flags),
    )  # fmt: skip
