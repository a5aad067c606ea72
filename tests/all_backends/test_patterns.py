"""Blocks, N:M groups and one ranking for all, held through the phases on every path."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import classifier, keras

LAYOUTS = {
    "2:4": {"pattern": dsd.NM(2, 4)},
    "1:3": {"pattern": dsd.NM(1, 3)},
    "blocks": {"sparsity": 0.5, "pattern": dsd.Block(4, 2)},
    "max blocks": {"sparsity": 0.3, "pattern": dsd.Block(2, 3, "max"), "scope": "global"},
    "global": {"sparsity": 0.6, "scope": "global"},
}


def expected(values, layout):
    """Masks of Dense kernels and of a convolution's, by what the pattern says, place by place."""
    pattern = layout.get("pattern")
    if isinstance(pattern, dsd.NM):
        return [in_groups(each, pattern) for each in values]
    scores = [abs(each) if pattern is None else pooled(each, pattern) for each in values]
    is_global, sparsity = layout.get("scope") == "global", layout["sparsity"]
    sizes = [each.size for each in scores]
    ranked = [np.concatenate([s.ravel() for s in scores])] if is_global else scores
    kept = []
    for each in ranked:
        keep = np.ones(each.size, bool)
        keep[np.argsort(each, axis=None, kind="stable")[: round(each.size * sparsity)]] = False
        kept.append(keep)
    kept = np.split(kept[0], np.cumsum(sizes)[:-1]) if is_global else kept
    kept = [k.reshape(s.shape) for k, s in zip(kept, scores, strict=True)]
    return kept if pattern is None else [
        spread(k, each.shape, pattern) for k, each in zip(kept, values, strict=True)
    ]  # fmt: skip


def in_groups(values, pattern):
    mask = np.ones(values.shape, bool)
    inputs = values.shape[-2]
    for place in np.ndindex(*values.shape[:-2]):
        for start in range(0, inputs - pattern.m + 1, pattern.m):
            for column in range(values.shape[-1]):
                group = abs(values[place][start : start + pattern.m, column])
                order = np.argsort(group, kind="stable")[: pattern.m - pattern.n]
                mask[(*place, start + order, column)] = False
    return mask


def pooled(values, block):
    rows, columns = values.shape[-2] // block.height, values.shape[-1] // block.width
    inside = abs(values[..., : rows * block.height, : columns * block.width])
    split = inside.reshape(*values.shape[:-2], rows, block.height, columns, block.width)
    return split.max(axis=(-3, -1)) if block.pooling == "max" else split.sum(axis=(-3, -1))


def spread(kept, shape, block):
    mask = np.ones(shape, bool)
    whole = np.repeat(np.repeat(kept, block.height, axis=-2), block.width, axis=-1)
    mask[..., : whole.shape[-2], : whole.shape[-1]] = whole
    return mask


def layouts(*on_every_backend):
    once = pytest.mark.once_per_keras
    return [pytest.param(n, marks=[] if n in on_every_backend else once) for n in LAYOUTS]


@pytest.mark.parametrize("name", layouts("2:4", "blocks", "global"))
def test_the_mask_is_exact_and_active_and_weights_regrow_from_zero(name, digits, compiled):
    layout, seen = LAYOUTS[name], []
    model = compiled(dsd.apply(classifier("conv"), **layout))

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                seen.append(expected([w.numpy() for w in dsd.weights(self.model)], layout))

        def on_train_batch_end(self, batch, logs=None):
            seen.append([w.numpy() != 0 for w in dsd.weights(self.model)])
            if 11 <= len(seen) - 1 < 21:
                for weight, mask in zip(dsd.weights(self.model), seen[10], strict=True):
                    assert mask.all() or np.array_equal(weight.mask, mask)

    model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), Look()])
    masks, pruned = seen[10], seen[11:21]
    assert any(not mask.all() for mask in masks)
    for batch in pruned:
        for nonzero, mask in zip(batch, masks, strict=True):
            assert not nonzero[~mask].any() and nonzero[mask].mean() > 0.95
    pairs = zip(seen[-1], masks, strict=True)
    moved = [nonzero[~mask].mean() for nonzero, mask in pairs if not mask.all()]
    assert max(moved) > 0.5 and all(weight.mask is None for weight in dsd.weights(model))


class Users(keras.layers.Layer):
    """Has attributes that are named as those of Keras's own layers, and mean something else."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.equation, self.rank, self.lora_enabled = "y = x", "high", True
        self.cell = self.layer = self.groups = self.kernel_size = self.depth_multiplier = "mine"

    def build(self, shape):
        self.matrix = self.add_weight(name="matrix", shape=(shape[-1], 6))

    def get_prunable_weights(self):
        return [self.matrix]

    def call(self, x):
        return x @ self.matrix


class EinsumDense(Users):
    """Has the name of one of them."""


@pytest.mark.only_on("tf_keras", "jax")
@pytest.mark.parametrize("kind", [Users, EinsumDense])
def test_types_are_known_by_class(kind):
    layers = keras.layers
    inputs = layers.Input((8, 8, 1))
    x = layers.Conv2DTranspose(4, 2)(layers.EinsumDense("abcd,cde->abe", (9, 8))(
        layers.ZeroPadding2D(((0, 1), (0, 1)))(inputs))[..., None])  # fmt: skip
    plain = keras.Model(inputs, kind(name="users")(layers.Flatten()(x)))
    model = dsd.apply(plain, pattern=dsd.Block(1, 2))
    assert [weight.layout for weight in dsd.weights(model)] == [
        ((), (0, 1), (2,)), ((0, 1), (3,), (2,)), ((), (0,), (1,)),
    ]  # fmt: skip
    assert [each.path.rpartition("/")[2] for each in dsd.report(model).weights] == [
        "kernel", "kernel", "matrix",
    ]  # fmt: skip


@pytest.mark.once_per_keras
def test_the_edge_is_reported_and_what_is_too_small_is_skipped():
    model = dsd.apply(classifier("mlp"), pattern=dsd.NM(2, 5))
    found = dsd.report(model)
    edges = {each.shape: each.uncovered for each in found.weights}
    assert edges == {(64, 16): 64, (16, 10): 10}
    assert "edge left dense: 64 values of " in found.render()
    assert found.to_dict()["weights"][0]["uncovered"] == 64
    model = dsd.apply(classifier("mlp"), pattern=dsd.NM(2, 50))
    assert [each.shape for each in dsd.weights(model)] == [(64, 16)]
    reasons = {each.shape: each.reason for each in dsd.report(model).skipped}
    assert reasons[(16, 10)] == "too small for a full block or group of the pattern"


@pytest.mark.once_per_keras
def test_a_pattern_that_fits_nowhere_is_refused():
    with pytest.raises(ValueError, match=r"select none of .*too small for a full block"):
        dsd.apply(classifier("mlp"), 0.5, pattern=dsd.Block(100, 1))


@pytest.mark.once_per_keras
def test_a_phases_sparsity_with_a_pattern_that_fixes_it(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), pattern=dsd.NM(2, 4)))
    before = model.get_weights()
    phases = [dsd.SparsePhase(1, sparsity=0.3), dsd.DensePhase(1)]
    with pytest.raises(ValueError, match=r"SparsePhase without `sparsity`.*sparsity=0\.3"):
        model.fit(*digits, epochs=2, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases)])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("name", layouts("2:4"))
@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
def test_a_run_resumes_inside_the_sparse_phase(name, digits, compiled):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    def train(model, first, *callbacks):
        model.fit(*digits, epochs=4, initial_epoch=first, verbose=0, shuffle=False,
                  callbacks=[dsd.DSDSchedule(1, 2, 1), *callbacks])  # fmt: skip
        return [weight.numpy() for weight in dsd.weights(model)]

    def make():
        return compiled(dsd.apply(classifier("mlp"), **LAYOUTS[name]), "sgd")

    whole = make()
    start = whole.get_weights()
    expected_end = train(whole, 0)
    stopped, again = make(), make()
    stopped.set_weights(start)
    train(stopped, 0, Stop())
    again.set_weights(stopped.get_weights())
    for one, two in zip(expected_end, train(again, 2), strict=True):
        assert np.array_equal(one, two)
