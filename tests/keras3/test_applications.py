"""Every architecture of keras.applications: an epoch of one batch in each phase, and out again."""

import inspect

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.watching import Zeros, pruned

BACKEND = keras.backend.backend()
# Compiling is what takes long elsewhere.
SMALL = ["MobileNet", "MobileNetV3Small"] if BACKEND == "torch" else []
SIZES = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75, "ConvNeXt": 32}
NAMES = sorted(
    name for name, made in vars(keras.applications).items()
    if inspect.isfunction(made) and name[0].isupper()
)  # fmt: skip


def size_of(name):
    return next((size for start, size in SIZES.items() if name.startswith(start)), 32)


def test_the_list_is_complete():
    assert {"ResNet50", "VGG16", "EfficientNetV2L", "ConvNeXtXLarge", "NASNetLarge"} <= {*NAMES}
    assert len(NAMES) >= 38 and {*SMALL} <= {*NAMES}


# Between the paths, the layers that differ; TensorFlow takes longest to trace them.
CHOSEN = {"tensorflow": None, "jax": "MobileNetV2", "torch": "ResNet50V2"}[BACKEND]


def marks_of(name):
    marks = [] if name in SMALL else [pytest.mark.slow]
    marks += [] if name in {CHOSEN, *SMALL} else [pytest.mark.exhaustive]
    # Keras has none on PyTorch.
    return [*marks, *[pytest.mark.only_on("tensorflow", "jax")] * (name == "NASNetMobile")]


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in NAMES])
def test_an_application(name, tmp_path):
    size = size_of(name)
    model = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    names, config = [w.path for w in model.weights], model.get_config()
    x = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype("float32")
    y = np.zeros((4, model.output_shape[-1]), "float32")
    assert dsd.apply(model, 0.3) is model
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "mse")
    watch, schedule = Zeros(), dsd.DSDSchedule(1, 1, 1, redense_lr=1.0)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[schedule, watch])
    assert watch.seen[1] == [pruned(model)]
    assert sum(watch.seen[2][0]) < sum(watch.seen[1][0])
    reasons = {each.path: each.reason for each in dsd.report(model).skipped}
    depthwise = [path for path, reason in reasons.items() if "depthwise kernel" in reason]
    kinds = {type(layer).__name__ for layer in model._flatten_layers()}
    assert bool(depthwise) == bool(kinds & {"DepthwiseConv2D", "SeparableConv2D"})
    assert dsd.strip(model) is model
    assert [w.path for w in model.weights] == names and model.get_config() == config
    check_export(model, x, tmp_path)


def check_export(model, x, folder):
    """SavedModel where Keras exports one; on PyTorch the .keras file."""
    predicted = model.predict(x, verbose=0)
    if BACKEND == "torch":
        model.save(folder / "model.keras")
        again = keras.models.load_model(folder / "model.keras").predict(x, verbose=0)
    else:
        import tensorflow as tf

        model.export(str(folder / "saved"), verbose=False)
        loaded = tf.saved_model.load(str(folder / "saved"))
        again = loaded.serve(x)
    np.testing.assert_allclose(again, predicted, rtol=1e-3, atol=1e-3)
