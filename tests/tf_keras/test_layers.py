"""Every kind of layer and model goes through the three phases and comes back plain."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_dsd as dsd

layers = tf_keras.layers
SEQUENCE = (4, 16)
IMAGE = (8, 8, 1)
CLIP = (2, 4, 8, 1)
LSTM_CELLS = lambda: [layers.LSTMCell(4), layers.LSTMCell(5)]  # noqa: E731


def attention(x):
    return layers.MultiHeadAttention(2, 4)(x, x)


CASES = {
    "Dense": (SEQUENCE, lambda: layers.Dense(4), 1),
    "Conv1D": (SEQUENCE, lambda: layers.Conv1D(4, 3), 1),
    "Conv2D": (IMAGE, lambda: layers.Conv2D(4, 3), 1),
    "Conv2DTranspose": (IMAGE, lambda: layers.Conv2DTranspose(4, 3), 1),
    "Conv3D": (CLIP, lambda: layers.Conv3D(4, (1, 2, 2)), 1),
    "LocallyConnected1D": (SEQUENCE, lambda: layers.LocallyConnected1D(4, 3), 1),
    "SeparableConv1D": (SEQUENCE, lambda: layers.SeparableConv1D(6, 3), 1),
    "SeparableConv2D": (IMAGE, lambda: layers.SeparableConv2D(6, 3, depth_multiplier=3), 1),
    "EinsumDense": (SEQUENCE, lambda: layers.EinsumDense("bti,io->bto", (None, 5)), 1),
    "SimpleRNN": (SEQUENCE, lambda: layers.SimpleRNN(5), 2),
    "GRU": (SEQUENCE, lambda: layers.GRU(5), 2),
    "LSTM": (SEQUENCE, lambda: layers.LSTM(5), 2),
    "RNN of a list of cells": (SEQUENCE, lambda: layers.RNN(LSTM_CELLS()), 4),
    "StackedRNNCells": (SEQUENCE, lambda: layers.RNN(layers.StackedRNNCells(LSTM_CELLS())), 4),
    "Bidirectional": (SEQUENCE, lambda: layers.Bidirectional(layers.LSTM(5)), 4),
    "TimeDistributed": (SEQUENCE, lambda: layers.TimeDistributed(layers.Dense(5)), 1),
    "TimeDistributed Conv2D": (CLIP, lambda: layers.TimeDistributed(layers.Conv2D(3, 2)), 1),
    "ConvLSTM1D": (IMAGE, lambda: layers.ConvLSTM1D(3, 2), 2),
    "ConvLSTM2D": (CLIP, lambda: layers.ConvLSTM2D(3, 2), 2),
    "MultiHeadAttention": (SEQUENCE, lambda: attention, 4),
}


def classify(body, shape):
    inputs = layers.Input(shape)
    x = layers.Flatten()(body(inputs))
    return tf_keras.Model(inputs, layers.Dense(10, name="head")(x))


@pytest.mark.parametrize(
    ("shape", "is_eager"),
    [
        pytest.param(SEQUENCE, True, id="sequence"),
        pytest.param(SEQUENCE, False, id="sequence, compiled", marks=pytest.mark.slow),
        pytest.param(IMAGE, True, id="image"),
        pytest.param(CLIP, True, id="clip"),
    ],
)
def test_every_prunable_layer(shape, is_eager, digits, compiled):
    """All that take a shape, side by side in one model; to trace recurrent ones takes its time."""
    bodies = [(make(), number) for given, make, number in CASES.values() if given == shape]
    x, y = digits[0][:64].reshape(-1, *shape), digits[1][:64]
    inputs = layers.Input(shape)
    features = [layers.Flatten()(body(inputs)) for body, _ in bodies]
    plain = tf_keras.Model(inputs, layers.Dense(10)(layers.Concatenate()(features)))
    names, config = [w.name for w in plain.weights], plain.get_config()
    model = compiled(dsd.apply(plain, 0.5), run_eagerly=is_eager)
    weights = dsd.weights(model)
    assert len(weights) == sum(number for _, number in bodies) + 1
    assert len({w.path for w in weights}) == len(weights)
    zeros = []

    class AtBatchEnds(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            zeros.append([np.sum(w.numpy() == 0) for w in weights])

    model.fit(x, y, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), AtBatchEnds()])
    wanted = [round(int(np.prod(w.shape)) * 0.5) for w in weights]
    assert zeros[2:4] == [wanted] * 2
    assert all(np.sum(w.numpy() == 0) < n for w, n in zip(weights, wanted, strict=True))
    predicted = model.predict(x, verbose=0)
    stripped = dsd.strip(model)
    assert [w.name for w in stripped.weights] == names
    assert stripped.get_config() == config
    assert np.array_equal(stripped.predict(x, verbose=0), predicted)


def test_depthwise_kernels_stay_dense(digits, compiled):
    model = classify(layers.SeparableConv2D(6, 3, depth_multiplier=3), IMAGE)
    skipped = {s.path: s.reason for s in dsd.report(dsd.apply(model)).skipped}
    assert skipped["separable_conv2d/depthwise_kernel"].startswith("not a kernel")


def test_embedding_is_pruned_row_by_row(digits, compiled):
    x = (digits[0].reshape(-1, 64) * 16).astype("int32")
    model = tf_keras.Sequential(
        [layers.Input((64,)), layers.Embedding(17, 6), layers.Flatten(), layers.Dense(10)]
    )
    model = compiled(dsd.apply(model, 0.3))
    with pytest.warns(UserWarning, match="pruned weights"):
        model.fit(x, digits[1], verbose=0, callbacks=[dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])])
    embeddings = dsd.weights(model)[0]
    assert embeddings.path == "embedding/embeddings"
    assert np.sum(embeddings.numpy() == 0) == round(17 * 6 * 0.3)


class Scale(layers.Layer):
    """A layer that nobody knows."""

    def build(self, shape):
        self.matrix = self.add_weight("matrix", (shape[-1], shape[-1]), initializer="ones")

    def call(self, x):
        return x @ self.matrix


class PrunableScale(Scale):
    def get_prunable_weights(self):
        return [self.matrix]


def test_unknown_layers_are_left_alone_and_reported(digits, compiled):
    model = compiled(dsd.apply(classify(Scale(name="scale"), SEQUENCE)))
    found = dsd.report(model)
    assert [w.path for w in found.weights] == ["head/kernel"]
    reasons = {s.path: s.reason for s in found.skipped}
    assert reasons == {
        "scale/matrix": "unknown layer type: give it a get_prunable_weights() method",
        "head/bias": "not a kernel: biases, normalisation and depthwise weights stay dense",
    }
    assert "scale/matrix" in found.render()


def test_a_layer_with_get_prunable_weights_is_pruned(digits, compiled):
    layer = PrunableScale(name="scale")
    model = compiled(dsd.apply(classify(layer, SEQUENCE), 0.25))
    assert [w.path for w in dsd.weights(model)] == ["scale/matrix", "head/kernel"]
    model.fit(digits[0].reshape(-1, *SEQUENCE), digits[1], epochs=3, verbose=0,
              callbacks=[dsd.DSDSchedule(1, 1, 1)])  # fmt: skip
    assert dsd.strip(model).layers[1].get_prunable_weights()[0] is layer.matrix


def test_shared_layer_has_one_mask(digits, compiled):
    shared = layers.Dense(16, name="shared")
    inputs = layers.Input(SEQUENCE)
    x = layers.Flatten()(shared(shared(inputs)))
    model = compiled(dsd.apply(tf_keras.Model(inputs, layers.Dense(10)(x)), 0.5))
    assert [w.path for w in dsd.weights(model)] == ["shared/kernel", "dense/kernel"]
    model.fit(digits[0].reshape(-1, *SEQUENCE), digits[1], epochs=3, verbose=0,
              callbacks=[dsd.DSDSchedule(1, 1, 1)])  # fmt: skip
    assert len(dsd.strip(model).layers) == 4


def test_nested_models_share_a_layer(digits, compiled):
    encoder = tf_keras.Sequential(
        [layers.Input((64,)), layers.Dense(12, activation="relu", name="code")], name="encoder"
    )
    a, b = layers.Input((64,)), layers.Input((64,))
    twin = layers.Concatenate()([encoder(a), encoder(b)])
    plain = tf_keras.Model([a, b], layers.Dense(10, name="head")(twin))
    config, names = plain.get_config(), [w.name for w in plain.weights]
    model = compiled(dsd.apply(plain, 0.5))
    assert [w.path for w in dsd.weights(model)] == ["encoder/code/kernel", "head/kernel"]
    x = digits[0].reshape(-1, 64)
    model.fit([x, x[::-1]], digits[1], epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    stripped = dsd.strip(model)
    assert stripped.get_config() == config
    assert [w.name for w in stripped.weights] == names


def test_several_inputs_and_outputs(digits):
    a, b = layers.Input((64,), name="a"), layers.Input((64,), name="b")
    x = layers.Concatenate()([layers.Dense(8)(a), layers.Dense(8)(b)])
    outputs = {"digit": layers.Dense(10, name="digit")(x), "odd": layers.Dense(1, name="odd")(x)}
    model = dsd.apply(tf_keras.Model({"a": a, "b": b}, outputs), 0.3)
    losses = {
        "digit": tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "odd": tf_keras.losses.BinaryCrossentropy(from_logits=True),
    }
    model.compile("sgd", losses)
    x, y = digits[0].reshape(-1, 64), digits[1]
    history = model.fit({"a": x, "b": x}, {"digit": y, "odd": y % 2}, epochs=3, verbose=0,
                        callbacks=[dsd.DSDSchedule(1, 1, 1)]).history  # fmt: skip
    assert history["dsd_sparsity"][1] == pytest.approx(0.3, abs=0.01)
    assert set(dsd.strip(model).predict({"a": x, "b": x}, verbose=0)) == {"digit", "odd"}


class Subclassed(tf_keras.Model):
    """Wraps its own layers, as the error for subclassed models says to."""

    def __init__(self, wrap=True):
        super().__init__()
        make = dsd.apply if wrap else (lambda layer, *_: layer)
        self.flatten = layers.Flatten()
        self.hidden = make(layers.Dense(16, activation="relu"), {"kernel": 0.5})
        self.attention = make(layers.MultiHeadAttention(2, 3))
        self.head = layers.Dense(10)

    def call(self, x):
        rows = tf.reshape(x, (-1, 8, 8))
        return self.head(self.hidden(self.flatten(self.attention(rows, rows))))


def test_subclassed_model_with_wrapped_layers(digits, compiled):
    model = compiled(Subclassed(), run_eagerly=True)
    with pytest.raises(ValueError, match=r"in its constructor: self.hidden = keras_dsd.apply"):
        dsd.apply(Subclassed(wrap=False))
    x, y = digits[0][:96], digits[1][:96]
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)]).history
    assert sorted(w.path.partition("/")[2] for w in dsd.weights(model)) == [
        "dense/kernel",
        "multi_head_attention/attention_output/kernel",
        "multi_head_attention/key/kernel",
        "multi_head_attention/query/kernel",
        "multi_head_attention/value/kernel",
    ]
    assert 0.3 < history["dsd_sparsity"][1] < 0.5
    with pytest.raises(ValueError, match="one by one"):
        dsd.strip(model)
    before = model.predict(digits[0], verbose=0)
    model.hidden, model.attention = dsd.strip(model.hidden), dsd.strip(model.attention)
    assert isinstance(model.hidden, layers.Dense)
    model.predict_function = None
    assert np.array_equal(model.predict(digits[0], verbose=0), before)


def test_weights_of_a_subclassed_model_keep_their_names(digits):
    names = []
    for wrap in (False, True):
        tf_keras.backend.clear_session()
        model = Subclassed(wrap)
        model(digits[0][:2])
        names.append([w.name for w in model.weights])
    assert names[0] == names[1]


def test_deferred_sequential_is_named_and_pruned_as_a_built_one(digits, compiled):
    make = lambda: tf_keras.Sequential([layers.Flatten(), layers.Dense(16), layers.Dense(10)])  # noqa: E731
    model = compiled(dsd.apply(make(), {"dense/kernel": 0.5}))
    model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    assert [(w.path, w.sparsity) for w in dsd.weights(model)] == [("dense/kernel", 0.5)]
    assert [w.name for w in dsd.strip(model).weights] == [
        "dense/kernel:0", "dense/bias:0", "dense_1/kernel:0", "dense_1/bias:0",
    ]  # fmt: skip


def test_deferred_model_must_be_built_before_a_sparse_start(digits, compiled):
    model = compiled(dsd.apply(tf_keras.Sequential([layers.Flatten(), layers.Dense(10)])))
    with pytest.raises(ValueError, match="build"):
        model.fit(*digits, epochs=2, verbose=0, callbacks=[dsd.DSDSchedule(0, 1, 1)])


def test_deferred_model_reports_a_pattern_that_matches_nothing(digits, compiled):
    model = tf_keras.Sequential([layers.Flatten(), layers.Dense(10)])
    model = compiled(dsd.apply(model, {"dense": 0.3, "conv": 0.5}))
    with pytest.raises(ValueError, match="pattern='conv'"):
        model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])


@pytest.mark.filterwarnings("ignore:fit has trained model=")
def test_the_wrapper_is_transparent_to_masks_states_and_losses(digits):
    x = (digits[0].reshape(-1, 64)[:, 25:29] * 16).astype("int32")

    def make():
        tf_keras.utils.set_random_seed(5)
        tokens = layers.Input((4,))
        x = layers.Embedding(17, 6, mask_zero=True, embeddings_regularizer="l1")(tokens)
        encoded, h, c = layers.LSTM(5, return_state=True)(x)
        decoded = layers.LSTM(5, return_sequences=True)(x, initial_state=[h, c])
        x = layers.Dense(7, activity_regularizer="l2")(layers.Concatenate()([decoded, x]))
        x = layers.GlobalAveragePooling1D()(x)
        return tf_keras.Model(tokens, layers.Dense(10)(layers.Concatenate()([x, encoded])))

    losses = []
    for wrap in (lambda model: model, dsd.apply):
        model = wrap(make())
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, run_eagerly=True)
        losses.append(
            model.fit(x[:64], digits[1][:64], epochs=2, verbose=0, shuffle=False).history["loss"]
        )
    assert losses[0] == losses[1]


def test_stateful_layers_keep_and_reset_their_state(digits):
    x = digits[0][:32].reshape(32, 8, 8)
    plain = tf_keras.Sequential(
        [layers.Input(batch_shape=(32, 8, 8)), layers.LSTM(4, stateful=True)]
    )
    first, second = plain.predict(x, batch_size=32), plain.predict(x, batch_size=32)
    plain.reset_states()
    model = dsd.apply(plain)
    assert model.stateful
    assert np.array_equal(model.predict(x, batch_size=32), first)
    assert np.array_equal(model.predict(x, batch_size=32), second)
    model.reset_states()
    assert np.array_equal(model.predict(x, batch_size=32), first)


def test_frozen_layers_are_skipped_unless_named(digits, compiled, mlp):
    model = mlp()
    model.layers[1].trainable = False
    found = dsd.report(dsd.apply(model, 0.3))
    assert [w.path for w in found.weights] == ["dense_1/kernel"]
    assert any(s.path == "dense/kernel" and "not trainable" in s.reason for s in found.skipped)
    for sparsity, number in (({"kernel": 0.3}, 1), ({"dense/kernel": 0.3, "dense_1": 0.3}, 2)):
        assert len(dsd.weights(dsd.apply(dsd.strip(model), sparsity))) == number


def test_layers_frozen_after_apply_are_left_dense(digits, compiled, mlp):
    plain = mlp()
    model = dsd.apply(plain, 0.5)
    model.layers[1].trainable = False
    compiled(model)
    frozen = plain.layers[1]
    before = frozen.get_weights()
    model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    assert all(np.array_equal(a, b) for a, b in zip(before, frozen.get_weights(), strict=True))
    found = dsd.report(model)
    assert [w.path for w in found.weights] == ["dense_1/kernel"]
    assert {s.path for s in found.skipped} == {"dense/kernel", "dense/bias", "dense_1/bias"}


class Unused(tf_keras.Model):
    """Has a wrapped layer that it never calls."""

    def __init__(self):
        super().__init__()
        self.flatten = layers.Flatten()
        self.head, self.unused = dsd.apply(layers.Dense(10)), dsd.apply(layers.Dense(3))

    def call(self, x):
        return self.head(self.flatten(x))


def test_a_wrapped_layer_that_is_never_called_does_not_matter(digits, compiled):
    model = compiled(Unused())
    history = model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)]).history
    assert history["dsd_sparsity"] == pytest.approx([0, 0.3, 0], abs=0.05)
    assert len(dsd.weights(model)) == 1


class CustomStep(tf_keras.Model):
    def train_step(self, data):
        return {**super().train_step(data), "custom": tf.constant(1.0)}


class CustomSequential(tf_keras.Sequential):
    def train_step(self, data):
        return {**super().train_step(data), "custom": tf.constant(1.0)}


def test_a_custom_train_step_stays(digits, compiled, mlp):
    inner = mlp()
    for plain in (CustomStep(inner.inputs, inner.outputs), CustomSequential(mlp().layers)):
        model = compiled(dsd.apply(plain, 0.5))
        assert type(model) is type(plain)
        history = model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
        assert history.history["custom"] == [1.0] * 3
        assert history.history["dsd_sparsity"][1] == pytest.approx(0.5, abs=1e-3)
        assert type(dsd.strip(model)) is type(plain)


@pytest.mark.parametrize("policy", [
    "mixed_float16",
    *(pytest.param(policy, marks=pytest.mark.slow) for policy in ("mixed_bfloat16", "float64")),
])  # fmt: skip
def test_dtype_policies(policy, digits, compiled):
    plain = tf_keras.Sequential([
        layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(16, dtype=policy),
        layers.Dense(10, dtype="float32"),
    ])  # fmt: skip
    expected = plain.predict(digits[0], verbose=0)
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        model = dsd.apply(plain, 0.5)
        assert np.array_equal(model.predict(digits[0], verbose=0), expected)
        compiled(model, "adam")
        history = model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert history.history["dsd_sparsity"] == pytest.approx([0, 0.5, 0], abs=0.3)
    assert history.history["dsd_sparsity"][1] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("options", [
    {"jit_compile": True}, {"run_eagerly": True},
    pytest.param({"steps_per_execution": 4}, marks=pytest.mark.slow),
], ids=str)  # fmt: skip
def test_ways_to_compile(options, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.5), **options)
    history = model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)]).history
    assert history["dsd_sparsity"][1] == pytest.approx(0.5, abs=1e-3)
    assert history["dsd_sparsity"][2] < 0.3
