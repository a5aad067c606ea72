"""Time of one training step in each phase, as a ratio to plain Keras, and TF-MOT's beside it.

Every round runs the same number of steps of each variant, in turn, in one process; a round gives
one ratio to the plain model's time in that round. Printed: median and quartiles of the rounds.
The inputs are random: only the time counts here.

    python benchmarks/step_time.py --model=mlp --rounds=40
"""

import time

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from absl import app, flags

import keras_dsd as dsd
from keras_dsd.tfmot import trainer

_MODEL = flags.DEFINE_enum("model", "mlp", ["mlp", "wide_mlp", "conv", "lstm"], "What to train.")
_ROUNDS = flags.DEFINE_integer("rounds", 40, "Rounds; each gives one ratio for each variant.")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps of each variant in a round.")
_REPLICAS = flags.DEFINE_integer("replicas", 1, "Logical CPU devices under MirroredStrategy.")
_OPTIMIZER = flags.DEFINE_string("optimizer", "adam", "Name of a tf_keras optimizer.")

layers = tf_keras.layers


def build(name: str) -> tuple[tf_keras.Model, tuple[int, ...]]:
    """Returns a model with 10 outputs and the shape of one batch of its inputs."""
    if name in ("mlp", "wide_mlp"):
        batch, width = {"mlp": (128, 512), "wide_mlp": (16, 2048)}[name]
        hidden = [layers.Dense(width, activation="relu") for _ in range(3)]
        return tf_keras.Sequential([layers.Input((784,)), *hidden, layers.Dense(10)]), (batch, 784)
    if name == "conv":
        convs = [layers.Conv2D(64, 3, padding="same", activation="relu") for _ in range(4)]
        ends = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
        shape = (32, 32, 3)
        return tf_keras.Sequential([layers.Input(shape), *convs, *ends]), (32, *shape)
    shape = (50, 64)
    stack = [layers.Input(shape), layers.LSTM(256), layers.Dense(10)]
    return tf_keras.Sequential(stack), (32, *shape)


def compiled(model: tf_keras.Model) -> tf_keras.Model:
    """Returns `model`, compiled."""
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.get(_OPTIMIZER.value), loss)
    return model


def batches(model: tf_keras.Model, shape: tuple[int, ...]) -> object:
    """Returns an endless iterator over one random batch, distributed as `fit` does."""
    random = np.random.default_rng(0)
    x = random.normal(size=shape).astype("float32")
    y = random.integers(0, 10, shape[0])
    data = tf.data.Dataset.from_tensors((x, y)).cache().repeat()
    return iter(model.distribute_strategy.experimental_distribute_dataset(data))


def variants(strategy: tf.distribute.Strategy) -> dict[str, tuple[object, object]]:
    """Returns the step and the data of each variant, by name; the plain one is first."""
    with strategy.scope():
        plain, shape = build(_MODEL.value)
        pruned = tfmot.sparsity.keras.prune_low_magnitude(
            build(_MODEL.value)[0], tfmot.sparsity.keras.ConstantSparsity(0.3, 0)
        )
        models = {
            "plain": compiled(plain),
            "dense phase": compiled(dsd.apply(build(_MODEL.value)[0], 0.3)),
            "sparse phase": compiled(dsd.apply(build(_MODEL.value)[0], 0.3)),
            "TF-MOT": compiled(pruned),
        }
    found = {}
    for name, model in models.items():
        if name.endswith("phase"):
            side = trainer(model)
            side.open()
            for weight in side.weights if name == "sparse phase" else ():
                weight.hold(np.abs(weight.numpy()) > np.quantile(np.abs(weight.numpy()), 0.3))
            side.use_step(masked=name == "sparse phase", lr=1.0)
        elif name == "TF-MOT":
            callback = tfmot.sparsity.keras.UpdatePruningStep()
            callback.set_model(model)
            callback.on_train_begin()
            model.make_train_function()
        else:
            model.make_train_function()
        found[name] = (model.train_function, batches(model, shape))
    return found


def main(argv: list[str]) -> None:
    """Prints a line for each variant."""
    del argv
    strategy = tf.distribute.get_strategy()
    if _REPLICAS.value > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * _REPLICAS.value
        tf.config.set_logical_device_configuration(cpu, logical)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(_REPLICAS.value)])
    found = variants(strategy)
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(_ROUNDS.value + 1):
        for name, (step, data) in found.items():
            began = time.perf_counter()
            for _ in range(_STEPS.value):
                logs = step(data)
            float(logs["loss"])
            if turn:  # the first round traces
                times[name].append((time.perf_counter() - began) / _STEPS.value)
    plain = np.array(times["plain"])
    print(f"model={_MODEL.value} optimizer={_OPTIMIZER.value} replicas={_REPLICAS.value} "
          f"plain step {1e3 * np.median(plain):.2f} ms")  # fmt: skip
    for name, seconds in times.items():
        low, middle, high = np.percentile(np.array(seconds) / plain, [25, 50, 75])
        print(f"{name:13s} {middle:.3f}  ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    app.run(main)
