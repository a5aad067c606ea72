"""Dtypes and ways to compile: zeros at every batch end, and the same as without compiling."""

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.adapters.base import joined_updates
from tests.helpers.watching import run

BACKEND = keras.backend.backend()
COMPILED = {
    "auto": {},
    "jit": {"jit_compile": True},
    "no jit": {"jit_compile": False},
    "eager": {"run_eagerly": True},
    "several steps": {"steps_per_execution": 4},
}


@pytest.fixture(autouse=True)
def _policy():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def model_of(dtype):
    keras.config.set_dtype_policy(dtype)
    layers = keras.layers
    return keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"),
        layers.BatchNormalization(), layers.Flatten(), layers.Dense(10),
    ])  # fmt: skip


WAYS = [
    *(("float32", case) for case in COMPILED),
    ("mixed_float16", "auto"), ("mixed_float16", "eager"), ("mixed_bfloat16", "auto"),
]  # fmt: skip
# PyTorch's way to compile has a separate test. JAX has two ways, and is slow without compiling.
NOT_ON = {
    ("float32", "jit"): "torch", ("float32", "several steps"): "torch",
    ("float32", "no jit"): "jax", ("mixed_float16", "eager"): "jax",
}  # fmt: skip


def marks_of(way):
    others = {"tensorflow", "jax", "torch"} - {NOT_ON.get(way)}
    return pytest.mark.only_on(*others)


@pytest.mark.parametrize(
    ("dtype", "case"), [pytest.param(*way, marks=marks_of(way)) for way in WAYS]
)
def test_ways_to_compile(dtype, case, digits, compiled):
    model = compiled(dsd.apply(model_of(dtype), 0.4), **COMPILED[case])
    x, y = digits
    if case == "several steps":
        zeros = []

        class Look(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                zeros.append([int(np.sum(w.numpy() == 0)) for w in dsd.weights(self.model)])

        history = model.fit(x, y, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), Look()])
        assert zeros[3:6] == [[14, 576]] * 3 and len(zeros) == 9
        history = history.history
    else:
        history = run(model, x, y)
    assert np.isfinite(history["loss"]).all()
    assert {str(w.numpy().dtype) for w in dsd.weights(model)} == {"float32"}
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (dtype == "mixed_float16")


@pytest.mark.parametrize("dtype", [
    "bfloat16", "float16",
    # JAX takes it for float32 unless told otherwise.
    pytest.param("float64", marks=pytest.mark.only_on("tensorflow", "torch")),
])  # fmt: skip
def test_weights_of_other_dtypes(dtype, digits, compiled):
    # float16 keeps what is small, so that kept weights are not taken for pruned ones.
    model = compiled(dsd.apply(model_of(dtype), 0.4), keras.optimizers.SGD(0.01))
    run(model, digits[0] + 0.05, digits[1])
    assert {str(w.numpy().dtype) for w in dsd.weights(model)} == {dtype}


@pytest.mark.slow
@pytest.mark.only_on("torch")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # in its modules
def test_torch_compile(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.4), jit_compile=True)
    run(model, *digits)


@pytest.mark.only_on("tensorflow")
@pytest.mark.parametrize(("alone", "number"), [(1, 3), (2**60, 2)])
def test_tensors_are_masked_within_an_update_that_xla_may_compile(
    alone, number, digits, compiled, monkeypatch
):
    """Each of large tensors, or others joined, unless by rows; none where the user forbids XLA."""
    monkeypatch.setattr(joined_updates, "JOINED_SIZE", 1)
    monkeypatch.setattr(joined_updates, "COMPILED_SIZE", alone)
    add, added = joined_updates.Together.add, []
    monkeypatch.setattr(
        joined_updates.Together, "add", lambda *given: added.append(1) or add(*given)
    )
    results, counts = [], []
    for options in ({}, {"jit_compile": False}):
        keras.utils.set_random_seed(2)
        layers = keras.layers
        model = keras.Sequential([
            layers.Input((64,)), layers.Embedding(17, 4), layers.Flatten(),
            layers.Dense(16, "relu"), layers.Dense(10),
        ])  # fmt: skip
        model = compiled(dsd.apply(model, 0.4), keras.optimizers.Adam(0.01), **options)
        x = (digits[0].reshape(-1, 64) * 16).astype("int32")
        added.clear()
        run(model, x, digits[1], shuffle=False)
        counts.append(len(added))
        results.append([w.numpy() for w in dsd.weights(model)])
    assert counts == [number, 0]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
