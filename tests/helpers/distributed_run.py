"""Trains a model under strategies of tf.distribute, each in turn, and writes down what it saw.

    python -m tests.helpers.distributed_run FOLDER STRATEGY...

A separate process: logical devices are set before TensorFlow starts, and workers are processes.
"""

import collections
import json
import os
import pathlib
import sys
from contextlib import nullcontext
from unittest import mock

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.ops import gen_collective_ops

import keras_dsd as dsd
from tests.helpers import digits

layers = tf_keras.layers
SPARSITY = 0.4
BATCH = 64
DEVICES = ["CPU:0", "CPU:1"]
STRATEGIES = {
    "one": tf.distribute.get_strategy,
    "one_device": lambda: tf.distribute.OneDeviceStrategy("CPU:1"),
    "mirrored": lambda: tf.distribute.MirroredStrategy(DEVICES),
    "central_storage": lambda: tf.distribute.experimental.CentralStorageStrategy(
        DEVICES, DEVICES[0]
    ),
    "multi_worker": tf.distribute.MultiWorkerMirroredStrategy,
}


def data():
    """Returns 320 digits, five batches, and their labels."""
    return digits.rows()


def compiled(strategy, optimizer):
    """Makes a model; all strategies start from the same weights."""
    tf_keras.utils.set_random_seed(1)
    with strategy.scope():
        body = [layers.Dense(16, "tanh"), layers.LayerNormalization(), layers.Dense(10)]
        model = tf_keras.Sequential([layers.Input((64,)), *body])
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer(), loss)
    return model


class Silent(dsd.DSDSchedule):
    """Fails if a phase sends anything to other replicas, or other workers, as it starts."""

    has_masks = False

    def on_epoch_begin(self, epoch, logs=None):
        names = [name for name in vars(gen_collective_ops) if name.startswith("collective_")]
        if epoch in (2, 3) and not self.has_masks:
            # The variables of a process's first masks are made, as all are, by the first worker.
            names, self.has_masks = [], True
        nothing = dict.fromkeys(names, mock.Mock(side_effect=AssertionError("sent something")))
        with mock.patch.multiple(gen_collective_ops, **nothing) if names else nullcontext():
            super().on_epoch_begin(epoch, logs)


class Look(tf_keras.callbacks.Callback):
    """Notes, at every batch end, the pruned weights of each replica of this process, and masks."""

    def __init__(self):
        super().__init__()
        self.values, self.masks, self.operations = [], [], {}

    def on_train_batch_end(self, batch, logs=None):
        weights = dsd.weights(self.model)
        self.values.append(self._on_replicas(weight.variable for weight in weights))
        masks = [weight.mask_variable for weight in weights]
        of_dense = [np.ones(each.shape, bool) for each in self.values[-1]]
        is_sparse = all(mask is not None for mask in masks)
        self.masks.append(self._on_replicas(masks) if is_sparse else of_dense)

    def on_epoch_end(self, epoch, logs=None):
        self.operations[epoch] = operations(self.model)

    def _on_replicas(self, variables):
        local = self.model.distribute_strategy.experimental_local_results
        by_variable = [[each.numpy().ravel() for each in local(v)] for v in variables]
        return [np.concatenate(each) for each in zip(*by_variable, strict=True)]


def operations(model):
    """Counts the operations of the step that trains now, by kind."""
    graph = model.train_tf_function._list_all_concrete_functions()[-1].graph
    functions = graph.as_graph_def().library.function
    inside = [node.op for function in functions for node in function.node_def]
    return collections.Counter([each.type for each in graph.get_operations()] + inside)


def train(strategy, optimizer, phases=(2, 2, 2), callbacks=(), observers=()):
    """Trains with DSD; returns the stripped model and what was seen."""
    model = dsd.apply(compiled(strategy, optimizer), SPARSITY)
    look = Look()
    model.fit(
        *data(), batch_size=BATCH, epochs=sum(phases), shuffle=False, verbose=0,
        callbacks=[*callbacks, Silent(*phases, observers=observers), look],
    )  # fmt: skip
    return dsd.strip(model), look


def in_steps(strategy, optimizer):
    """Trains by phases of three and four steps, in epochs of five; returns what was seen.

    The learning rate changes in each step of the first two.
    """
    model, look = dsd.apply(compiled(strategy, optimizer), SPARSITY), Look()
    first, sparse = dsd.DensePhase(steps=3, lr="cosine"), dsd.SparsePhase(steps=4, lr="linear")
    phases = [first, sparse, dsd.DensePhase(1)]
    history = model.fit(
        *data(), batch_size=BATCH, epochs=2, shuffle=False, verbose=0,
        callbacks=[dsd.DSDSchedule(phases=phases), look],
    ).history  # fmt: skip
    return {"values": look.values, "masks": look.masks, "made": history["dsd_steps"]}


def loop(strategy, optimizer):
    """Trains in a custom loop; returns the stripped model and what was seen."""
    model = dsd.apply(compiled(strategy, optimizer), SPARSITY)
    losses = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    batches = tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)
    batches = strategy.experimental_distribute_dataset(batches)
    look = Look()
    look.set_model(model)
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(losses(y, model(x, training=True))) / BATCH
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    @tf.function
    def train_step(batch):
        strategy.run(step, args=batch)

    with dsd.DSDLoop(model, model.optimizer, dsd.DSDSchedule(1, 1, 1)) as phases:
        for epoch in range(3):
            phases.begin_epoch(epoch)
            for number, batch in enumerate(batches):
                with strategy.scope():
                    train_step(batch)
                phases.apply_masks()
                look.on_train_batch_end(number)
            phases.end_epoch()
    return dsd.strip(model), look


def plain_operations(strategy, optimizer):
    """Returns the operations of the step of a model without DSD."""
    model = compiled(strategy, optimizer)
    model.fit(*data(), batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
    return operations(model)


def operations_of_tfmot(strategy, optimizer):
    """Returns the operations of the step of a model that TF-MOT prunes by its own callback."""
    from tensorflow_model_optimization.sparsity import keras as sparsity

    model = compiled(strategy, optimizer)
    with strategy.scope():
        pruned = sparsity.prune_low_magnitude(
            model, pruning_schedule=sparsity.ConstantSparsity(SPARSITY, 0)
        )
        pruned.compile(optimizer(), model.loss)
    callbacks = [sparsity.UpdatePruningStep()]
    pruned.fit(*data(), batch_size=BATCH, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
    return operations(pruned)


def statistics(strategy):
    """Returns what replicas hold right after pruning: of BatchNormalization, and random masks."""
    tf_keras.utils.set_random_seed(1)
    with strategy.scope():
        norm = layers.BatchNormalization(synchronized=True)
        dense = [layers.Dense(16, name="a"), norm, layers.Dense(10, name="b")]
        model = tf_keras.Sequential([layers.Input((64,)), *dense])
        model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found, masks = [], []

    def note(epoch, logs):
        if epoch == 0:
            local = strategy.experimental_local_results
            for each in (norm.moving_mean, norm.moving_variance):
                found.append([v.numpy() for v in local(each)])
            masks.extend(m.numpy() for m in local(dsd.weights(pruned)[0].mask_variable))

    x, y = data()
    phases = [dsd.SparsePhase(1, criterion="random"), dsd.DensePhase(1)]
    schedule = dsd.DSDSchedule(phases=phases, batch_norm_data=[x[:100], x[100:200]])
    look = tf_keras.callbacks.LambdaCallback(on_epoch_begin=note)
    pruned = dsd.apply(model, SPARSITY)
    pruned.fit(x[:32], y[:32], epochs=2, verbose=0, callbacks=[schedule, look])
    return {"statistics": np.array(found), "random_masks": np.array(masks)}


def ways(strategy):
    """Prunes by sums of gradients, regrows in part, with decay and averages; returns weights."""
    last = dsd.DensePhase(2, regrow_fraction=0.5, regrow_decay=2.0, ema=0.8)
    phases = [dsd.DensePhase(1), dsd.SparsePhase(3, criterion="movement", ramp=2), last]
    model = dsd.apply(compiled(strategy, lambda: tf_keras.optimizers.SGD(0.05)), SPARSITY)
    schedule = dsd.DSDSchedule(phases=phases)
    model.fit(*data(), BATCH, 6, shuffle=False, verbose=0, callbacks=[schedule])
    weights = [np.array(each) for each in dsd.strip(model).get_weights()]
    return {f"ways_{index}": each for index, each in enumerate(weights)}


def refused(strategy):
    """Prunes by scores that differ between workers; returns the error, or nothing."""
    task = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]

    def by_worker(weight):
        return np.random.default_rng(task["index"]).random(weight.shape)

    model = dsd.apply(compiled(strategy, lambda: tf_keras.optimizers.SGD(0.05)), SPARSITY)
    schedule = dsd.DSDSchedule(phases=[dsd.SparsePhase(1, criterion=by_worker), dsd.DensePhase(1)])
    before = model.get_weights()
    try:
        model.fit(*data(), BATCH, 2, verbose=0, callbacks=[schedule])
    except ValueError as error:
        assert all(map(np.array_equal, model.get_weights(), before))
        return {"refused": str(error)}
    return {"refused": ""}


def write(path, strategy):
    """Trains under a strategy, and writes what was seen into two files."""

    def optimizer():
        return tf_keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True)

    observers = [dsd.DSDTensorBoard(path.with_name("logs"))]  # of all, the first worker writes
    model, look = train(strategy, optimizer, observers=observers)
    model.export(str(path))
    reloaded = tf.saved_model.load(str(path))
    _, by_hand = loop(strategy, optimizer)
    np.savez(
        path.with_suffix(".npz"), *model.get_weights(), values=look.values, masks=look.masks,
        predicted=model.predict(data()[0], verbose=0), exported=reloaded.serve(data()[0]),
        **statistics(strategy), **ways(strategy), **refused(strategy),
        loop_values=by_hand.values, loop_masks=by_hand.masks,
        **{f"steps_{name}": each for name, each in in_steps(strategy, optimizer).items()},
    )  # fmt: skip
    counts = {"plain": plain_operations(strategy, optimizer), **look.operations}
    if path.name == "mirrored":
        counts["tfmot"] = operations_of_tfmot(strategy, optimizer)
    path.with_suffix(".json").write_text(json.dumps(counts))


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    if "TF_CONFIG" not in os.environ:
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
    for name in sys.argv[2:]:
        write(pathlib.Path(sys.argv[1]) / name, STRATEGIES[name]())
