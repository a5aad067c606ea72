"""Callbacks that unfreeze layers and compile the model inside `fit`: what trains, and the masks."""

import itertools

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import paths
from tests.helpers.paths import keras, left_behind

SPARSE, REDENSE, EPOCHS = 1, 3, 5  # first epochs of phases, and all
BATCHES = 2
EAGER = {"run_eagerly": True}


class Recompile(keras.callbacks.Callback):
    """Sets `trainable` of the first kernel's layer, compiles and makes a step at one moment."""

    def __init__(self, hook, epoch, trainable=True, **options):
        super().__init__()
        self.moment, self.trainable, self.options = (hook, epoch), trainable, options

    def change(self, *moment):
        if moment != self.moment:
            return
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.model.layers[0].trainable = self.trainable
        paths.compiled(self.model, keras.optimizers.Adam(0.01), metrics=None, **self.options)
        self.model.optimizer.build(self.model.trainable_variables)  # on JAX only fit would
        self.model.make_train_function()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.change("epoch begin", epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.change(f"batch {batch} end", self.epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.change("epoch end", epoch)


class Look(keras.callbacks.Callback):
    """Keeps the two kernels at each batch end."""

    def __init__(self, kernels):
        super().__init__()
        self.kernels, self.seen = kernels, []

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.seen.append([np.array(kernel.numpy()) for kernel in self.kernels])


def train(*changes, is_frozen=True, after=True, **options):
    """Trains 1, 2 and 2 epochs, and returns what `Look` has seen; `after` is the order."""
    layers = keras.layers
    plain = keras.Sequential([layers.Input((12,)), layers.Dense(8), layers.Dense(16)])
    kernels = [layer.kernel for layer in plain.layers]
    model = dsd.apply(plain, 0.5)
    model.layers[0].trainable = not is_frozen
    paths.compiled(model, keras.optimizers.Adam(0.01), metrics=None, **options)
    look, schedule = Look(kernels), dsd.DSDSchedule(1, 2, 2)
    random = np.random.default_rng(1)
    x, y = random.normal(size=(8, 12)), random.integers(0, 16, 8)
    callbacks = [schedule, *changes, look] if after else [*changes, schedule, look]
    logs = model.fit(x, y, batch_size=4, epochs=EPOCHS, verbose=0, callbacks=callbacks).history
    assert logs["dsd_phase"] == [0, 1, 1, 2, 2] and not left_behind(model)
    assert logs["dsd_learning_rate"] == pytest.approx([0.01] * 3 + [0.001] * 2)
    return look.seen


def zeros(seen, which):
    return [np.count_nonzero(kernels[which] == 0) for kernels in seen]


@pytest.mark.parametrize(("after", "hook", "epoch", "first", "options"), [
    (True, "epoch begin", SPARSE, 2, EAGER),
    (False, "epoch begin", SPARSE, 2, {}),
    (False, "epoch end", SPARSE - 1, 2, EAGER),
    (True, "epoch begin", SPARSE + 1, 4, EAGER),
    (True, "batch 0 end", SPARSE, 3, {}),
    (False, "epoch end", SPARSE, 4, EAGER),
    (True, "epoch begin", REDENSE, 6, EAGER),
    (False, "batch 1 end", REDENSE, 8, EAGER),
    pytest.param(True, "epoch begin", SPARSE, 2, {"steps_per_execution": BATCHES}, marks=[
        pytest.mark.slow, pytest.mark.only_on("jax", "tensorflow", "tf_keras"),
    ]),
])  # fmt: skip
def test_what_is_unfrozen_trains_and_masks_hold(after, hook, epoch, first, options):
    """`first` is the number of the first batch that trains what was frozen."""
    seen = train(Recompile(hook, epoch, **options), after=after, **options)
    size, other = seen[0][0].size, seen[0][1].size
    every = options.get("steps_per_execution", 1)
    first, sparse, redense = (-(-n // every) for n in (first, SPARSE * BATCHES, REDENSE * BATCHES))
    for index, (before, now) in enumerate(itertools.pairwise(seen), start=1):
        assert np.array_equal(before[0], now[0]) == (index < first), index
        assert not np.array_equal(before[1], now[1])
    is_pruned = first <= sparse  # as it trains when the phase starts
    expected = [size // 2 if is_pruned and sparse <= i < redense else 0 for i in range(len(seen))]
    assert zeros(seen, 0) == expected
    expected = [other // 2 if sparse <= index < redense else 0 for index in range(len(seen))]
    assert zeros(seen, 1) == expected
    for which in (0, 1):
        masked = [kernels[which] != 0 for kernels in seen[sparse:redense]]
        assert all(np.array_equal(mask, masked[0]) for mask in masked)


def test_a_layer_that_is_frozen_in_the_sparse_phase_keeps_its_zeros():
    """Its mask ends with the phase, and it trains on where it is unfrozen later."""
    changes = [
        Recompile("epoch begin", SPARSE + 1, False, **EAGER),
        Recompile("epoch begin", REDENSE + 1, True, **EAGER),
    ]
    seen = train(*changes, is_frozen=False, **EAGER)
    assert zeros(seen, 0) == [0, 0] + [48] * 6 + [0, 0]
    assert zeros(seen, 1) == [0, 0] + [64] * 4 + [0] * 4
    moved = [not np.array_equal(a[0], b[0]) for a, b in itertools.pairwise(seen)]
    assert moved == [True] * 3 + [False] * 4 + [True] * 2
