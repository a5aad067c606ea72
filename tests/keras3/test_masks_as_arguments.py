"""Masks as arguments of a step on JAX: small ones are one argument, as each takes time."""

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.watching import run

pytestmark = pytest.mark.only_on("jax")

SHAPES = [(3, 5), (1,), (300, 300), (2, 2, 2), (257, 256), (4,)]


@pytest.fixture
def masks():
    import jax

    random = np.random.default_rng(0)
    return [jax.device_put(random.random(shape) > 0.4) for shape in SHAPES]


def packed(masks):
    from keras_dsd.adapters.keras3.backends.jax import _PackedMasks

    return _PackedMasks.of(masks)


def test_small_masks_are_one_argument_and_return_in_their_order(masks):
    import jax

    found = packed(masks)
    assert len(jax.tree.leaves(found)) == 3, "the small ones, and two large ones"
    for arguments in (found.masks(), jax.jit(lambda each: each.masks())(found)):
        for mask, given in zip(masks, arguments, strict=True):
            np.testing.assert_array_equal(mask, given, strict=True)
    assert packed([]).masks() == [] and not jax.tree.leaves(packed([]))
    assert packed(masks[2:3]).masks() == masks[2:3]


def test_a_step_has_one_argument_for_all_small_masks(digits, compiled, monkeypatch):
    import jax

    from keras_dsd.adapters.keras3.backends.jax import JaxBackend

    seen, plain = [], JaxBackend.train_function

    def watched(backend, train_function, step):
        def watching(state, iterator):
            def each():
                for factor, masks, data in iterator:
                    seen.append(masks)
                    yield factor, masks, data

            return train_function(state, each())

        return plain(backend, watching, step)

    monkeypatch.setattr(JaxBackend, "train_function", watched)
    layers = [keras.layers.Dense(size, "relu") for size in (30, 20, 10)]
    model = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), *layers])
    run(compiled(dsd.apply(model, 0.4), keras.optimizers.Adam()), *digits)
    counts = {len(jax.tree.leaves(masks)) for masks in seen}
    assert counts == {0, 1}, "no mask in dense phases, one argument in the sparse phase"
    of_phase = {id(masks) for masks in seen if jax.tree.leaves(masks)}
    assert len(of_phase) == 1, "they are packed once for the phase"
