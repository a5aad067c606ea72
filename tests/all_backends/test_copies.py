"""Copies of a model that went through apply, such as scikit-learn wrappers make."""

import copy

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import PATH, keras

layers = keras.layers
X = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
Y = np.arange(24) % 3
LABELS = np.eye(3, dtype="float32")[Y]


def build(X=None, y=None):  # noqa: N803 - as scikit-learn calls it
    """Builds, applies and compiles: what a wrapper is given."""
    model = keras.Sequential([layers.Input((6,)), layers.Dense(8), layers.Dense(3, "softmax")])
    model = dsd.apply(model, 0.5)
    model.compile("sgd", "categorical_crossentropy", run_eagerly=True)
    return model


def is_trained(model):
    """Returns whether most weights that were pruned have regrown, as after the re-dense phase."""
    return all(np.mean(weight.numpy() == 0) < 0.25 for weight in dsd.weights(model))


class Wrapper:
    """Wraps a model as scikeras does for tf_keras: a copy of it is trained."""

    def __init__(self, model):
        self.model = model

    def fit(self, x, y, **options):
        if isinstance(self.model, keras.Model):
            self.model_ = copy.deepcopy(self.model)
        else:
            self.model_ = self.model(X=x, y=y)
        self.model_.fit(x, LABELS, **options)
        return self


def wrapper(model):
    return Wrapper(model) if PATH == "tf_keras" else keras.wrappers.SKLearnClassifier(model)


OPTIONS = {"epochs": 3, "verbose": 0}


@pytest.mark.once_per_keras
def test_a_wrapper_that_is_given_a_function_trains():
    estimator = wrapper(build).fit(X, Y, callbacks=[dsd.DSDSchedule(1, 1, 1)], **OPTIONS)
    assert len(dsd.weights(estimator.model_)) == 2 and is_trained(estimator.model_)
    assert dsd.strip(estimator.model_).predict(X, verbose=0).shape == (24, 3)


@pytest.mark.only_on("jax")
def test_the_error_for_a_wrapper_that_copies_the_model_asks_for_a_function():
    estimator = wrapper(build())
    message = r"a copy of one, .*wrapper a function .*def build\(X, y\)"
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, Y, callbacks=[dsd.DSDSchedule(1, 1, 1)], **OPTIONS)


@pytest.mark.only_on("jax")
@pytest.mark.parametrize("copied", [copy.deepcopy, keras.models.clone_model], ids=["deep", "clone"])
def test_a_copy_has_to_go_through_apply_itself(copied):
    model = build()
    other = copied(model)
    for function in (dsd.weights, dsd.report, dsd.strip):
        with pytest.raises(ValueError, match="a copy of one"):
            function(other)
    assert len(dsd.weights(dsd.apply(other))) == len(dsd.weights(model))


@pytest.mark.only_on("tf_keras")
def test_a_copy_of_wrapped_layers_trains():
    schedule = dsd.DSDSchedule(1, 1, 1)
    estimator = wrapper(build()).fit(X, Y, callbacks=[schedule], **OPTIONS)
    assert len(dsd.weights(estimator.model_)) == 2 and is_trained(estimator.model_)
