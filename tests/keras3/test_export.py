"""Exports of a stripped model: the operations and the predictions of one without DSD."""

import collections

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.watching import run

BACKEND = keras.backend.backend()


def conv():
    layers = keras.layers
    return keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(6, 3, activation="relu", name="conv"),
        layers.BatchNormalization(name="norm"), layers.Flatten(name="flat"),
        layers.Dense(10, name="head"),
    ], name="model")  # fmt: skip


@pytest.fixture
def stripped(digits, compiled):
    model = compiled(dsd.apply(conv(), 0.4))
    run(model, *digits)
    return dsd.strip(model)


def untouched(model):
    plain = conv()
    plain.set_weights(model.get_weights())
    return plain


@pytest.mark.only_on("tensorflow", "jax")  # where Keras exports SavedModels
def test_saved_model(stripped, digits, tmp_path):
    import tensorflow as tf

    operations = []
    for name, model in (("dsd", stripped), ("plain", untouched(stripped))):
        model.export(str(tmp_path / name), verbose=False)
        loaded = tf.saved_model.load(str(tmp_path / name))
        functions = loaded.signatures["serving_default"].graph.as_graph_def().library.function
        operations.append(collections.Counter(n.op for f in functions for n in f.node_def))
        np.testing.assert_allclose(
            loaded.serve(digits[0]), stripped.predict(digits[0], verbose=0), atol=1e-5
        )
    assert operations[0] == operations[1] and operations[0]


def test_keras_file(stripped, digits, tmp_path):
    sizes = []
    for name, model in (("dsd", stripped), ("plain", untouched(stripped))):
        path = tmp_path / f"{name}.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        assert np.array_equal(
            loaded.predict(digits[0], verbose=0), stripped.predict(digits[0], verbose=0)
        )
        sizes.append([w.path.rpartition("/")[2] for w in loaded.weights])
    assert sizes[0] == sizes[1]


@pytest.mark.only_on("tensorflow", "torch")  # jax2onnx asks for an absl-py that TF-MOT refuses
@pytest.mark.filterwarnings("ignore")  # those of the exporters
def test_onnx(stripped, digits, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx" if BACKEND == "torch" else "tf2onnx")
    path = tmp_path / "model.onnx"
    stripped.export(path, format="onnx", verbose=False)
    session = runtime.InferenceSession(path)
    inputs = {session.get_inputs()[0].name: digits[0]}
    predicted = stripped.predict(digits[0], verbose=0)
    np.testing.assert_allclose(session.run(None, inputs)[0], predicted, atol=1e-4)
