"""apply reports once that it selects less than half of a model, with the other layers."""

import warnings

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.algorithm.selection import NOT_LINEAR_BY_SHAPE, UNKNOWN_LAYER
from tests.helpers.paths import PATH, keras

layers = keras.layers
REASON = UNKNOWN_LAYER if PATH == "tf_keras" else NOT_LINEAR_BY_SHAPE
X, Y = np.ones((4, 20, 8), "float32"), np.ones((4, 10), "float32")


class Table(layers.Layer):
    """Adds a custom table, not a kernel."""

    def build(self, shape):
        self.table = self.add_weight(shape=tuple(shape)[1:], name="table")

    def call(self, x):
        return x + self.table


def model_of(units, *parts):
    return keras.Sequential(
        [*parts, Table(name="positions"), layers.GlobalAveragePooling1D(), layers.Dense(units)],
        name="net",
    )


@pytest.mark.once_per_keras
def test_skipped_weights_are_named_with_their_reasons():
    with pytest.warns(UserWarning) as caught:
        model = dsd.apply(model_of(10, layers.Input((20, 8))))
    (message,) = [str(each.message) for each in caught]
    assert "Less than half of model='net' is selected: 80 of 240 weights" in message
    assert "33.33%. The rest is in " in message and f"positions with 160 ({REASON})" in message
    assert caught[0].filename == __file__
    assert [weight.shape for weight in dsd.weights(model)] == [(8, 10)]


@pytest.mark.once_per_keras
def test_skipped_weights_of_a_model_built_by_fit_are_reported_once():
    model = dsd.apply(model_of(10))
    model.compile("sgd", "mse", run_eagerly=True)
    schedule = dsd.DSDSchedule(1, 1, 1)
    with pytest.warns(UserWarning, match="Less than half of .* 80 of 240") as caught:
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[schedule])
    assert len([each for each in caught if "Less than half" in str(each.message)]) == 1
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[schedule])


@pytest.mark.parametrize("arguments", [
    {"exclude": ["table"]}, {"sparsity": {"dense": 0.5}}, {"exclude": ["positions/"]},
], ids=str)  # fmt: skip
@pytest.mark.once_per_keras
def test_weights_left_dense_on_purpose_are_not_reported(arguments):
    keras.backend.clear_session()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dsd.apply(model_of(10, layers.Input((20, 8))), **arguments)


@pytest.mark.once_per_keras
def test_neither_is_what_does_not_train_nor_less_than_half():
    model = model_of(10, layers.Input((20, 8)))
    model.get_layer("positions").trainable = False
    dsd.apply(model)
    dsd.apply(model_of(20, layers.Input((20, 8))))
