"""Published architectures go through all phases, come back plain and export. Slow."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_dsd as dsd

pytestmark = pytest.mark.slow
SIZES = {
    "MobileNetV2": 32, "ResNet50V2": 32, "DenseNet121": 32, "EfficientNetB0": 32, "Xception": 71,
    "InceptionV3": 75, "NASNetMobile": 32, "VGG16": 32,
}  # fmt: skip
# Deeper ones go through all phases on other paths, and among the recipes.
CHOSEN = {"MobileNetV2"}
NAMES = [pytest.param(n, marks=[pytest.mark.exhaustive] * (n not in CHOSEN)) for n in SIZES]


@pytest.mark.parametrize("name", NAMES)
def test_an_application(name, tmp_path):
    size = SIZES[name]
    plain = getattr(tf_keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    config, names = plain.get_config(), [w.name for w in plain.weights]
    x = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype("float32")
    y = np.zeros((4, plain.output_shape[-1]), "float32")
    model = dsd.apply(plain, 0.3)
    model.compile(tf_keras.optimizers.SGD(1e-4, momentum=0.9), "mse")
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)]).history
    assert np.isfinite(history["loss"]).all()
    total = sum(int(np.prod(w.shape)) for w in dsd.weights(model))
    pruned = sum(round(int(np.prod(w.shape)) * 0.3) for w in dsd.weights(model))
    assert history["dsd_sparsity"][1] == pytest.approx(pruned / total, abs=1e-9)
    assert history["dsd_sparsity"][2] < history["dsd_sparsity"][1]  # VGG16 has many dead units
    depthwise = [s.path for s in dsd.report(model).skipped if "depthwise" in s.path]
    assert bool(depthwise) == (
        name in ("MobileNetV2", "EfficientNetB0", "Xception", "NASNetMobile")
    )
    stripped = dsd.strip(model)
    assert stripped.get_config() == config
    assert [w.name for w in stripped.weights] == names
    stripped.export(str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded.serve(x), stripped.predict(x, verbose=0), atol=1e-3)
