"""Refusals of tf_keras models by apply and strip; the advice of each message is followed."""

import re

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras

import keras_dsd as dsd
from tests.helpers import bert_like
from tests.helpers.paths import Watch

layers = tf_keras.layers
X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = np.arange(16) % 3


def compiled(model):
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=True)
    return model


def trained(model, x=X, number=None):
    """Trains all phases, and checks the zeros of each."""
    weights = dsd.weights(model)
    assert number in (None, len(weights))
    watch = Watch(lambda _: [int(np.sum(weight.numpy() == 0)) for weight in dsd.weights(model)])
    model.fit(x, Y, epochs=3, verbose=0, batch_size=8, callbacks=[dsd.DSDSchedule(1, 1, 1), watch])
    sizes = [int(np.prod(weight.shape)) for weight in dsd.weights(model)]
    dense, sparse, redense = map(watch.of_epoch, range(3))
    assert dense == [[0] * len(sizes)] * 2
    assert sparse == [[round(0.3 * size) for size in sizes]] * 2
    assert redense == [[0] * len(sizes)] * 2


def advised(function, model):
    """Returns the code in the error of `function(model)`."""
    with pytest.raises(ValueError) as caught:
        function(model)
    message = str(caught.value)
    (code,) = re.findall(r"(model\S* = .*?[])}])(?:, and so on|\. Or, if|\.$)", message)
    return code


class Functional(tf_keras.Model):
    """A graph, whose constructor takes a size."""

    def __init__(self, size):
        inputs = layers.Input((6,))
        super().__init__(inputs, layers.Dense(3)(layers.Dense(size, "relu")(inputs)))


class Stacked(tf_keras.Sequential):
    """Layers, built before or by fit, whose constructor takes a size."""

    def __init__(self, size, *first):
        super().__init__([*first, layers.Dense(size, "relu"), layers.Dense(3)])


@pytest.mark.parametrize(("make", "copied"), [
    (lambda: Functional(8), "tf_keras.Model(model.inputs, model.outputs)"),
    (lambda: Stacked(8, layers.Input((6,))), "tf_keras.Model(model.inputs, model.outputs)"),
    (lambda: Stacked(8), "tf_keras.Sequential(model.layers)"),
], ids=["functional", "sequential", "unbuilt"])  # fmt: skip
def test_a_subclass_of_layers_with_a_custom_constructor(make, copied):
    plain = make()
    code = advised(dsd.apply, plain)
    assert code == f"model = keras_dsd.apply({copied})"
    place = {"model": plain, "keras_dsd": dsd, "tf_keras": tf_keras}
    exec(code, place)
    place["model"](X)
    trained(compiled(place["model"]), number=2)
    stripped = dsd.strip(place["model"])
    assert np.array_equal(plain(X), stripped(X))


def test_a_functional_subclass_is_wrapped_in_its_constructor_too():
    class Inside(tf_keras.Model):
        def __init__(self):
            inputs = layers.Input((6,))
            x = dsd.apply(layers.Dense(8, "relu"))(inputs)
            super().__init__(inputs, layers.Dense(3)(x))

    with pytest.raises(ValueError, match=r"x = keras_dsd.apply\(tf_keras.layers.Dense\(64\)\)\(x"):
        dsd.apply(Functional(8))
    trained(model := compiled(Inside()), number=1)
    outputs, place = model(X), {"model": model, "keras_dsd": dsd, "tf_keras": tf_keras}
    exec(advised(dsd.strip, model), place)
    assert [type(layer) for layer in place["model"].layers[1:]] == [layers.Dense] * 2
    assert np.array_equal(place["model"](X), outputs)


TOKENS = {"input_ids": np.arange(80).reshape(16, 5) % 11, "attention_mask": np.ones((16, 5), int)}


@pytest.mark.parametrize("built", [False, True])
def test_a_third_partys_subclass_is_wrapped_layer_by_layer(built):
    model = bert_like.Bert()
    if built:
        model(TOKENS)
    code = advised(dsd.apply, model)
    assert code == "model.classifier = keras_dsd.apply(model.classifier)"
    exec(code, {"model": model, "keras_dsd": dsd})
    for block in model.bert.encoder.layer:  # "and so on"
        for holder, names in [(block.attention, ("query", "key", "value")),
                              (block.intermediate, ("dense",)),
                              (block.bert_output, ("dense",))]:  # fmt: skip
            for name in names:
                setattr(holder, name, dsd.apply(getattr(holder, name)))
    model(TOKENS)
    before = [weight.shape for weight in model.trainable_weights]
    trained(compiled(model), TOKENS, number=11)
    outputs = model(TOKENS)
    for _ in range(11):
        exec(advised(dsd.strip, model), {"model": model, "keras_dsd": dsd})
    with pytest.raises(ValueError, match=r"was passed through apply\(\)"):
        dsd.strip(model)
    assert np.array_equal(model(TOKENS), outputs)
    assert sorted(map(tuple, before)) == sorted(tuple(w.shape) for w in model.weights)


class Holding(tf_keras.Model):
    """Holds layers in a list, a dict, or as a separate model."""

    def __init__(self, held):
        super().__init__()
        self.held = held

    def call(self, x):
        parts = self.held.values() if isinstance(self.held, dict) else self.held
        for part in parts if isinstance(self.held, list | dict) else [self.held]:
            x = part(x)
        return x


@pytest.mark.parametrize("held", [
    lambda: [layers.Dense(8), layers.Dense(3)],
    lambda: {"a": layers.Dense(8), "b": layers.Dense(3)},
    lambda: tf_keras.Sequential([layers.Input((6,)), layers.Dense(8), layers.Dense(3)]),
], ids=["list", "dict", "model"])  # fmt: skip
def test_layers_are_wrapped_and_stripped_where_they_are_held(held, tmp_path):
    model = Holding(held())
    exec(advised(dsd.apply, model), {"model": model, "keras_dsd": dsd})
    model(X)
    trained(compiled(model), number=2)
    model.save_weights(tmp_path / "weights")  # Keras writes none of a list that was changed
    exec(advised(dsd.strip, model), {"model": model, "keras_dsd": dsd})
    with pytest.raises(ValueError, match=r"was passed through apply\(\)"):
        dsd.strip(model)


def classifier():
    return tf_keras.Sequential([layers.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])


def clustered(model):
    return tfmot.clustering.keras.cluster_weights(model, number_of_clusters=4)


def annotated(model):
    return tfmot.quantization.keras.quantize_annotate_model(model)


TOOLS = [tfmot.quantization.keras.quantize_model, annotated, clustered]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.__name__)
def test_the_tools_of_tfmot_come_after_strip(tool):
    model = dsd.apply(classifier())
    with pytest.raises(
        ValueError, match=r"(?s)layer='dense\w*'.*quantize_model\(keras_dsd.strip\(model\)\)"
    ):
        tool(model)
    trained(compiled(model), number=2)
    assert tool(dsd.strip(model)).built


@pytest.mark.parametrize("tool", [TOOLS[0], clustered], ids=lambda tool: tool.__name__)
def test_what_the_tools_of_tfmot_made_comes_too_late(tool):
    message = r"TF-MOT has wrapped: '\w+' \(\w+\).*Train with DSD first, call keras_dsd.strip\(\)"
    with pytest.raises(ValueError, match=message):
        dsd.apply(tool(classifier()))


def test_annotations_alone_change_nothing():
    model = dsd.apply(annotated(classifier()))
    trained(compiled(model), number=2)
    assert tfmot.quantization.keras.quantize_apply(dsd.strip(model)).built


def test_a_layer_returned_by_apply_can_not_be_quantized():
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    with pytest.raises(ValueError, match=r"(?s)in QuantizeAnnotate of TF-MOT.*strip\(model\)"):
        tf_keras.Sequential([layers.Input((6,)), annotate(dsd.apply(layers.Dense(8)))])
