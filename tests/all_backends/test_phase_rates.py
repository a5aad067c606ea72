"""Learning rates inside a phase: the learning rate in use at every step of a real fit."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import restarted
from tests.helpers.paths import PATH, keras, rate
from tests.helpers.unit_gradient import WAYS, fit, net

optimizers = keras.optimizers
schedules = optimizers.schedules
BASE, STEPS = 0.01, 4  # batches of an epoch


def at(shape, start, end, step, num_steps):
    """A step as documented, in NumPy."""
    t = min(step / num_steps, 1)
    if shape == "cosine":
        return end + (start - end) * (1 + np.cos(np.pi * t)) / 2
    return start + (end - start) * t


PHASES = [
    dsd.DensePhase(2, lr="cosine"),
    dsd.SparsePhase(1, lr=dsd.Decay("linear", start=0.5, end=0.1)),
    dsd.SparsePhase(1, lr=schedules.ExponentialDecay(0.4, 1, 0.5)),
    dsd.DensePhase(1, lr=0.3),
    dsd.DensePhase(2, lr=dsd.Decay("steps", start=0.2, boundaries=(0.5, 0.8), drop=0.5)),
]
FACTORS = [
    *(at("cosine", 1, 0, i, 8) for i in range(8)),
    *(at("linear", 0.5, 0.1, i, 4) for i in range(4)),
    *(0.4 * 0.5**i for i in range(4)),
    *[0.3] * 4,
    *[0.2] * 4, *[0.1] * 3, *[0.05],
]  # fmt: skip
RATES = BASE * np.array(FACTORS)


def trained(phases=PHASES, epochs=7, make=optimizers.SGD, **options):
    model = dsd.apply(net(make(BASE), **options), 0.5)
    return model, *fit(model, dsd.DSDSchedule(phases=phases), epochs=epochs)


def check(logs, moves, at_once=1):
    expected = RATES.reshape(-1, at_once).sum(1)
    assert moves.used == pytest.approx(expected, rel=1e-3, abs=1e-8)
    assert moves.shown == [np.float32(BASE)] * (28 // at_once), "the user's stays"
    assert logs["dsd_learning_rate"] == pytest.approx(RATES[STEPS - 1 :: STEPS], rel=1e-5)


def test_every_step_has_the_learning_rate_of_its_phase():
    model, logs, moves = trained()
    check(logs, moves)
    assert rate(model) == np.float32(BASE)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # in its modules
def test_ways_to_compile(way):
    _, logs, moves = trained(**WAYS[way])
    check(logs, moves, WAYS[way].get("steps_per_execution", 1))


def loop_of(phases, optimizer, **options):
    model = dsd.apply(net(), 0.5)
    return model, dsd.DSDLoop(model, optimizer, dsd.DSDSchedule(phases=phases), **options)


def bias(model):
    return np.array(model.get_weights()[1], np.float64)


@pytest.mark.parametrize("is_known", [True, False], ids=["steps_per_epoch", "steps unknown"])
def test_a_custom_training_loop(is_known):
    """The eager loop of each backend; the length of the first epoch is known to whoever says it."""
    optimizer = optimizers.SGD(BASE)
    model, loop = loop_of(PHASES, optimizer, steps_per_epoch=STEPS if is_known else None)
    optimizer.build(model.trainable_variables)
    ones, used, logs = [np.ones(v.shape, "float32") for v in model.trainable_variables], [], []
    gradients = [tensor_of(each) for each in ones]
    with loop:
        for epoch in range(7):
            loop.begin_epoch(epoch)
            for _ in range(STEPS):
                before = bias(model)
                loop.begin_step()
                optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
                loop.apply_masks()
                used.append((before - bias(model))[0])
            logs.append(loop.end_epoch()["dsd_learning_rate"])
    expected = RATES.copy()
    if not is_known:
        expected[:STEPS] = BASE
    assert used == pytest.approx(expected, rel=1e-3, abs=1e-8)
    assert logs == pytest.approx(expected[STEPS - 1 :: STEPS], rel=1e-5)


def tensor_of(value):
    if PATH == "tf_keras":
        import tensorflow as tf

        return tf.convert_to_tensor(value)
    return keras.ops.convert_to_tensor(value)


@pytest.mark.only_on("jax")
def test_a_compiled_jax_function_takes_the_factor_as_an_argument():
    """It is traced once for all phases; without the argument it would keep one factor."""
    import jax

    optimizer, traces = optimizers.SGD(BASE), []
    model, loop = loop_of(PHASES, optimizer, steps_per_epoch=STEPS)
    optimizer.build(model.trainable_variables)

    @jax.jit
    def update(factor, variables, state):
        traces.append(factor)
        with loop.scaled(factor):
            ones = [jax.numpy.ones_like(each) for each in variables]
            return optimizer.stateless_apply(state, ones, variables)

    @jax.jit
    def without(variables, state):
        return optimizer.stateless_apply(state, list(variables), variables)

    def values(of):
        return [each.value for each in of]

    used = []
    with loop:
        for epoch in range(7):
            loop.begin_epoch(epoch)
            for _ in range(STEPS):
                before = bias(model)
                loop.begin_step()
                state = values(model.trainable_variables), values(optimizer.variables)
                for variables, news in zip(
                    (model.trainable_variables, optimizer.variables),
                    update(np.float32(loop.factor()), *state), strict=True,
                ):  # fmt: skip
                    for variable, new in zip(variables, news, strict=True):
                        variable.assign(new)
                loop.apply_masks()
                used.append((before - bias(model))[0])
            with pytest.raises(ValueError, match=r"Pass loop.factor\(\) to the function"):
                without(*state)
            loop.end_epoch()
    assert used == pytest.approx(RATES, rel=1e-3, abs=1e-8) and len(traces) == 1


@pytest.mark.slow
def test_a_run_that_was_killed_resumes_to_the_bit(tmp_path):
    """At a batch of each phase; on tf_keras with a backup inside the epoch, where it resumes."""
    kills = [("on_train_batch_end", batch, 0) for batch in (13, 27, 46)]
    kind = {"kind": "rates", "last": True}
    if PATH == "tf_keras":  # Keras 3 starts the epoch again, with the weights of its middle
        kind |= {"kind": "rates, steps", "save_freq": 3}
    runs = [
        {"name": f"run{index}{end}", "backup": f"run{index}", **kind, **killed}
        for index, kill in enumerate(kills)
        for end, killed in (("-killed", {"kill": kill}), ("", {}))
    ]
    exits = restarted.train(tmp_path, {"name": "whole", **kind}, *runs)
    for index in range(len(kills)):
        assert exits[f"run{index}-killed"] == -9 and exits[f"run{index}"] == 0
        restarted.check(tmp_path, "whole", f"run{index}")
