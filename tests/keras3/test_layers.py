"""Pruned and dense weights of each layer, with reasons; zeros at every batch end."""

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.algorithm import selection as reasons
from tests.helpers import keras_hub_like
from tests.helpers.watching import run

layers = keras.layers
IMAGE, ROWS, TOKENS = (8, 8, 1), (4, 16), (64,)


class Custom(layers.Layer):
    """Keeps its weights under custom names."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 5), name="w")
        self.wide = self.add_weight(shape=(2, 5), name="wide_bias", initializer="ones")
        self.table = self.add_weight(shape=(shape[1], shape[-1]), name="pos_emb")
        self.asked = self.add_weight(shape=(1, shape[-1]), name="query_token")

    def call(self, x):
        return (x + self.table + self.asked) @ self.w + self.wide[0]


class PositionEmbedding(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], name="embeddings")

    def call(self, x):
        return x + self.table


class Block(keras.Model):
    """A model that is a layer, with layers in a list and a dict."""

    def __init__(self):
        super().__init__(name="block")
        self.hidden = [layers.Dense(6, "relu", name="first"), layers.Dense(6, "relu")]
        self.heads = {"out": layers.Dense(5)}

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.heads["out"](x)


def attention(x):
    return layers.MultiHeadAttention(2, 4)(x, x)


def grouped_attention(x):
    return layers.GroupQueryAttention(4, 4, 2)(x, x)


# name: (input shape, layer, the ends of the paths that are pruned, {end of path: why not})
CASES = {
    "Dense": (ROWS, lambda: layers.Dense(5), ["dense/kernel"], {"bias": reasons.NOT_A_KERNEL}),
    "EinsumDense": (ROWS, lambda: layers.EinsumDense("abc,cde->abde", (4, 2, 3),
                    bias_axes="de"), ["kernel"], {"bias": reasons.NOT_A_KERNEL}),
    "Conv1D": (ROWS, lambda: layers.Conv1D(4, 3), ["kernel"], {}),
    "Conv2D": (IMAGE, lambda: layers.Conv2D(4, 3), ["kernel"], {}),
    "Conv2DTranspose": (IMAGE, lambda: layers.Conv2DTranspose(4, 3), ["kernel"], {}),
    "Conv3D": ((4, 4, 4, 1), lambda: layers.Conv3D(4, 2), ["kernel"], {}),
    "DepthwiseConv2D": (IMAGE, lambda: keras.Sequential([
        layers.DepthwiseConv2D(3, depth_multiplier=2), layers.Conv2D(2, 1)]),
        ["conv2d/kernel"], {"depthwise_conv2d/kernel": reasons.DEPTHWISE}),
    "SeparableConv2D": (IMAGE, lambda: layers.SeparableConv2D(4, 3), ["pointwise_kernel"],
                        {"depthwise_kernel": reasons.DEPTHWISE}),
    "Embedding": (TOKENS, lambda: layers.Embedding(17, 6), ["embeddings"], {}),
    "SimpleRNN": (ROWS, lambda: layers.SimpleRNN(5), ["/kernel", "recurrent_kernel"], {}),
    "LSTM": (ROWS, lambda: layers.LSTM(5), ["/kernel", "recurrent_kernel"], {}),
    "GRU": (ROWS, lambda: layers.GRU(5), ["/kernel", "recurrent_kernel"],
            {"bias": reasons.NOT_A_KERNEL}),
    "stacked cells": (ROWS, lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)]),
                      ["/kernel", "recurrent_kernel"] * 2, {}),
    "ConvLSTM1D": ((4, 16, 1), lambda: layers.ConvLSTM1D(3, 3), ["/kernel", "recurrent_kernel"],
                   {}),
    "ConvLSTM2D": ((4, 4, 4, 1), lambda: layers.ConvLSTM2D(3, 2), ["/kernel", "recurrent_kernel"],
                   {}),
    "Bidirectional": (ROWS, lambda: layers.Bidirectional(layers.LSTM(4)),
                      ["/kernel", "recurrent_kernel"] * 2, {}),
    "TimeDistributed": (ROWS, lambda: layers.TimeDistributed(layers.Dense(4)), ["kernel"], {}),
    "TimeDistributed model": (ROWS, lambda: layers.TimeDistributed(keras.Sequential([
        layers.Dense(4), layers.Dense(3)])), ["kernel"] * 2, {}),
    "MultiHeadAttention": (ROWS, lambda: attention, ["query/kernel", "key/kernel", "value/kernel",
                           "attention_output/kernel"], {"query/bias": reasons.NOT_A_KERNEL}),
    "GroupedQueryAttention": (ROWS, lambda: grouped_attention, ["query/kernel", "key/kernel",
                              "value/kernel", "attention_output/kernel"], {}),
    "normalisation": (IMAGE, lambda: keras.Sequential([
        layers.LayerNormalization(axis=(1, 2, 3)), layers.PReLU(), layers.BatchNormalization(),
        layers.Conv2D(3, 2)]), ["kernel"], {"alpha": reasons.NOT_A_KERNEL,
                                             "layer_normalization/gamma": reasons.NOT_A_KERNEL}),
    "SpectralNormalization": (IMAGE, lambda: layers.SpectralNormalization(layers.Conv2D(3, 3)),
                              ["kernel"], {}),
    "custom": (ROWS, Custom, ["/w"], {"wide_bias": reasons.NOT_A_KERNEL,
               "pos_emb": reasons.NOT_LINEAR_BY_SHAPE, "query_token": reasons.NOT_LINEAR_BY_SHAPE}),
    "positions": (ROWS, lambda: keras.Sequential([PositionEmbedding(), layers.Dense(3)]),
                  ["kernel"], {"position_embedding/embeddings": reasons.NOT_LINEAR_BY_SHAPE}),
    "a model inside": (ROWS, Block, ["first/kernel", "kernel", "kernel"], {}),
}  # fmt: skip


SEQUENCE = (5, 8)
# name: (input shape, layers, the ends of the paths that are pruned, {end of path: why not})
BY_SHAPE = {
    "DeBERTaV3": (SEQUENCE, [keras_hub_like.RelativeEmbedding(8, 6)], [],
                  {"rel_embedding": reasons.NOT_LINEAR}),
    "XLNet": (SEQUENCE, [keras_hub_like.AttentionMask(), keras_hub_like.Encoder(2)],
              ["feedforward/kernel"],
              {"mask_emb": reasons.NOT_LINEAR_BY_SHAPE, "segment_encoding": reasons.NOT_LINEAR,
               "content_attention_bias": reasons.NOT_A_KERNEL}),
    "RWKV7": (SEQUENCE, [keras_hub_like.TimeMix(2)], ["w1", "w2"],
              {"r_k": reasons.NOT_LINEAR_BY_SHAPE}),
    "a table of words": (SEQUENCE[:1], [keras_hub_like.Words()], ["embeddings"], {}),
    "attention": (SEQUENCE, [keras_hub_like.Attention(name="position_attention")],
                  ["query", "key", "position_map"], {}),
    "Keras's own, whatever their names": (SEQUENCE, [
        layers.Dense(8, name="position_projection"), layers.Conv1D(4, 2, name="pos")],
        ["position_projection/kernel", "pos/kernel"], {}),
    "positions looked up": (SEQUENCE[:1], [layers.Embedding(9, 4, name="position_embedding")], [],
                            {"position_embedding/embeddings": reasons.NOT_LINEAR}),
}  # fmt: skip


@pytest.mark.once_per_keras
@pytest.mark.parametrize("case", BY_SHAPE)
def test_shape_and_layer_come_before_the_name(case):
    shape, parts, expected, left = BY_SHAPE[case]
    inputs = x = layers.Input(shape, dtype="int32" if len(shape) == 1 else None)
    for part in parts:
        x = part(x)
    model = keras.Model(inputs, layers.Dense(90, name="head")(layers.Flatten()(x)))
    dsd.apply(model)
    paths = [weight.path for weight in dsd.weights(model)]
    assert len(paths) == len(expected) + 1 and paths[-1] == "head/kernel"
    assert all(path.endswith(end) for path, end in zip(paths, expected, strict=False)), paths
    skipped = {each.path: each.reason for each in dsd.report(model).skipped}
    for end, reason in left.items():
        assert {r for path, r in skipped.items() if path.endswith(end)} == {reason}


def classifier(shape, layer):
    inputs = layers.Input(shape)
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.Flatten()(layer(inputs))))


def data(digits, shape):
    x, y = digits[0][:64] + 0.05, digits[1][:64]
    if shape == TOKENS:
        return np.round(x.reshape(-1, 64) * 15).astype("int32"), y
    return x.reshape(64, *shape), y


# Weights are found and masked by the same lines on all backends: these train compiled on each, and
# the others where a step is quick that is not.
COMPILED = ("Conv2D", "Embedding", "GRU", "MultiHeadAttention", "a model inside")


@pytest.mark.parametrize("case", [
    pytest.param(case, marks=[] if case in COMPILED else pytest.mark.only_on("tensorflow", "torch"))
    for case in CASES
])  # fmt: skip
def test_a_layer(case, digits, compiled):
    shape, make, expected, left = CASES[case]
    model = compiled(classifier(shape, make()), run_eagerly=case not in COMPILED)
    assert dsd.apply(model, 0.4) is model
    *paths, head = sorted((w.path for w in dsd.weights(model)), key=lambda p: p == "head/kernel")
    assert head == "head/kernel" and len(paths) == len(expected)
    assert all(path.endswith(end) for path, end in zip(paths, expected, strict=True)), paths
    skipped = {each.path: each.reason for each in dsd.report(model).skipped}
    for end, reason in left.items():
        assert {r for path, r in skipped.items() if path.endswith(end)} == {reason}
    run(model, *data(digits, shape))
    tracked = {id(v) for v in model.trainable_variables}
    covered = {id(w.variable) for w in dsd.weights(model)}
    assert len(tracked) == len(skipped) + len(covered)


@pytest.mark.parametrize("path", ["depthwise_conv2d/kernel", "table/pos_emb"])
def test_weights_left_dense_by_default_can_be_selected_by_path(path, digits, compiled):
    class Table(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=shape[1:], name="pos_emb")

        def call(self, x):
            return x + self.table

    inputs = layers.Input(IMAGE)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(Table(name="table")(inputs))
    model = compiled(keras.Model(inputs, layers.Dense(10, name="head")(layers.Flatten()(x))))
    part = dsd.apply(model, {".": 0.5})
    assert [w.path for w in dsd.weights(part)] == ["head/kernel"]
    dsd.strip(model)
    dsd.apply(model, {path: 0.5})
    assert [w.path for w in dsd.weights(model)] == [path]
    run(model, *data(digits, IMAGE))


def test_frozen_layers_stay_dense_unless_named_and_follow_at_any_time(mlp):
    model = dsd.apply(mlp(), {"dense_1/": 0.5, "sequential/dense/kernel": 0.5})
    model.trainable = False
    assert [w.path for w in dsd.weights(model)] == ["sequential/dense/kernel"]
    skipped = {each.path: each.reason for each in dsd.report(model).skipped}
    assert skipped["sequential/dense_1/kernel"] == reasons.FROZEN
    model.trainable = True
    assert len(dsd.weights(model)) == 2


def test_lora_and_quantised_layers_are_skipped_with_the_reason(digits, compiled, mlp):
    model = mlp()
    model.layers[1].enable_lora(2)
    model.add(layers.Dense(10, name="last"))
    model = compiled(dsd.apply(model))
    skipped = {each.path: each.reason for each in dsd.report(model).skipped}
    lora = {p.rpartition("/")[2] for p, reason in skipped.items() if reason == reasons.LORA}
    assert lora == {"kernel", "lora_kernel_a", "lora_kernel_b"}
    assert len(dsd.weights(model)) == 2
    run(model, *data(digits, IMAGE))
    dsd.strip(model).layers[2].quantize("int8")
    dsd.apply(model)
    skipped = {each.path: each.reason for each in dsd.report(model).skipped}
    assert skipped["sequential/dense_1/kernel"] == reasons.QUANTISED
    assert [w.path for w in dsd.weights(model)] == ["sequential/last/kernel"]


@pytest.mark.once_per_keras
@pytest.mark.parametrize("steps", ["lora", "int8", "lora int8", "int8 lora"])
def test_attention_with_lora_or_quantised(steps):
    inputs = layers.Input(ROWS)
    attend = layers.MultiHeadAttention(2, 4, name="attention")
    model = keras.Model(inputs, layers.Dense(10, name="head")(attend(inputs, inputs)))
    for step in steps.split():
        if step == "lora":
            attend.query_dense.enable_lora(2)
        else:
            parts = (attend.query_dense, attend.key_dense, attend.value_dense, attend.output_dense)
            _ = [part.quantize("int8") for part in parts]
    dsd.apply(model, pattern=dsd.NM(2, 4))
    skipped = {each.path: each.reason for each in dsd.report(model).skipped}
    lora = {p.rpartition("/")[2] for p, reason in skipped.items() if reason == reasons.LORA}
    assert lora >= ({"kernel", "lora_kernel_a", "lora_kernel_b"} if "lora" in steps else set())
    kernels = {f"attention/{name}/kernel" for name in ("key", "value", "attention_output")}
    quantised = {path for path, reason in skipped.items() if reason == reasons.QUANTISED}
    pruned = {weight.path for weight in dsd.weights(model)}
    assert kernels <= (quantised if "int8" in steps else pruned)
    assert "head/kernel" in pruned and "attention/query/kernel" not in pruned


def test_float8_layers_train_and_their_scales_are_not_weights(digits, compiled, mlp):
    model = mlp()
    for layer in model.layers[1:]:
        layer.quantize("float8")
    assert any(v.overwrite_with_gradient for v in model.trainable_variables)
    model = compiled(dsd.apply(model, 0.4), keras.optimizers.SGD(0.05, momentum=0.9))
    assert [w.path.rpartition("/")[2] for w in dsd.weights(model)] == ["kernel", "kernel"]
    run(model, *data(digits, IMAGE))


def test_a_shared_layer_is_one_weight(digits, compiled):
    shared = layers.Dense(16, name="shared")
    inputs = layers.Input(ROWS)
    model = compiled(keras.Model(inputs, layers.Dense(10)(
        layers.Flatten()(shared(shared(inputs))))))  # fmt: skip
    dsd.apply(model, 0.4)
    assert [w.path for w in dsd.weights(model)] == ["shared/kernel", "dense/kernel"]
    run(model, *data(digits, ROWS))


def test_weights_of_equal_paths_are_distinguished_by_their_models(digits, compiled):
    def part(name):
        inputs = layers.Input((64,))
        return keras.Model(inputs, layers.Dense(64, name="d")(inputs), name=name)

    inputs = layers.Input(TOKENS)
    model = compiled(keras.Model(inputs, layers.Dense(10)(part("b")(part("a")(inputs)))))
    dsd.apply(model, {"a/d/kernel": 0.5, "b/d/kernel": 0.25})
    found = [(w.path, w.sparsity) for w in dsd.weights(model)]
    assert found == [("a/d/kernel", 0.5), ("b/d/kernel", 0.25)]
    x, y = digits
    run(model, x[:64].reshape(-1, 64) + 0.05, y[:64])


def test_a_layer_may_say_what_to_prune(mlp):
    class Own(layers.Layer):
        def build(self, shape):
            self.a = self.add_weight(shape=(3, 4), name="a")
            self.b = self.add_weight(shape=(3, 4), name="position")

        def get_prunable_weights(self):
            return [self.b]

        def call(self, x):
            return x

    model = mlp()
    model.add(Own())
    dsd.apply(model)
    assert dsd.weights(model)[-1].path.endswith("own/position")
    assert {s.path: s.reason for s in dsd.report(model).skipped}[
        "sequential/own/a"] == reasons.NOT_A_KERNEL  # fmt: skip
