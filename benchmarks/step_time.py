"""Time of one training step in each phase, as a ratio to plain Keras; for tf_keras, TF-MOT's too.

Every round runs the same number of steps of each variant, in turn, in one process; a round gives
one ratio to the plain model's time in that round. Printed: median and quartiles of the rounds.
The inputs are random: only the time counts here.

    python benchmarks/step_time.py --keras=2 --model=mlp --rounds=40
    KERAS_BACKEND=jax python benchmarks/step_time.py --keras=3 --model=wide_mlp
"""

import contextlib
import importlib
import time
from typing import Any

import numpy as np
from absl import app, flags
from models import build, stepper

import keras_dsd as dsd
from keras_dsd import doors

_KERAS = flags.DEFINE_enum("keras", "2", ["2", "3"], "tf_keras, or Keras 3 on KERAS_BACKEND.")
_MODEL = flags.DEFINE_enum("model", "mlp", ["mlp", "wide_mlp", "conv", "lstm"], "What to train.")
_ROUNDS = flags.DEFINE_integer("rounds", 40, "Rounds; each gives one ratio for each variant.")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps of each variant in a round.")
_REPLICAS = flags.DEFINE_integer("replicas", 1, "Logical CPU devices under MirroredStrategy.")
_OPTIMIZER = flags.DEFINE_string("optimizer", "adam", "Name of an optimizer.")
_JIT = flags.DEFINE_enum("jit", "auto", ["auto", "yes", "no"], "jit_compile, for Keras 3.")


def compiled(keras: Any, model: Any) -> Any:
    """Returns `model`, compiled."""
    jit = {"auto": "auto", "yes": True, "no": False}[_JIT.value]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.get(_OPTIMIZER.value)
    model.compile(optimizer, loss, **({"jit_compile": jit} if _KERAS.value == "3" else {}))
    optimizer.build(model.trainable_variables)
    return model


def in_phase(model: Any, masked: bool) -> Any:
    """Returns `model` as it trains in a dense or a sparse phase of DSD, 30 % pruned."""
    side = doors.door_of(model).trainer(model)
    side.open()
    for weight in side.weights if masked else ():
        weight.hold(np.abs(weight.numpy()) > np.quantile(np.abs(weight.numpy()), 0.3))
    side.use_step(masked=masked, lr=1.0)
    return model


def tfmot_model(keras: Any) -> Any:
    """Returns a model as TF-MOT prunes it, 30 %."""
    import tensorflow_model_optimization as tfmot

    schedule = tfmot.sparsity.keras.ConstantSparsity(0.3, 0)
    plain, _ = build(keras, _MODEL.value)
    model = compiled(keras, tfmot.sparsity.keras.prune_low_magnitude(plain, schedule))
    callback = tfmot.sparsity.keras.UpdatePruningStep()
    callback.set_model(model)
    callback.on_train_begin()
    model.make_train_function()
    return model


def variants(keras: Any) -> dict[str, Any]:
    """Returns what runs the steps of each variant, by name; the plain one is first."""
    plain, shape = build(keras, _MODEL.value)
    compiled(keras, plain).make_train_function()
    models = {"plain": plain}
    for name in ("dense phase", "sparse phase"):
        model, _ = build(keras, _MODEL.value)
        model = compiled(keras, dsd.apply(model, 0.3))
        models[name] = in_phase(model, masked=name == "sparse phase")
    if _KERAS.value == "2":
        models["TF-MOT"] = tfmot_model(keras)
    return {name: stepper(keras, model, shape) for name, model in models.items()}


def replicated() -> Any:
    """Returns the scope of a strategy over logical CPU devices, where several are asked for."""
    if _REPLICAS.value == 1:
        return contextlib.nullcontext()
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * _REPLICAS.value
    tf.config.set_logical_device_configuration(cpu, logical)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(_REPLICAS.value)]).scope()


def main(argv: list[str]) -> None:
    """Prints a line for each variant."""
    del argv
    keras = importlib.import_module({"2": "tf_keras", "3": "keras"}[_KERAS.value])
    with replicated():
        found = variants(keras)
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(_ROUNDS.value + 1):
        for name, run in found.items():
            began = time.perf_counter()
            run(_STEPS.value)
            if turn:  # the first round traces
                times[name].append((time.perf_counter() - began) / _STEPS.value)
    plain = np.array(times["plain"])
    backend = keras.backend.backend() if _KERAS.value == "3" else "tensorflow"
    print(f"keras={_KERAS.value} backend={backend} model={_MODEL.value} jit={_JIT.value} "
          f"optimizer={_OPTIMIZER.value} replicas={_REPLICAS.value} "
          f"plain step {1e3 * np.median(plain):.2f} ms")  # fmt: skip
    for name, seconds in times.items():
        low, middle, high = np.percentile(np.array(seconds) / plain, [25, 50, 75])
        print(f"{name:13s} {middle:.3f}  ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    app.run(main)
