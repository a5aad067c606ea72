"""Criteria in a real `fit`, against transcriptions in NumPy."""

import zlib

import numpy as np

import keras_dsd as dsd
from tests.helpers.paths import Watch, compiled, keras, seed


def model():
    """Layers whose names, and so random masks, are the same on every path."""
    layers = keras.layers
    body = [layers.Flatten(), layers.Dense(16, "relu", name="first"), layers.Dense(10, name="last")]
    return dsd.apply(keras.Sequential([layers.Input((8, 8, 1)), *body]), 0.3)


def norms_of_outputs(weight):
    """Scores each weight by the norm of those of its output: columns are pruned."""
    return norms(weight.numpy())


def norms(values):
    return np.broadcast_to(np.linalg.norm(values, axis=0), values.shape)


def lowest(scores):
    mask = np.ones(scores.size, bool)
    mask[np.argsort(scores.ravel(), kind="stable")[: round(0.3 * scores.size)]] = False
    return mask.reshape(scores.shape)


def test_random_weights_and_those_with_the_lowest_scores_are_pruned(digits):
    seed(1)
    trained = compiled(model())
    phases = [
        dsd.SparsePhase(1, criterion="random", seed=7), dsd.DensePhase(1),
        dsd.SparsePhase(1, criterion=norms_of_outputs), dsd.DensePhase(1),
    ]  # fmt: skip
    watch = Watch(lambda m: [(w.numpy(), w.mask) for w in dsd.weights(m)])
    trained.fit(*digits, epochs=4, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases), watch])

    seen = [watch.of_epoch(epoch) for epoch in range(4)]
    masks = [mask for _, mask in seen[0][0]]
    # The same on every path: PCG64 of the seed and of the path of a weight.
    assert [zlib.crc32(np.packbits(mask)) for mask in masks] == [3588408118, 2721741842]
    # Regrown weights of pixels that are always black are still zero: they are pruned first.
    callables = [lowest(np.where(values, norms(values), -1)) for values, _ in seen[1][-1]]
    for expected, epoch in ((masks, 0), (callables, 2)):
        for batch in seen[epoch]:
            for (values, mask), each in zip(batch, expected, strict=True):
                assert np.array_equal(mask, each)
                assert np.count_nonzero(~mask) == round(0.3 * mask.size)
                assert not values[~mask].any()
    assert all((values != 0).any() and mask is None for values, mask in seen[3][-1])
