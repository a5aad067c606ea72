"""Weights that are often left dense, selected by the types of their layers."""

import pytest

import keras_dsd as dsd
from keras_dsd.algorithm.selection import EXCLUDED, NOT_LINEAR
from tests.helpers.paths import keras

layers = keras.layers


def captioner():
    """A convolutional network beside words, with layers that have nothing to do with either."""
    image, words = layers.Input((8, 8, 3)), layers.Input((5,))
    x = layers.Conv2D(4, 3, name="first")(layers.Rescaling(0.5)(image))
    x = layers.SeparableConv2D(4, 3, name="second")(layers.BatchNormalization()(x))
    y = layers.LSTM(4, name="sentence")(layers.Embedding(9, 6, name="words")(words))
    x = layers.Concatenate()([layers.Flatten()(x), y])
    return keras.Model([image, words], layers.Dense(3, name="head")(x), name="captioner")


@pytest.mark.once_per_keras
def test_a_table_of_positions_stays_dense_unlike_one_of_words():
    ids = layers.Input((5,))
    words, positions = (layers.Embedding(9, 6, name=name)(ids) for name in ("words", "position"))
    x = layers.Flatten()(layers.Add()([words, positions]))
    model = dsd.apply(keras.Model(ids, layers.Dense(3, name="head")(x)))
    assert [w.path for w in dsd.weights(model)] == ["words/embeddings", "head/kernel"]
    reasons = {each.path: each.reason for each in dsd.report(model).skipped}
    assert reasons["position/embeddings"] == NOT_LINEAR
    named = dsd.apply(dsd.strip(model), {"position/embeddings": 0.5})
    assert [weight.path for weight in dsd.weights(named)] == ["position/embeddings"]


def excluded(model):
    return {each.path for each in dsd.report(model).skipped if each.reason == EXCLUDED}


@pytest.mark.once_per_keras
@pytest.mark.parametrize(("choice", "expected"), [
    ("first_conv", {"first/kernel"}), ("embeddings", {"words/embeddings"}),
    ("published", {"first/kernel", "words/embeddings"}),
])  # fmt: skip
def test_a_choice_leaves_dense_what_it_names_and_no_more(choice, expected):
    model = captioner()
    exclude = getattr(dsd.exclusions, choice)(model)
    everything = {weight.path for weight in dsd.weights(dsd.apply(captioner()))}
    model = dsd.apply(model, exclude=exclude)
    assert excluded(model) == expected
    assert {weight.path for weight in dsd.weights(model)} == everything - expected
    assert getattr(dsd.exclusions, choice)(model) == exclude


@pytest.mark.once_per_keras
def test_choices_are_joined_with_expressions():
    model = captioner()
    model = dsd.apply(model, exclude=[*dsd.exclusions.first_conv(model), "head/"])
    assert excluded(model) == {"first/kernel", "head/kernel"}


@pytest.mark.once_per_keras
def test_the_first_convolution_of_a_model_in_a_model():
    inner = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv")], name="in")
    model = keras.Sequential([layers.Input((8, 8, 3)), inner, layers.Conv2D(4, 3), layers.Flatten(),
                              layers.Dense(3)], name="out")  # fmt: skip
    model = dsd.apply(model, exclude=dsd.exclusions.published(model))
    (path,) = excluded(model)
    assert path.endswith("in/conv/kernel")


@pytest.mark.once_per_keras
def test_without_such_layers_nothing_is_excluded_and_layers_that_transpose_are_none():
    model = keras.Sequential([layers.Input((4, 4, 3)), layers.Conv2DTranspose(4, 3)])
    assert dsd.exclusions.published(model) == []


@pytest.mark.once_per_keras
def test_a_model_has_to_be_built_and_to_be_one():
    with pytest.raises(ValueError, match=r"model='later'.*model.build\(input_shape\)"):
        dsd.exclusions.first_conv(keras.Sequential([layers.Conv2D(4, 3)], name="later"))
    with pytest.raises(TypeError, match="model=3"):
        dsd.exclusions.embeddings(3)


@pytest.mark.once_per_keras
def test_a_choice_is_given_by_its_name():
    """`exclude="first_conv"` is `exclude=exclusions.first_conv(model)`, and so a preset is used."""
    everything = {weight.path for weight in dsd.weights(dsd.apply(captioner()))}
    convolutions = {path for path in everything if path.startswith(("first/", "second/"))}
    assert {"first/kernel", "second/pointwise_kernel"} <= convolutions
    for name, expected in (("first_conv", {"first/kernel"}), ("convolutions", convolutions)):
        assert excluded(dsd.apply(captioner(), exclude=name)) & everything == expected
    preset = dsd.presets.paper("neuraltalk")
    model = dsd.apply(captioner(), **preset.apply)
    assert excluded(model) == {"words/embeddings"}
    assert {weight.sparsity for weight in dsd.weights(model)} == {0.8}
