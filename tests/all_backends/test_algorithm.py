"""All three phases against a transcription of Algorithm 1 (Han et al., 2017) in NumPy."""

import itertools

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import double_precision, keras, optimizer_cases, seed

pytestmark = pytest.mark.smoke

EPOCHS, SPARSITY, BATCH = 3, 0.3, 64
PER_EPOCH = 5  # batches
LR = float(np.float32(0.02))  # the optimizer keeps it in float32


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def gradients(weights, x, y):
    w1, b1, w2, b2 = weights
    hidden = np.tanh(x @ w1 + b1)
    error = softmax(hidden @ w2 + b2)
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    back = (error @ w2.T) * (1 - hidden**2)
    return [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


class SGD:
    """W <- W - lr V, V <- mu V + g."""

    def __init__(self, momentum):
        self.momentum = momentum
        self.velocity = None

    def step(self, weights, grads, lr):
        self.velocity = self.velocity or [np.zeros_like(w) for w in weights]
        self.velocity = [self.momentum * v - lr * g
                         for v, g in zip(self.velocity, grads, strict=True)]  # fmt: skip
        return [w + v for w, v in zip(weights, self.velocity, strict=True)]

    def forget(self, index, pruned):
        if self.velocity:
            self.velocity[index][pruned] = 0


class Adam:
    def __init__(self, decay=0.0):
        self.decay = decay
        self.m = self.v = None
        self.t = 0

    def step(self, weights, grads, lr):
        self.m = self.m or [np.zeros_like(w) for w in weights]
        self.v = self.v or [np.zeros_like(w) for w in weights]
        self.t += 1
        self.m = [0.9 * m + 0.1 * g for m, g in zip(self.m, grads, strict=True)]
        self.v = [0.999 * v + 0.001 * g * g for v, g in zip(self.v, grads, strict=True)]
        alpha = lr * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        return [
            w - lr * self.decay * w - alpha * m / (np.sqrt(v) + 1e-7)
            for w, m, v in zip(weights, self.m, self.v, strict=True)
        ]

    def forget(self, index, pruned):
        self.m[index][pruned] = 0
        self.v[index][pruned] = 0


CASES = {
    "sgd": (lambda: SGD(0.0), lambda: keras.optimizers.SGD(LR)),
    "momentum": (lambda: SGD(0.9), lambda: keras.optimizers.SGD(LR, momentum=0.9)),
    "adam": (Adam, lambda: keras.optimizers.Adam(LR)),
    "adamw": (lambda: Adam(0.02), lambda: keras.optimizers.AdamW(LR, weight_decay=0.02)),
}


def algorithm_1(weights, optimizer, x, y, dense, sparse, redense):
    """Dense, then sparse under a fixed mask, then dense again from zero at a tenth of the rate.

    Lengths are in steps, over the data again and again. Returns the weights after each phase, and
    the masks.
    """
    weights = [w.astype(np.float64) for w in weights]
    starts = itertools.cycle(range(0, len(x), BATCH))

    def steps(number, lr, masks=None):
        nonlocal weights
        for at in itertools.islice(starts, number):
            grads = gradients(weights, x[at : at + BATCH], y[at : at + BATCH])
            weights = optimizer.step(weights, grads, lr)
            for index, mask in (masks or {}).items():
                weights[index] = weights[index] * mask
        return [w.copy() for w in weights]

    after = [steps(dense, LR)]
    masks = {}
    for index in (0, 2):
        magnitudes = np.sort(np.abs(weights[index]), axis=None)[::-1]
        kept = magnitudes.size - round(magnitudes.size * SPARSITY)
        masks[index] = np.abs(weights[index]) >= magnitudes[kept - 1]
        weights[index] = weights[index] * masks[index]
        optimizer.forget(index, ~masks[index])
    after.append(steps(sparse, LR, masks))
    for index, mask in masks.items():
        optimizer.forget(index, ~mask)
    after.append(steps(redense, LR / 10))
    return after, list(masks.values())


@pytest.fixture(autouse=True)
def _double_precision():
    with double_precision():
        yield


def initial_weights():
    """The same on every path, so that all of them end where the transcription does."""
    random = np.random.default_rng(11)
    shapes = [(64, 12), (12,), (12, 10), (10,)]
    return [random.normal(scale=0.2, size=shape) for shape in shapes]


class AtPhaseEnds(keras.callbacks.Callback):
    """Keeps the weights after some numbers of steps, and the masks after the second."""

    def __init__(self, *lengths):
        super().__init__()
        self.ends, self.number, self.seen = [*itertools.accumulate(lengths)], 0, []

    def on_train_batch_end(self, batch, logs=None):
        self.number += 1
        if self.number in self.ends:
            self.seen.append([np.array(w) for w in self.model.trainable_weights])
        if self.number == self.ends[1]:
            self.masks = [weight.mask for weight in dsd.weights(self.model)]


def model_and_data(digits):
    """Returns a small model in float64, uncompiled, and data."""
    x, y = digits[0].reshape(len(digits[0]), 64).astype("float64"), digits[1]
    seed(11)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((64,), dtype="float64"),
            layers.Dense(12, activation="tanh", dtype="float64"),
            layers.Dense(10, dtype="float64"),
        ]
    )
    model.set_weights(initial_weights())
    return model, x, y


def check(model, x, y, case, schedule, lengths, epochs):
    """Trains by a schedule; asserts what phases of so many steps do, and returns logs and masks."""
    make_reference, make_optimizer = CASES[case]
    expected, masks = algorithm_1(model.get_weights(), make_reference(), x, y, *lengths)
    model = dsd.apply(model, SPARSITY)
    model.compile(make_optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ends = AtPhaseEnds(*lengths)
    history = model.fit(x, y, batch_size=BATCH, shuffle=False, epochs=epochs, verbose=0,
                        callbacks=[schedule, ends])  # fmt: skip
    for ours, reference in zip(ends.seen, expected, strict=True):
        for a, b in zip(ours, reference, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert all(np.array_equal(a, b) for a, b in zip(ends.masks, masks, strict=True))
    return history, masks


@pytest.mark.parametrize("case", optimizer_cases("momentum", "adamw"))
def test_every_phase_matches_algorithm_1(digits, case):
    schedule, lengths = dsd.DSDSchedule(EPOCHS, EPOCHS, EPOCHS), [EPOCHS * PER_EPOCH] * 3
    history, masks = check(*model_and_data(digits), case, schedule, lengths, 3 * EPOCHS)
    assert history.history["dsd_phase"] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    zeros = sum(np.count_nonzero(~mask) for mask in masks) / sum(mask.size for mask in masks)
    assert history.history["dsd_sparsity"][3:6] == pytest.approx([zeros] * 3, abs=1e-12)


@pytest.mark.parametrize("case", optimizer_cases("momentum"))
def test_phases_in_steps_match_algorithm_1(digits, case):
    lengths = 7, 11, 12
    phases = [dsd.DensePhase(steps=7), dsd.SparsePhase(steps=11), dsd.DensePhase(3, lr=0.1)]
    schedule, epochs = dsd.DSDSchedule(phases=phases), sum(lengths) // PER_EPOCH
    history, _ = check(*model_and_data(digits), case, schedule, lengths, epochs)
    assert history.history["dsd_phase"] == [0, 1, 1, 2, 2, 2]
    assert history.history["dsd_steps"] == [5, 10, 15, 20, 25, 30]
