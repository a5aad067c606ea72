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


def lowest(scores, sparsity=0.3):
    mask = np.ones(scores.size, bool)
    mask[np.argsort(scores.ravel(), kind="stable")[: round(sparsity * scores.size)]] = False
    return mask.reshape(scores.shape)


def test_random_weights_and_those_with_the_lowest_scores_are_pruned(digits):
    seed(1)
    trained = compiled(model())
    phases = [
        dsd.SparsePhase(1, criterion="random", seed=7), dsd.DensePhase(1),
        dsd.SparsePhase(3, criterion=norms_of_outputs, ramp=2), dsd.DensePhase(1),
    ]  # fmt: skip
    watch = Watch(lambda m: [(w.numpy(), w.mask) for w in dsd.weights(m)])
    trained.fit(*digits, epochs=6, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases), watch])
    seen = [watch.of_epoch(epoch) for epoch in range(6)]
    expected = {0: [mask for _, mask in seen[0][0]]}
    # The same on every path: PCG64 of the seed and of the path of a weight.
    assert [zlib.crc32(np.packbits(mask)) for mask in expected[0]] == [3588408118, 2721741842]
    for epoch, sparsity in ((2, 0.3 * (1 - 0.5**3)), (3, 0.3), (4, 0.3)):
        # Zeros are pruned first: what the epoch before has pruned, and, at the phase's start, what
        # has not regrown, as the pixels are always black.
        before = [np.where(values, norms(values), -1) for values, _ in seen[epoch - 1][-1]]
        expected[epoch] = [lowest(scores, sparsity) for scores in before]
    for epoch, masks in expected.items():
        for batch in seen[epoch]:
            for (values, mask), each in zip(batch, masks, strict=True):
                assert np.array_equal(mask, each) and not values[~mask].any()
    assert [int((~m).sum()) for m in expected[0]] == [round(0.3 * 1024), round(0.3 * 160)]
    assert all((values != 0).any() and mask is None for values, mask in seen[5][-1])
