"""Models with a custom training step, on each backend; the operations of a TensorFlow step."""

import collections
import contextlib
import gc
import importlib
import itertools
import re
import weakref

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.adapters.base.observation import Observation
from keras_dsd.adapters.keras3.masked_updates import MaskedUpdates
from tests.helpers.watching import run

pytestmark = pytest.mark.smoke

BACKEND = keras.backend.backend()


class Own(keras.Sequential):
    """Computes its gradients itself, and updates through the optimizer or manually."""

    by_hand = False

    def train_step(self, *args):
        return getattr(self, f"_{BACKEND}")(*args)

    def _tensorflow(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_weights)
        self._update(gradients)
        return {"loss": loss}

    def _torch(self, data):
        import torch

        x, y = data
        self.zero_grad()
        loss = self.compute_loss(x, y, self(x, training=True))
        loss.backward()
        with torch.no_grad():
            self._update([v.value.grad for v in self.trainable_weights])
        return {"loss": loss}

    def _update(self, gradients):
        if not self.by_hand:
            self.optimizer.apply(gradients, self.trainable_weights)
            return
        for gradient, variable in zip(gradients, self.trainable_weights, strict=True):
            variable.assign(variable - 0.05 * gradient)

    def _jax(self, state, data):
        import jax

        trainable, others, optimizer, metrics = state
        x, y = data[:2]

        def loss_of(trainable, others):
            outputs, others = self.stateless_call(trainable, others, x, training=True)
            return self.compute_loss(x, y, outputs), others

        grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, others), gradients = grad(trainable, others)
        if self.by_hand:
            trainable = [w - 0.05 * g for w, g in zip(trainable, gradients, strict=True)]
        else:
            trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"loss": loss}, (trainable, others, optimizer, metrics)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_train_step_of_the_users_own(by_hand, digits, compiled, mlp):
    model = Own([keras.layers.Input((8, 8, 1)), *mlp().layers])
    model.by_hand = by_hand
    model = compiled(dsd.apply(model, 0.4), keras.optimizers.SGD(0.05, momentum=0.9))
    before = model.evaluate(*digits, verbose=0)
    unseen = pytest.warns(UserWarning, match="No optimizer was seen.*DSDLoop")
    with unseen if by_hand else contextlib.nullcontext():
        run(model, *digits)
    assert model.evaluate(*digits, verbose=0) < before


@pytest.mark.only_on("tensorflow", "torch")
def test_a_step_of_several_updates_is_masked_after_each(digits, compiled, mlp):
    """Between two updates of one step the zeros hold, for what the second is computed from."""
    seen = []

    class Twice(Own):
        def _update(self, gradients):
            for _ in range(2):
                self.optimizer.apply(gradients, self.trainable_weights)
                seen.append(int(np.sum(np.array(self.trainable_weights[0]) == 0)))

    model = compiled(dsd.apply(Twice([keras.layers.Input((8, 8, 1)), *mlp().layers]), 0.4),
                     run_eagerly=True)  # fmt: skip
    run(model, *digits)
    assert seen[20:40] == [410] * 20


def traced_in(step):
    """Returns the tf.function that Keras's step calls, however we wrap it."""
    cells = [cell.cell_contents for cell in step.__closure__ or ()]
    traced = [each for each in cells if hasattr(each, "_list_all_concrete_functions")]
    inner = [each for each in cells if callable(each) and hasattr(each, "__closure__")]
    return next(iter(traced), None) or next(found for found in map(traced_in, inner) if found)


@pytest.mark.only_on("tensorflow")
def test_dense_steps_hold_no_pruning_operation(digits, compiled, mlp):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(digits).batch(32)
    operations = {}
    plain, model = compiled(mlp()), compiled(dsd.apply(mlp()))

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            (step,) = traced_in(self.model.train_function)._list_all_concrete_functions()
            functions = step.graph.as_graph_def().library.function
            types = collections.Counter(node.op for each in functions for node in each.node_def)
            operations.setdefault("plain" if self.model is plain else epoch, types)

    plain.fit(data, shuffle=False, verbose=0, callbacks=[Look()])
    model.fit(
        data, shuffle=False, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), Look()]
    )
    # The factor of the learning rate.
    assert operations[0] - operations["plain"] == {"Mul": 1}
    assert operations[2] == operations[0]
    added = operations[1] - operations[0]
    assert added["SelectV2"] == 2 and added["AssignVariableOp"] == 2


def test_a_step_that_is_used_again_has_the_new_masks(digits, compiled, mlp):
    """On JAX a constant would stay in the program's memory, and a second mask not be seen."""
    model = compiled(dsd.apply(mlp(), 0.5))
    phases = [dsd.SparsePhase(1), dsd.DensePhase(1), dsd.SparsePhase(1, sparsity=0.25),
              dsd.DensePhase(1)]  # fmt: skip
    zeros = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            zeros.append(int(np.sum(dsd.weights(self.model)[0].numpy() == 0)))

    model.fit(*digits, epochs=4, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases), Look()])
    assert zeros[:10] == [512] * 10 and zeros[20:30] == [256] * 10


def itemsize(mask):
    return mask.dtype.size if BACKEND == "tensorflow" else mask.dtype.itemsize


def size_left(mask):
    """Returns how many values of a mask are in memory, of what a weak reference or handle finds."""
    if BACKEND != "tensorflow":
        return 0 if mask() is None else 1
    import tensorflow as tf

    return int(np.prod(tf.raw_ops.VariableShape(input=mask).numpy()))


@pytest.mark.only_on("jax")
def test_a_run_compiles_two_steps_on_jax(digits, compiled, mlp, caplog):
    """JAX compiles a step again if one more argument is committed to a device."""
    model = compiled(dsd.apply(mlp()), "adam")
    jax = importlib.import_module("jax")
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        model.fit(*digits, epochs=6, verbose=0, callbacks=[dsd.DSDSchedule(2, 2, 2)])
    said = [each.getMessage() for each in caplog.records]
    names = r"Compiling (jit\()?(train_step|step|<lambda>)[) ]"
    steps = [each for each in said if re.search(names, each)]
    assert len(steps) == 2


def test_masks_take_a_byte_a_weight_and_go_with_the_phase(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.4))
    sizes, made, left = [], [], []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            masks = [w.mask_on_device for w in dsd.weights(self.model)]
            sizes.append([None if mask is None else itemsize(mask) for mask in masks])
            if len(sizes) == 11 and BACKEND != "jax":  # JAX's arrays take no weak references
                on_tf = BACKEND == "tensorflow"
                made.extend(each.handle if on_tf else weakref.ref(each) for each in masks)
            del masks
            if len(sizes) in (11, 21):  # the first batch under the masks, and after them
                gc.collect()
                left.append(sum(map(size_left, made)))

    run(model, *digits, callbacks=[Look()])
    assert sizes[0] == sizes[20] == [None, None]
    assert sizes[10] == [1, 1]
    assert (left[0] > 0) == (BACKEND != "jax") and left[1] == 0


def test_weights_are_live_within_fit_whoever_asks(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.4))
    read = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weight = dsd.weights(model)[1]  # not self.model, at which Keras syncs
            value = weight.numpy()
            read.append(value.copy())
            if batch == 5:
                weight.assign(np.full(value.shape, 3.0, value.dtype))
                assert np.all(self.model.layers[-1].kernel.numpy() == 3.0)
            elif batch == 6:
                assert abs(value - 3.0).max() < 0.1

    model.fit(*digits, verbose=0, callbacks=[dsd.DSDSchedule(phases=[dsd.DensePhase(1)]), Look()])
    assert all(np.any(a != b) for a, b in itertools.pairwise(read))


def test_a_step_of_keras_masks_each_weight_once(digits, compiled, mlp, monkeypatch):
    """Masks at the end of the step are for those of a user, which may update weights elsewhere."""
    ends = []
    monkeypatch.setattr(MaskedUpdates, "mask_all", lambda self: ends.append(self))
    run(compiled(dsd.apply(mlp(), 0.5), "adam"), *digits)
    assert ends == []


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("optimizer", ["adam", "loss scale"])
@pytest.mark.parametrize("is_custom", [False, True])
def test_one_optimizer_is_hooked_and_not_its_class(
    digits, compiled, optimizer, is_custom, monkeypatch
):
    """A member that is set on a class clears Python's caches: much of a small step."""
    observed, update = [], Observation.update

    def telling(*call):
        observed.append(call)
        return update(*call)

    monkeypatch.setattr(Observation, "update", telling)
    kind = next(each for each in keras.optimizers.Adam.__mro__ if "apply" in vars(each))
    plain, seen = vars(kind)["apply"], set()

    class Look(keras.layers.Layer):
        def call(self, inputs, training=False):
            if training:
                seen.add((vars(kind)["apply"] is plain, "apply" in vars(model.optimizer)))
            return inputs

    class Custom(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    model = (Custom if is_custom else keras.Sequential)(
        [keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), Look(), keras.layers.Dense(10)]
    )
    given = (
        "adam"
        if optimizer == "adam"
        else keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    )
    run(compiled(dsd.apply(model, 0.5), given), *digits)
    # Then it is observed once an epoch. A step under a loss scale updates by two optimizers.
    num_steps = 3 * -(-len(digits[1]) // 32)
    if optimizer == "adam" and not is_custom:
        assert seen == {(True, True), (True, False)} and len(observed) == 3
    else:
        assert seen == {(False, False)} and len(observed) in (num_steps, 2 * num_steps)
    assert vars(kind)["apply"] is plain and "apply" not in vars(model.optimizer)


def test_a_layer_reads_the_learning_rate_of_the_user(digits, compiled):
    """In each step of a phase that scales it for the update: the step reads what was compiled."""
    read = []

    class Reads(keras.layers.Layer):
        def call(self, inputs, training=False):
            if training:
                read.append(model.optimizer.learning_rate)
            return inputs

    model = keras.Sequential(
        [keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), Reads(), keras.layers.Dense(10)]
    )
    compiled(dsd.apply(model, 0.5), keras.optimizers.SGD(0.25))
    run(model, *digits, redense_lr=0.1)
    if BACKEND == "torch":
        assert len(read) == 3 * -(-len(digits[1]) // 32)
        assert {float(each) for each in read} == {0.25}
    assert read and model.optimizer.learning_rate == 0.25
