"""Kernels inside of layers, however deep, are pruned: those of models, lists and wrappers."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import Watch, keras, name_of

layers = keras.layers
ROWS = (4, 4, 4)  # rows of an image, each of which is one to TimeDistributed


def dense(name):
    return layers.Dense(3, activation="tanh", name=name)


def functional(*body, kind=keras.Model, shape=ROWS[1:]):
    inputs = layers.Input(shape)
    x = layers.Dropout(0.1)(layers.Rescaling(2.0)(inputs))
    for layer in body:
        x = layer(x)
    return kind(inputs, x)


class OwnConstructor(keras.Model):
    """A functional model that Keras can't build from other layers."""

    def __init__(self, units=3):
        inputs = layers.Input(ROWS)
        super().__init__(inputs, layers.Dense(units, name="own")(inputs))
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(config["units"])


class Subclassed(keras.Model):
    """Holds its layers in an attribute, a list and a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = dense("first")
        self.more = [dense("second"), layers.BatchNormalization()]
        self.named = {"last": dense("third")}

    def call(self, x):
        for layer in (self.first, *self.more):
            x = layer(x)
        return self.named["last"](x)


class Holder(layers.Layer):
    """Holds a model, and makes another layer as it is built."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.model = functional(dense("held"), shape=ROWS)

    def build(self, shape):
        self.late = layers.Dense(2, name="late")
        super().build(shape)

    def call(self, x):
        return self.late(self.model(x))


class Wrapped(layers.Wrapper):
    """A wrapper of the user's."""

    def call(self, x):
        return 2 * self.layer(x)


def deep():
    inside = keras.Sequential([layers.Input(ROWS[2:]), dense("deep"), layers.Dropout(0.1)])
    return layers.TimeDistributed(functional(layers.TimeDistributed(inside), dense("shallow")))


# For each body, the last parts of its kernels' paths.
BODIES = {
    "functional": (lambda: layers.TimeDistributed(functional(dense("a"), dense("b"))), "a b"),
    "sequential": (lambda: layers.TimeDistributed(keras.Sequential(
        [layers.Input(ROWS[1:]), layers.Flatten(), layers.Rescaling(2.0), dense("c")])), "c"),
    "deep": (deep, "deep shallow"),
    "subclassed": (Subclassed, "first second third"),
    "own constructor": (OwnConstructor, "own"),
    "holder": (Holder, "held late"),
    "wrapped": (lambda: Wrapped(dense("wrapped")), "wrapped"),
    "bidirectional": (lambda: keras.Sequential([
        layers.Reshape((4, 16)), layers.Bidirectional(layers.SimpleRNN(2, name="rnn"))]), ""),
}  # fmt: skip
CUSTOM = {kind.__name__: kind for kind in (OwnConstructor, Subclassed, Holder, Wrapped)}


def model_of(bodies):
    inputs = layers.Input((8, 8, 1))
    rows = layers.Reshape(ROWS)(inputs)
    features = [layers.Flatten()(body(rows)) for body in bodies]
    return keras.Model(inputs, layers.Dense(10, name="head")(layers.Concatenate()(features)))


# The layers are found, and masked, by the same lines on all backends of Keras 3.
@pytest.mark.only_on("tf_keras", "torch")
def test_kernels_in_layers_are_pruned(digits, compiled, tmp_path):
    plain = model_of([make() for make, _ in BODIES.values()])
    x, y = digits[0][:64], digits[1][:64]
    config, names = plain.get_config(), [name_of(variable) for variable in plain.weights]
    model = compiled(dsd.apply(plain, 0.4), run_eagerly=True)
    weights = dsd.weights(model)
    expected = [*" ".join(kernels for _, kernels in BODIES.values()).split(), "head"]
    found = [weight.path.split("/")[-2] for weight in weights]
    assert sorted(name for name in found if name in expected) == sorted(expected)
    assert len(weights) == len(expected) + 4 == len({weight.path for weight in weights})
    watch = Watch(lambda _: [int(np.sum(weight.numpy() == 0)) for weight in weights])
    pruned = [round(int(np.prod(weight.shape)) * 0.4) for weight in weights]

    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.save(tmp_path / "sparse.keras")

    callbacks = [dsd.DSDSchedule(1, 1, 1), watch, Save()]
    model.fit(x, y, epochs=3, batch_size=32, verbose=0, callbacks=callbacks)
    assert watch.of_epoch(1) == [pruned] * 2
    assert sum(watch.seen[-1]) < sum(pruned)
    outputs = model.predict(x, verbose=0)
    stripped = dsd.strip(model)
    assert stripped.get_config() == config
    assert [name_of(variable) for variable in stripped.weights] == names
    assert np.array_equal(stripped.predict(x, verbose=0), outputs)

    again = keras.models.load_model(tmp_path / "sparse.keras", custom_objects=CUSTOM)
    again = again if keras.__name__ == "tf_keras" else dsd.apply(again, 0.4)
    zeros = sorted(int(np.sum(weight.numpy() == 0)) for weight in dsd.weights(again))
    assert zeros == sorted(pruned)


class Lazy(layers.Layer):
    """Makes its layers as it is built, or as it is called."""

    def build(self, shape):
        self.first = dense("first")

    def call(self, x):
        return self.first(x)


@pytest.mark.only_on("tf_keras", "torch")
def test_layers_that_are_made_late_are_pruned(digits, compiled):
    body = [layers.Reshape(ROWS), Lazy(name="lazy"), Subclassed(name="sub"), layers.Flatten()]
    model = keras.Sequential([*body, layers.Dense(10, name="head")])
    model = compiled(dsd.apply(model, {"first": 0.5, "sub/third": 0.25}), run_eagerly=True)
    watch = Watch(lambda model: {
        weight.path.split("/")[-2]: float(np.mean(weight.numpy() == 0))
        for weight in dsd.weights(model)
    })  # fmt: skip
    model.fit(digits[0][:64], digits[1][:64], epochs=3, verbose=0,
              callbacks=[dsd.DSDSchedule(1, 1, 1), watch])  # fmt: skip
    assert sorted(weight.sparsity for weight in dsd.weights(model)) == [0.25, 0.5, 0.5]
    assert watch.of_epoch(1)[-1]["third"] == pytest.approx(0.25, abs=0.1)
    assert type(dsd.strip(model).layers[1]) is Lazy


def test_what_is_frozen_inside_of_a_layer_stays_dense(compiled):
    holder = Holder(name="holder")
    model = model_of([holder])
    holder.late.trainable = False
    paths = [weight.path.split("/")[-2] for weight in dsd.weights(dsd.apply(model, 0.5))]
    assert paths == ["held", "head"]


@pytest.mark.only_on("tf_keras", "torch")
def test_a_model_inside_and_outside_of_a_layer_has_one_mask(digits, compiled):
    encoder = functional(dense("code"))
    inputs = layers.Input((8, 8, 1))
    rows = layers.Reshape(ROWS)(inputs)
    each = layers.TimeDistributed(encoder)(rows)
    first = encoder(layers.Reshape(ROWS[1:])(layers.Cropping2D(((0, 0), (0, 6)))(inputs)))
    x = layers.Concatenate()([layers.Flatten()(each), layers.Flatten()(first)])
    model = compiled(dsd.apply(keras.Model(inputs, layers.Dense(10, name="head")(x)), 0.5))
    weights = dsd.weights(model)
    assert [weight.path.split("/")[-2] for weight in weights] == ["code", "head"]
    assert len(dsd.strip(model).weights) == 4
