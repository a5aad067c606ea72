"""Optimizers are observed at work, wherever they are held, and only in a step of the model."""

import importlib

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import programs
from tests.helpers.paths import PATH, Watch, arrays, keras, left_behind
from tests.helpers.unit_gradient import DATA, Moves, fit, members_of_optimizers, net, total

BACKEND = keras.backend.backend()
ON_JAX = BACKEND == "jax"


def update(optimizer, variables):
    """Has an optimizer update variables whose gradients are all 1."""
    ops = importlib.import_module("tensorflow") if PATH == "tf_keras" else keras.ops
    ones = [ops.ones(variable.shape) for variable in variables]
    if PATH == "tf_keras":
        optimizer.apply_gradients(zip(ones, variables, strict=True))
    else:
        optimizer.apply(ones, variables)


def momentum(variables):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(variables)
    return optimizer


class LookAhead:
    """A custom optimizer around others, not a subclass of Keras's."""

    def __init__(self, *inner):
        self.inner = inner


# How a model holds an optimizer of its kernel and one of its bias, and where they are found.
HOLDERS = {
    "list": (lambda one, two: [one, two], lambda held: held),
    "dict": (lambda one, two: {"kernel": one, "bias": two}, lambda held: [*held.values()]),
    "an object": (lambda one, two: LookAhead(one, two), lambda held: held.inner),
    "nested": (lambda one, two: {"all": [(one,), LookAhead(two)]},
               lambda held: [held["all"][0][0], held["all"][1].inner[0]]),
}  # fmt: skip


class Pair(keras.Sequential):
    """Trains its kernel and its bias by an optimizer each."""

    def optimizers(self):
        return self.find(self.held)

    def train_step(self, data):
        for optimizer, variable in zip(self.optimizers(), self.trainable_variables, strict=True):
            update(optimizer, [variable])
        return {"loss": 0.0}


def pair(holder):
    model = dsd.apply(net(keras.optimizers.SGD(7.0), Pair), 0.5)
    make, model.find = HOLDERS[holder]
    model.held = make(*(momentum([each]) for each in model.trainable_variables))
    return model


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.skipif(ON_JAX, reason="Keras hands a step on JAX the state of one optimizer")
def test_optimizers_that_a_model_holds(holder, resumes):
    """Without a reset and the factor, the first re-dense step would be 0.4095."""
    model, kernels = pair(holder), []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda *_, **__: kernels.append(model.get_weights()[0]),
    )
    options = {"epochs": 3, "verbose": 0, "batch_size": 8}
    if resumes:
        with pytest.warns(UserWarning, match="ended with pruned weights"):
            model.fit(*DATA, callbacks=[dsd.DSDSchedule(1, 1, 1), look], **options | {"epochs": 2})
    options["initial_epoch"] = 2 if resumes else 0
    logs = model.fit(*DATA, callbacks=[dsd.DSDSchedule(1, 1, 1), look], **options).history
    before, after = kernels[8], kernels[9]
    pruned = before == 0
    assert pruned.sum() == 4 and not kernels[7][pruned].any()
    assert after[pruned] == pytest.approx(-0.01, rel=1e-5)
    assert logs["dsd_learning_rate"] == pytest.approx([0.1, 0.1, 0.01][-len(logs["loss"]) :])
    assert all(np.float32(0.1) == np.array(each.learning_rate) for each in model.optimizers())


class Student(keras.Sequential):
    """A layer that trains, and a target network, which a copy of it would be."""

    def train_step(self, *args):
        """Updates the first layer alone, with gradients of 1."""
        if not ON_JAX:
            update(self.optimizer, self.trainable_variables[:2])
            return {"loss": 0.0}
        (trainable, others, slots, metrics), _ = args
        ones = [keras.ops.ones_like(each) for each in trainable[:2]]
        online, slots = self.optimizer.stateless_apply(slots, ones, trainable[:2])
        return {"loss": 0.0}, ([*online, *trainable[2:]], others, slots, metrics)


@pytest.mark.parametrize(("dense", "num_built"), [(1, 2), (0, 2), (0, 4)])
def test_a_target_network_that_no_optimizer_trains_stays_dense(dense, num_built):
    """An optimizer that is built for all variables shows at the first step which are trained."""
    if ON_JAX and num_built == 4:
        pytest.skip("Keras takes what an optimizer on JAX is built for")
    layers = [keras.layers.Dense(4, name=name) for name in ("online", "target")]
    model = dsd.apply(Student([keras.layers.Input((4,)), *layers]), 0.5)
    model.compile(keras.optimizers.SGD(0.1), total)
    model.optimizer.build(model.trainable_variables[:num_built])
    online, target = dsd.weights(model)
    before, watch = target.numpy(), Watch(lambda _: [zeros(online), zeros(target)])
    with pytest.warns(UserWarning, match="No optimizer trains 1 of the .*target/kernel") as seen:
        logs = model.fit(*DATA, epochs=dense + 2, batch_size=8, verbose=0,
                         callbacks=[dsd.DSDSchedule(dense, 1, 1), watch]).history  # fmt: skip
    assert sum(each.category is UserWarning for each in seen) == 1
    assert watch.seen == [[0, 0]] * 4 * dense + [[8, 0]] * 4 + [[0, 0]] * 4
    assert np.array_equal(target.numpy(), before)
    reasons = {each.path: each.reason for each in dsd.report(model).skipped}
    (reason,) = (reason for path, reason in reasons.items() if "target/kernel" in path)
    assert "trained by no optimizer" in reason
    # Found out in the sparse phase, it counts until its end.
    assert logs["dsd_sparsity"][dense] == (0.5 if num_built == 2 else 0.25)


def zeros(weight):
    return int((weight.numpy() == 0).sum())


class Raise(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.parametrize("stopped", [False, True])
def test_no_class_of_optimizers_keeps_a_hook(stopped):
    before = members_of_optimizers()
    model = dsd.apply(net("adam"), 0.5)
    schedule = dsd.DSDSchedule(0, 1, 1)
    if stopped:
        with pytest.raises(KeyboardInterrupt):
            fit(model, schedule, Raise(), epochs=2)
    else:
        fit(model, schedule, epochs=2)
        assert not left_behind(model)
    assert members_of_optimizers() == before


def test_other_models_that_train_meanwhile_are_untouched():
    alone = net(keras.optimizers.Adam(0.05))
    others = [net(keras.optimizers.Adam(0.05)), net(keras.optimizers.Adam(0.05))]
    for each in others:
        each.set_weights(alone.get_weights())
    batch = [part[:8] for part in DATA]

    class TrainOthers(keras.callbacks.Callback):
        def on_train_batch_end(self, batch_number, logs=None):
            others[0].train_on_batch(*batch)

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                others[1].fit(*DATA, batch_size=8, epochs=3, verbose=0)

    fit(dsd.apply(net("adam"), 0.5), dsd.DSDSchedule(1, 1, 1), TrainOthers())
    alone.fit(*DATA, batch_size=8, epochs=3, verbose=0)
    for each in others:
        assert all(map(np.array_equal, arrays(each), arrays(alone)))


@pytest.mark.only_on("tf_keras", "tensorflow")
@pytest.mark.filterwarnings("ignore:fit has trained model=")
@pytest.mark.parametrize("traced_before", ["", "in a fit without DSD", "in a run"])
def test_a_train_step_that_is_a_tf_function_of_the_users(traced_before):
    tf = importlib.import_module("tensorflow")

    class Own(keras.Sequential):
        @tf.function
        def train_step(self, data):
            update(self.optimizer, self.trainable_variables)
            return {"loss": tf.constant(0.0)}

    model = dsd.apply(net(keras.optimizers.SGD(0.1), Own), 0.5)
    model.optimizer.build(model.trainable_variables)
    if traced_before == "in a fit without DSD":
        model.fit(*DATA, batch_size=8, verbose=0)
    elif traced_before:  # its trace reads the factor
        fit(model, dsd.DSDSchedule(1, 1, 1))
    watch = Watch(lambda model: int((arrays(model)[0] == 0).sum()))
    schedule, moves = dsd.DSDSchedule(1, 1, 1), Moves()
    options = {"epochs": 3, "batch_size": 8, "verbose": 0, "callbacks": [schedule, watch, moves]}
    is_unscaled = traced_before == "in a fit without DSD"
    if is_unscaled:
        with pytest.warns(UserWarning, match="No optimizer was seen.*DSDLoop") as seen:
            model.fit(*DATA, **options)
        assert sum(each.category is UserWarning for each in seen) == 1
    else:
        model.fit(*DATA, **options)
        assert model.history.history["dsd_learning_rate"] == pytest.approx([0.1, 0.1, 0.01])
    assert watch.seen == [0] * 4 + [4] * 4 + [0] * 4
    last = 0.1 if is_unscaled else 0.01
    assert moves.of_epochs() == pytest.approx([0.1, 0.1, last], rel=1e-3)


@pytest.mark.slow
@pytest.mark.only_on("tf_keras", "tensorflow")
def test_devices_are_the_users_and_replicas_scale_too():
    programs.run("placed_run")


@pytest.mark.only_on("tf_keras", "tensorflow")
def test_debuggers_look_into_every_update(digits, compiled):
    """They can't look into a program of XLA's, which updates of large weights are otherwise."""
    tf = importlib.import_module("tensorflow")
    layers = [keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(160)]
    model = compiled(dsd.apply(keras.Sequential(layers), 0.5), "adam")
    tf.debugging.enable_check_numerics()
    try:
        model.fit(*digits, epochs=2, verbose=0, callbacks=[dsd.DSDSchedule(0, 1, 1)])
    finally:
        tf.debugging.disable_check_numerics()
