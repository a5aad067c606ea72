"""Statistics of BatchNormalization, estimated after pruning, on every path."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import Watch, arrays, compiled, keras

NUM_BATCHES = 3


def batches_of(digits, size=32):
    x, y = digits
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def make(frozen=False):
    layers = keras.layers
    norm = layers.BatchNormalization(momentum=0.99, trainable=not frozen)
    body = [layers.Flatten(), layers.Dense(16), norm, layers.ReLU(), layers.Dense(10)]
    model = keras.Sequential([layers.Input((8, 8, 1)), *body])
    return compiled(dsd.apply(model, 0.5), "sgd", metrics=None)


def norm_of(model):
    kind = keras.layers.BatchNormalization
    (norm,) = [layer for layer in model.layers if isinstance(layer, kind)]
    return norm


def statistics(model):
    norm = norm_of(model)
    return [np.array(norm.moving_mean), np.array(norm.moving_variance)]


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


class Begin(keras.callbacks.Callback):
    """Keeps the first layer's weights and the statistics at the start of each epoch."""

    def __init__(self):
        super().__init__()
        self.weights, self.statistics = {}, {}

    def on_epoch_begin(self, epoch, logs=None):
        self.weights[epoch] = [dsd.weights(self.model)[0].numpy(), arrays(self.model)[1]]
        self.statistics[epoch] = statistics(self.model)


def train(model, digits, *callbacks, **options):
    schedule = dsd.DSDSchedule(1, 2, 1, **options)
    model.fit(*digits, epochs=4, verbose=0, shuffle=False, callbacks=[schedule, *callbacks])


def test_they_are_the_means_over_the_batches_of_the_pruned_model(digits):
    begin, model = Begin(), make()
    train(model, digits, begin, batch_norm_data=batches_of(digits), batch_norm_batches=NUM_BATCHES)
    kernel, bias = begin.weights[1]
    assert (kernel == 0).mean() == 0.5
    hidden = [x.reshape(len(x), -1) @ kernel + bias for x, _ in batches_of(digits)[:NUM_BATCHES]]
    mean, variance = begin.statistics[1]
    np.testing.assert_allclose(mean, np.mean([h.mean(0) for h in hidden], 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, np.mean([h.var(0) for h in hidden], 0), rtol=1e-4)
    assert norm_of(model).momentum == 0.99


@pytest.mark.parametrize("kind", ["list", pytest.param("dataset", marks=pytest.mark.slow)])
def test_once_a_sparse_phase_and_only_then(kind, digits):
    data = batches_of(digits)
    if kind == "dataset":
        data = pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(digits).batch(32)
    plain, other = make(), make()
    other.set_weights(arrays(plain))
    ends, begins = [Watch(arrays), Watch(arrays)], [Begin(), Begin()]
    train(plain, digits, begins[0], ends[0])
    train(other, digits, begins[1], ends[1], batch_norm_data=data)
    for one, two in zip(ends[0].of_epoch(0), ends[1].of_epoch(0), strict=True):
        assert same(one, two)
    assert same(begins[0].weights[1], begins[1].weights[1])
    for one, two in zip(begins[0].statistics[1], begins[1].statistics[1], strict=True):
        assert not np.array_equal(one, two)
    for epoch in (2, 3):  # within the phase, and when weights regrow, training continues
        before = ends[1].of_epoch(epoch - 1)[-1]
        for value in begins[1].statistics[epoch]:
            assert any(np.array_equal(value, each) for each in before)


def test_a_frozen_layer_keeps_its_own(digits):
    begin, model = Begin(), make(frozen=True)
    before = statistics(model)
    train(model, digits, begin, batch_norm_data=batches_of(digits))
    assert all(same(begin.statistics[epoch], before) for epoch in range(4))


@pytest.mark.parametrize(("options", "error", "said"), [
    ({"batch_norm_data": np.zeros((8, 2))}, TypeError, "type ndarray. Split it into batches"),
    ({"batch_norm_data": 3}, TypeError, "type int. Split"),
    ({"batch_norm_data": iter([])}, TypeError, "list_iterator. Pass a collection that can be read"),
    ({"batch_norm_batches": 0}, ValueError, "`batch_norm_batches` to be at least 1 .batches"),
    ({"batch_norm_batches": 2.0}, TypeError, "whole number of batches"),
])  # fmt: skip
def test_arguments(options, error, said):
    with pytest.raises(error, match=said):
        dsd.DSDSchedule(1, 1, 1, **options)
