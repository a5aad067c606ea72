"""Sums, averages and decay in the steps of a phase, against transcriptions in NumPy."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.all_backends.test_algorithm import LR, gradients, initial_weights
from tests.helpers.paths import (
    Watch,
    arrays,
    classifier,
    compiled,
    double_precision,
    keras,
    left_behind,
    seed,
)

SPARSITY, BATCH = 0.3, 64
KERNELS = (0, 2)


@pytest.mark.slow
def test_the_run_ends_with_the_moving_averages_of_its_last_phase(digits):
    seed(1)
    model = compiled(dsd.apply(classifier(), 0.3), keras.optimizers.Adam(0.01))
    phases = [dsd.SparsePhase(1), dsd.DensePhase(2, ema=0.9)]
    watch = Watch(lambda m: [np.array(each) for each in m.trainable_variables])
    model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases), watch])
    expected = watch.of_epoch(0)[-1]
    for values in [*watch.of_epoch(1), *watch.of_epoch(2)]:
        pairs = zip(expected, values, strict=True)
        expected = [np.float32(0.9) * a + np.float32(1 - 0.9) * v for a, v in pairs]
    for ours, reference in zip(arrays(model), expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-6)
    assert not np.allclose(arrays(model)[0], watch.of_epoch(2)[-1][0], rtol=0, atol=1e-4)
    assert not left_behind(model)


def test_averages_of_the_optimizer_and_of_a_phase_are_not_mixed(digits):
    model = compiled(dsd.apply(classifier(), 0.3), keras.optimizers.SGD(0.1, use_ema=True))
    before = arrays(model)
    schedule = dsd.DSDSchedule(phases=[dsd.SparsePhase(1), dsd.DensePhase(1, ema=0.9)])
    with pytest.raises(ValueError, match="without use_ema.*ema=0.9.*SGD.use_ema=True"):
        model.fit(*digits, epochs=2, verbose=0, callbacks=[schedule])
    assert all(map(np.array_equal, arrays(model), before))


def lowest(scores, count):
    mask = np.ones(scores.size, bool)
    mask[np.argsort(scores.ravel(), kind="stable")[:count]] = False
    return mask.reshape(scores.shape)


class Transcription:
    """Stochastic gradient descent on the network of `gradients`, with sums over each epoch."""

    def __init__(self, x, y):
        self.weights = [each.copy() for each in initial_weights()]
        self.batches = [(x[at : at + BATCH], y[at : at + BATCH]) for at in range(0, len(x), BATCH)]
        self.ends = []

    def epoch(self, masks=None, regrown=None, decay=0.0, ema=None):
        self.gradients = [np.zeros(each.shape) for each in self.weights]
        self.movements = [np.zeros(each.shape) for each in self.weights]
        averages = [each.copy() for each in self.weights]
        for x, y in self.batches:
            for index, found in enumerate(gradients(self.weights, x, y)):
                weight = self.weights[index]
                self.gradients[index] += found
                self.movements[index] -= found * weight
                if regrown and index in regrown:
                    weight = np.where(regrown[index], weight * (1 - LR * decay), weight)
                self.weights[index] = weight - LR * found
                if masks and index in masks:
                    self.weights[index] = self.weights[index] * masks[index]
            if ema:
                pairs = zip(averages, self.weights, strict=True)
                averages = [ema * a + (1 - ema) * w for a, w in pairs]
        self.ends.append([each.copy() for each in self.weights])
        self.averages = averages

    def prune(self, scores):
        masks = {}
        for index in KERNELS:
            masks[index] = lowest(scores(index), round(self.weights[index].size * SPARSITY))
            self.weights[index] = self.weights[index] * masks[index]
        return masks


def test_gradients_choose_what_is_pruned_and_what_regrows(digits):
    x, y = digits[0].reshape(len(digits[0]), 64).astype("float64"), digits[1]
    own = Transcription(x, y)
    own.epoch()
    masks = own.prune(lambda index: own.movements[index])
    own.epoch(masks)
    left, sums = {}, own.gradients
    for index, mask in masks.items():
        num_pruned = np.count_nonzero(~mask)
        scores = np.where(mask, np.inf, np.abs(sums[index]))
        left[index] = lowest(scores, num_pruned - round(num_pruned * 0.4))
    own.epoch(left, {index: ~mask for index, mask in masks.items()}, decay=3.0)
    sums, ended = own.gradients, own.weights
    taylor = own.prune(lambda index: np.where(ended[index], np.abs(sums[index] * ended[index]), -1))
    own.epoch(taylor)
    own.epoch(ema=0.9)

    with double_precision():
        seed(11)
        layers = keras.layers
        hidden = layers.Dense(12, activation="tanh", dtype="float64")
        model = keras.Sequential(
            [layers.Input((64,), dtype="float64"), hidden, layers.Dense(10, dtype="float64")]
        )
        model.set_weights(initial_weights())
        model = dsd.apply(model, SPARSITY)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(LR), loss)
        phases = [
            dsd.DensePhase(1), dsd.SparsePhase(1, criterion="movement"),
            dsd.DensePhase(1, regrow_fraction=0.4, regrow_decay=3.0),
            dsd.SparsePhase(1, criterion="taylor"), dsd.DensePhase(1, ema=0.9),
        ]  # fmt: skip
        watch = Watch(
            lambda m: (
                [np.array(each) for each in m.trainable_weights],
                [weight.mask for weight in dsd.weights(m)],
            )
        )
        model.fit(
            x, y, batch_size=BATCH, shuffle=False, epochs=5, verbose=0,
            callbacks=[dsd.DSDSchedule(phases=phases), watch],
        )  # fmt: skip
        for epoch, of in ((1, masks), (2, left), (3, taylor)):
            for mask, expected in zip(watch.of_epoch(epoch)[-1][1], of.values(), strict=True):
                assert np.array_equal(mask, expected), epoch
        for epoch, expected in enumerate(own.ends):
            for ours, reference in zip(watch.of_epoch(epoch)[-1][0], expected, strict=True):
                np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-7)
        for ours, reference in zip(arrays(model), own.averages, strict=True):
            np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-7)


def refused(optimizer, phases, digits, message):
    model = compiled(dsd.apply(classifier(), 0.3), optimizer)
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        model.fit(*digits, epochs=2, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases)])
    assert all(map(np.array_equal, arrays(model), before))


def test_optimizers_that_can_not_train_so_are_refused(digits):
    moved = [dsd.DensePhase(1), dsd.SparsePhase(1, criterion="movement"), dsd.DensePhase(1)]
    decayed = [dsd.SparsePhase(1), dsd.DensePhase(1, regrow_decay=0.1)]
    optimizers, is_old = keras.optimizers, keras.__name__ == "tf_keras"
    scale = keras.mixed_precision if is_old else optimizers
    scaled = scale.LossScaleOptimizer(optimizers.SGD(0.1))
    refused(scaled, moved, digits, "without loss scaling.*SGD in a LossScaleOptimizer")
    if is_old:
        legacy = optimizers.legacy.SGD(0.1)
        refused(legacy, decayed, digits, "with update_step, as a phase has regrow_decay")
    else:
        accumulates = optimizers.SGD(0.1, gradient_accumulation_steps=2)
        refused(accumulates, decayed, digits, "SGD.gradient_accumulation_steps=2")
