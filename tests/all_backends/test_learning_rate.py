"""The learning rate is the user's at any time; a phase multiplies it within the update."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import PATH, keras, left_behind, rate
from tests.helpers.unit_gradient import DATA, WAYS, fit, net

optimizers = keras.optimizers
BASE = np.float32(0.01)
LOGGED = "lr" if PATH == "tf_keras" else "learning_rate"  # by Keras's own callbacks

home = keras.mixed_precision if PATH == "tf_keras" else optimizers
OPTIMIZERS = {
    "new": lambda rate: optimizers.SGD(rate),
    "loss scaling": lambda rate: home.LossScaleOptimizer(optimizers.SGD(rate)),
}
MAKERS = [optimizers.SGD]
if PATH == "tf_keras":
    MAKERS.append(optimizers.legacy.SGD)
    OPTIMIZERS |= {
        "legacy": lambda rate: optimizers.legacy.SGD(rate),
        "legacy loss scaling": lambda rate: home.LossScaleOptimizer(optimizers.legacy.SGD(rate)),
    }


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_number(kind):
    model = dsd.apply(net(OPTIMIZERS[kind](0.01)), 0.5)
    logs, moves = fit(model, dsd.DSDSchedule(2, 1, 2), epochs=5)
    assert moves.shown == [BASE] * 20 and rate(model) == BASE
    expected = [0.01, 0.01, 0.01, 0.001, 0.001]
    assert moves.of_epochs() == pytest.approx(expected, rel=1e-3)
    assert logs["dsd_learning_rate"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # in its modules
def test_ways_to_compile(way):
    model = dsd.apply(net(optimizers.SGD(0.01), **WAYS[way]), 0.5)
    _, moves = fit(model, dsd.DSDSchedule(1, 1, 1))
    at_once = WAYS[way].get("steps_per_execution", 1)
    rates = np.repeat([0.01, 0.01, 0.001], 4 // at_once) * at_once
    assert moves.used == pytest.approx(rates, rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(PATH == "tf_keras", reason="it accumulates no gradients")
def test_accumulated_gradients():
    """A phase that starts between updates waits for its first one; loss scaling has no effect."""
    inner = optimizers.SGD(0.01, gradient_accumulation_steps=3)
    model = dsd.apply(net(home.LossScaleOptimizer(inner)), 0.5)
    _, moves = fit(model, dsd.DSDSchedule(1, 1, 1))
    rates = [0, 0, 0.01] * 2 + [0, 0, 0.001] * 2
    assert moves.used == pytest.approx(rates, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("first", [
    pytest.param(True, id="dsd first", marks=pytest.mark.slow), pytest.param(False, id="dsd last"),
])  # fmt: skip
def test_callbacks_that_set_it_each_epoch(first):
    """They read what they set, whatever the phase, and so does who evaluates in between."""
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    evaluate = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: model.evaluate(*DATA, verbose=0)
    )
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9)
    schedule = dsd.DSDSchedule(1, 1, 3)
    for others, rates in (
        ([halve, evaluate], [0.005, 0.0025, 0.00125, 0.000625, 0.0003125]),
        ([evaluate, plateau], [0.01, 0.01, 0.001, 0.0001, 0.00001]),
    ):
        model = dsd.apply(net(optimizers.SGD(0.01)), 0.5)
        callbacks = [schedule, *others] if first else [*others, schedule]
        logs, moves = fit(model, *callbacks, epochs=5)
        assert moves.shown[::4] == pytest.approx(rates, rel=1e-5)
        assert logs[LOGGED] == pytest.approx(rates, rel=1e-5)
        used = [r * factor for r, factor in zip(rates, [1, 1, 0.1, 0.1, 0.1], strict=True)]
        # Rounding of the weights: a move is the difference of two of them.
        assert moves.of_epochs() == pytest.approx(used, rel=1e-3, abs=1e-7)


def test_a_callback_that_sets_it_at_every_batch():
    class Warmup(keras.callbacks.Callback):
        step = 0

        def on_train_batch_begin(self, batch, logs=None):
            self.step += 1
            self.model.optimizer.learning_rate = 0.01 * self.step

    for callbacks in ([Warmup(), dsd.DSDSchedule(1, 1, 1)], [dsd.DSDSchedule(1, 1, 1), Warmup()]):
        model = dsd.apply(net(optimizers.SGD(1.0)), 0.5)
        _, moves = fit(model, *callbacks)
        assert moves.shown == pytest.approx([0.01 * step for step in range(1, 13)])
        factors = np.repeat([1, 1, 0.1], 4)
        assert moves.used == pytest.approx(moves.shown * factors, rel=1e-3)


@pytest.mark.parametrize("make", MAKERS)
def test_a_schedule(make):
    decay = optimizers.schedules.PiecewiseConstantDecay([5, 9], [0.04, 0.02, 0.01])
    model = dsd.apply(net(make(decay)), 0.5)
    logs, moves = fit(model, dsd.DSDSchedule(1, 1, 1))
    rates = [0.04] * 6 + [0.02] * 2 + [0.002] * 2 + [0.001] * 2
    assert moves.used == pytest.approx(rates, rel=1e-3)
    assert logs["dsd_learning_rate"] == pytest.approx([0.04, 0.02, 0.001], rel=1e-5)
    assert model.optimizer.get_config()["learning_rate"]["config"]["values"] == [0.04, 0.02, 0.01]


def test_phases_with_different_factors():
    phases = [dsd.DensePhase(1), dsd.SparsePhase(1, lr=0.5), dsd.DensePhase(1, lr=2.0)]
    logs, moves = fit(dsd.apply(net(optimizers.SGD(0.01)), 0.5), dsd.DSDSchedule(phases=phases))
    assert moves.of_epochs() == pytest.approx([0.01, 0.005, 0.02], rel=1e-3)
    assert logs["dsd_learning_rate"] == pytest.approx([0.01, 0.005, 0.02], rel=1e-6)


class Stop(keras.callbacks.Callback):
    """Raises within the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2 and batch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("then", ["fit", "train_on_batch", "another model"])
def test_after_an_exception_in_a_scaled_phase(then):
    model = dsd.apply(net(optimizers.SGD(0.01)), 0.5)
    with pytest.raises(KeyboardInterrupt):
        fit(model, dsd.DSDSchedule(1, 1, 1), Stop())
    assert rate(model) == BASE
    model.optimizer.learning_rate = 0.003
    assert rate(model) == np.float32(0.003)
    if then == "fit":
        _, moves = fit(model, epochs=1)
        assert moves.of_epochs() == pytest.approx([0.003], rel=1e-3) and not left_behind(model)
    elif then == "train_on_batch":
        before = model.get_weights()[1]
        model.train_on_batch(DATA[0][:8], DATA[1][:8])
        assert before - model.get_weights()[1] == pytest.approx(0.003, rel=1e-3)
    else:
        other = net(type(model.optimizer).from_config(model.optimizer.get_config()))
        _, moves = fit(other, epochs=1)
        assert moves.of_epochs() == pytest.approx([0.003], rel=1e-3)


def test_a_file_of_a_scaled_phase_holds_the_users(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    model = dsd.apply(net(optimizers.SGD(0.01)), 0.5)
    fit(model, dsd.DSDSchedule(1, 1, 3), keras.callbacks.ModelCheckpoint(path), epochs=5)
    loaded = keras.models.load_model(path.format(epoch=4), custom_objects={"total": model.loss})
    assert rate(loaded) == BASE
    if PATH != "tf_keras":
        loaded = dsd.apply(loaded, 0.5)
    logs, moves = fit(loaded, dsd.DSDSchedule(1, 1, 3), epochs=5, initial_epoch=4)
    assert moves.of_epochs() == pytest.approx([0.001], rel=1e-3)
    assert logs["dsd_learning_rate"] == pytest.approx([0.001])
    for ours, theirs in zip(model.get_weights()[:2], loaded.get_weights()[:2], strict=True):
        assert np.array_equal(ours, theirs)
    assert rate(loaded) == rate(dsd.strip(loaded)) == BASE


class Fixed(optimizers.SGD):
    """Updates without a look at its learning rate."""

    def apply(self, grads, trainable_variables=None):
        for gradient, variable in zip(
            grads, trainable_variables or self._trainable_variables, strict=True
        ):
            variable.assign(variable - 0.01 * gradient)

    if PATH == "tf_keras":

        def apply_gradients(self, grads_and_vars, **options):
            self.apply(*zip(*grads_and_vars, strict=True))


def test_an_optimizer_that_reads_no_learning_rate():
    model = dsd.apply(net(Fixed(0.03)), 0.5)
    with pytest.warns(UserWarning, match="0.1, but Fixed updates weights without reading") as seen:
        logs, moves = fit(model, dsd.DSDSchedule(1, 1, 2), epochs=4)
    assert sum("without reading" in str(each.message) for each in seen) == 1
    assert moves.of_epochs() == pytest.approx([0.01] * 4, rel=1e-3)
    assert "dsd_learning_rate" not in logs
