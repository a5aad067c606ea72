"""Optimizer state at a phase change: reset as requested, and no more."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import keras, slots

MADE = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(1e-3, amsgrad=True),
    "adagrad": lambda: keras.optimizers.Adagrad(0.05, initial_accumulator_value=0.25),
    "ftrl": lambda: keras.optimizers.Ftrl(0.05, initial_accumulator_value=0.25),
    "adafactor": lambda: keras.optimizers.Adafactor(1e-3),
    "averages": lambda: keras.optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.5),
}


class Look(keras.callbacks.Callback):
    """Keeps the slots at each epoch's end and at the start of the next one."""

    def __init__(self):
        super().__init__()
        self.ends, self.begins, self.masks = {}, {}, {}

    def on_epoch_begin(self, epoch, logs=None):
        self.begins[epoch] = [slots(self.model, w) for w in dsd.weights(self.model)]
        self.masks[epoch] = [w.mask for w in dsd.weights(self.model)]

    def on_epoch_end(self, epoch, logs=None):
        self.ends[epoch] = [slots(self.model, w) for w in dsd.weights(self.model)]


def off_zero(digits):
    """Adafactor divides by zero where a pixel is always 0."""
    return digits[0] + np.float32(0.05), digits[1]


def initial(optimizer, name):
    return 0.25 if optimizer in ("adagrad", "ftrl") and "accumulator" in name else 0.0


@pytest.mark.parametrize(("optimizer", "reset"), [
    *((optimizer, "pruned") for optimizer in MADE),
    # Slots of zeros, slots that start elsewhere, those that weights are computed from, averages.
    *((optimizer, "all") for optimizer in ("adam", "adagrad", "ftrl", "averages")),
    ("adam", "none"),
])  # fmt: skip
def test_which_optimizer_state_is_reset(optimizer, reset, digits, compiled, mlp):
    model, look = compiled(dsd.apply(mlp(), 0.5), MADE[optimizer](), run_eagerly=True), Look()
    schedule = dsd.DSDSchedule(1, 1, 1, reset=reset)
    x, y = off_zero(digits)
    model.fit(x[:96], y[:96], epochs=3, verbose=0, callbacks=[schedule, look])
    masks = look.masks[1]
    for epoch in (1, 2):
        for mask, before, now in zip(masks, look.ends[epoch - 1], look.begins[epoch], strict=True):
            assert set(before) == set(now)
            for name, value in now.items():
                is_average = "average" in name
                start = np.full(value.shape, initial(optimizer, name), value.dtype)
                # Ftrl computes the weights from its slots.
                if is_average or reset == "pruned" or (reset, optimizer) == ("all", "ftrl"):
                    expected = np.where(mask, before[name], start)
                else:
                    expected = start if reset == "all" else before[name]
                assert np.array_equal(value, expected), (epoch, name)


def test_all_is_of_biases_too_and_of_what_has_another_shape(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.5), keras.optimizers.Adafactor(1e-3), run_eagerly=True)
    seen = []

    class Small(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            variables = self.model.optimizer.variables
            variables = variables() if callable(variables) else variables
            values = [np.array(v) for v in variables if 0 < len(v.shape)]
            seen.append(any(np.any(value) for value in values))

    schedule = dsd.DSDSchedule(1, 1, 1, reset="all")
    x, y = off_zero(digits)
    model.fit(x[:96], y[:96], epochs=3, verbose=0, callbacks=[schedule, Small()])
    assert seen[1:] == [False, False]
    assert np.isfinite(model.evaluate(*digits, verbose=0))


@pytest.mark.parametrize("reset", ["all", "none"])
@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
def test_a_run_that_resumes_inside_a_phase_resets_nothing(reset, digits, compiled, mlp):
    model, look = compiled(dsd.apply(mlp(), 0.5), MADE["momentum"]()), Look()
    phases = [dsd.DensePhase(1), dsd.SparsePhase(2)]
    model.fit(*digits, epochs=3, verbose=0,
              callbacks=[dsd.DSDSchedule(phases=phases, reset=reset)])  # fmt: skip
    before = [slots(model, weight) for weight in dsd.weights(model)]
    model.fit(*digits, epochs=3, initial_epoch=2, verbose=0,
              callbacks=[dsd.DSDSchedule(phases=phases, reset=reset), look])  # fmt: skip
    for one, two in zip(before, look.begins[2], strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)
