"""Keras 3 on TensorFlow: trains on one device and mirrored on two, by `fit` and in a loop.

    python -m tests.helpers.mirrored_run FOLDER

With TF_CONFIG it is a worker: a loop trains there, and `fit` has to say that it can't.
"""

import os
import pathlib
import sys

import keras
import tensorflow as tf

import keras_dsd as dsd
from tests.helpers.devices_model import (
    BATCH,
    EPOCHS,
    Seen,
    compiled,
    data,
    fit,
    random_masks,
    schedule,
    ways,
)


def loop(strategy, model, note):
    """Trains in a custom loop, and keeps the state at every batch end."""
    losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    batches = tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)
    batches = strategy.experimental_distribute_dataset(batches)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(losses(y, model(x, training=True))) / BATCH
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    @tf.function
    def train_step(batch):
        strategy.run(step, args=batch)

    with dsd.DSDLoop(model, model.optimizer, schedule()) as phases:
        for epoch in range(EPOCHS):
            phases.begin_epoch(epoch)
            for batch in batches:
                with strategy.scope():
                    train_step(batch)
                phases.apply_masks()
                note()
            phases.end_epoch()
    with strategy.scope():  # as `fit` does: the averages are the weights that count
        model.optimizer.finalize_variable_values(model.trainable_variables)


def train(strategy, path, by_hand=False):
    """Trains under a strategy, and writes what was seen."""

    def parts_of(weight):
        on_device = (weight.variable.value, weight.mask_on_device)
        local = strategy.experimental_local_results
        return [None if e is None else [part.numpy() for part in local(e)] for e in on_device]

    with strategy.scope():
        model = compiled()
    seen = Seen(model, parts_of)
    if by_hand:
        loop(strategy, model, seen.note)
    else:
        fit(model, seen.note)
    seen.write(path)
    if not by_hand:
        with strategy.scope():
            model = compiled()
        random_masks(model, parts_of, path.with_suffix(".npy"))
        with strategy.scope():
            model = compiled(use_ema=False)
        ways(model, path.with_name(f"ways_{path.name}"))


def work(folder):
    """Does the part of one worker."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = compiled()
    try:
        model.fit(*data(), callbacks=[schedule()], verbose=0)
    except ValueError as error:
        print("refused:", error)
    dsd.strip(model)
    assert "fit" not in vars(model)
    train(strategy, folder / f"worker_{strategy.cluster_resolver.task_id}.npz", by_hand=True)


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    if "TF_CONFIG" in os.environ:
        work(folder)
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        train(tf.distribute.get_strategy(), folder / "one.npz")
        mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        train(mirrored, folder / "fit.npz")
        train(mirrored, folder / "loop.npz", by_hand=True)
