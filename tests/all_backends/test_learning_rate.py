"""The learning rate of every phase, however the user drives it."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import PATH, keras, rate, seed

optimizers = keras.optimizers
BASE, TENTH = np.float32(0.01), np.float32(0.01) * np.float32(0.1)


class Rates(keras.callbacks.Callback):
    """Records the learning rate that each batch and each epoch's end sees."""

    def __init__(self):
        super().__init__()
        self.batches, self.ends = [], []

    def rate(self):
        return rate(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(self.rate())

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.rate())


def fit(model, digits, schedule, *others, epochs=None, first=True):
    rates = Rates()
    ours = [schedule, *others] if first else [*others, schedule]
    model.fit(*digits, batch_size=160, epochs=epochs or schedule.timeline.epochs, verbose=0,
              callbacks=[*ours, rates])  # fmt: skip
    return rates


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
def test_a_float_is_scaled_and_given_back(kind, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()), OPTIMIZERS[kind](0.01))
    rates = fit(model, digits, dsd.DSDSchedule(2, 1, 2))
    assert rates.batches == [BASE] * 6 + [TENTH] * 4
    assert rates.ends == [BASE] * 3 + [TENTH] * 2
    assert Rates.rate(rates) == BASE


@pytest.mark.parametrize("first", [True, False], ids=["dsd first", "dsd last"])
def test_a_scheduler_that_sets_the_rate_is_scaled(first, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()), optimizers.SGD(1.0))
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1))
    rates = fit(model, digits, dsd.DSDSchedule(1, 1, 2), scheduler, first=first)
    assert rates.ends == pytest.approx([0.01, 0.005, 0.001 / 3, 0.001 / 4], rel=1e-6)
    assert rates.batches[::2] == rates.ends


@pytest.mark.parametrize("first", [True, False], ids=["dsd first", "dsd last"])
def test_a_scheduler_that_multiplies_the_rate_is_scaled_once(first, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()), optimizers.SGD(0.01))
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    rates = fit(model, digits, dsd.DSDSchedule(1, 1, 3), scheduler, first=first)
    expected = [0.005, 0.0025, 0.000125, 0.0000625, 0.00003125]
    assert rates.ends == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("first", [True, False], ids=["dsd first", "dsd last"])
def test_reduce_on_plateau_carries_over_phases(first, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()), optimizers.SGD(0.01))
    halve = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100)
    rates = fit(model, digits, dsd.DSDSchedule(2, 1, 2), halve, first=first)
    assert rates.batches[::2] == pytest.approx([0.01, 0.01, 0.005, 0.00025, 0.000125], rel=1e-6)


@pytest.mark.parametrize("make", MAKERS)
def test_a_schedule_object_is_scaled_by_what_the_weights_do(make, digits, compiled, mlp):
    """The bias moves by the rate times its gradient, so two rates give two moves."""
    moves = []
    for redense_lr in (1.0, 0.1):
        seed(2)
        decay = optimizers.schedules.PiecewiseConstantDecay([3], [0.04, 0.02])
        model = compiled(dsd.apply(mlp()), make(decay))
        biases = []
        record = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_, b=biases, m=model: b.append(np.array(m.trainable_weights[-1]))
        )
        model.fit(*digits, batch_size=320, shuffle=False, epochs=5, verbose=0,
                  callbacks=[dsd.DSDSchedule(2, 1, 2, redense_lr=redense_lr), record])  # fmt: skip
        moves.append(biases)
    assert all(np.array_equal(a, b) for a, b in zip(moves[0][:3], moves[1][:3], strict=True))
    full, tenth = moves[0][3] - moves[0][2], moves[1][3] - moves[1][2]
    moved = np.abs(full) > 1e-6
    assert moved.any()
    np.testing.assert_allclose(tenth[moved], 0.1 * full[moved], rtol=1e-2)


def test_a_schedule_object_shows_its_scaled_value(digits, compiled, mlp):
    decay = optimizers.schedules.ExponentialDecay(0.01, 2, 0.5, staircase=True)
    model = compiled(dsd.apply(mlp()), optimizers.SGD(decay))
    rates = fit(model, digits, dsd.DSDSchedule(1, 1, 2))
    # tf_keras shows the rate of the last step, Keras 3 that of the next.
    steps = [2 * epoch if PATH == "tf_keras" else 2 * epoch + 2 for epoch in range(4)]
    shown = [0.01 * 0.5 ** (step // 2) for step in steps]
    expected = [rate * factor for rate, factor in zip(shown, [1, 1, 0.1, 0.1], strict=True)]
    assert rates.ends == pytest.approx(expected, rel=1e-6)
    assert model.optimizer.get_config()["learning_rate"]["config"]["decay_rate"] == 0.5


def test_phases_have_their_own_rates(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()), optimizers.SGD(0.01))
    phases = [dsd.DensePhase(1), dsd.SparsePhase(1, lr=0.5), dsd.DensePhase(1, lr=2.0)]
    rates = fit(model, digits, dsd.DSDSchedule(phases=phases))
    assert rates.ends == pytest.approx([0.01, 0.005, 0.02], rel=1e-6)
