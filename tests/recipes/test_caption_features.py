"""Features of photographs, by a network that stands in for VGG-16: it has 138 million weights."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs SciPy: make recipes")
pytest.importorskip("PIL", reason="needs Pillow: make recipes")

from PIL import Image as Picture

from recipes import caption_features
from recipes.caption_data import Image
from recipes.problems import MissingData
from tests.helpers.paths import keras

IMAGES = [Image(number, f"{number}.jpg", [["a"]]) for number in (4, 0, 2)]


def small_vgg(weights):
    """Takes `weights` as Keras's VGG16 does; there is no network."""
    layers = keras.layers
    pixels = layers.Input((8, 8, 3))
    x = layers.Dense(4096, activation="relu", name="fc2")(layers.Flatten()(pixels))
    model = keras.Model(pixels, layers.Dense(2)(x))
    if weights == "imagenet":
        raise Exception("URL fetch failure")  # as Keras's get_file does
    if weights is not None:
        model.load_weights(weights)
    return model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with three pictures, and weights in a file."""
    monkeypatch.setattr(caption_features.keras.applications, "VGG16", small_vgg)
    monkeypatch.setattr(caption_features, "BATCH", 2)
    keras.utils.set_random_seed(3)
    small_vgg(None).save_weights(tmp_path / "trained.weights.h5")
    random = np.random.default_rng(0)
    for image in IMAGES:
        pixels = random.integers(0, 256, size=(24, 16, 3), dtype=np.uint8)
        Picture.fromarray(pixels).save(tmp_path / image.filename)
    return tmp_path


def features_in(folder, weights="trained.weights.h5"):
    weights = weights if weights in ("imagenet", "random") else str(folder / weights)
    return caption_features.features_of(folder, IMAGES, pictures=folder, weights=weights)


def test_each_image_has_its_row(folder):
    features = features_in(folder)
    assert features.dtype == np.float32
    assert features.shape == (5, 4096)
    network = small_vgg(folder / "trained.weights.h5")
    network = keras.Model(network.input, network.get_layer("fc2").output)
    for image in IMAGES:
        with Picture.open(folder / image.filename) as picture:
            pixels = np.array(picture.resize((8, 8), Picture.Resampling.BICUBIC), float)
        blue_first = (pixels - [123.68, 116.779, 103.939])[..., ::-1]  # as ImageNet's VGG had it
        expected = np.array(network.predict(blue_first[None], verbose=0))[0]
        np.testing.assert_allclose(features[image.number], expected, rtol=1e-3, atol=1e-2)
    assert not features[[1, 3]].any()


def test_they_are_computed_once(folder, monkeypatch):
    features = features_in(folder)
    monkeypatch.delattr(caption_features.keras.applications, "VGG16")
    np.testing.assert_array_equal(features_in(folder), features)
    assert [path.name for path in folder.glob("*.npz")] == ["vgg16_trained.weights_features.npz"]


def test_they_are_computed_again_for_other_images_or_weights(folder):
    features = features_in(folder)
    assert (features_in(folder, "random")[4] != features[4]).any()
    (folder / "1.jpg").write_bytes((folder / "4.jpg").read_bytes())
    more = [*IMAGES, Image(1, "1.jpg", [["a"]])]
    again = caption_features.features_of(
        folder, more, pictures=folder, weights=str(folder / "trained.weights.h5")
    )
    np.testing.assert_allclose(again[[4, 0, 2, 1]], features[[4, 0, 2, 4]], rtol=1e-4, atol=1e-3)


def test_no_features_of_an_untrained_network_unasked(folder):
    with pytest.raises(MissingData) as error:
        features_in(folder, "imagenet")
    assert "--vgg_weights=imagenet, and URL fetch failure" in str(error.value)
    assert "vgg16_weights_tf_dim_ordering_tf_kernels.h5 elsewhere" in str(error.value)
    with pytest.raises(MissingData, match=r"Received: --vgg_weights=.*lost.weights.h5"):
        features_in(folder, "lost.weights.h5")
    assert not list(folder.glob("*.npz"))


def test_pictures_that_are_missing_or_broken(folder):
    (folder / "2.jpg").write_bytes(b"no picture")
    with pytest.raises(MissingData, match="2.jpg does not read as a picture"):
        features_in(folder)
    (folder / "2.jpg").unlink()
    with pytest.raises(MissingData, match=r"vgg_feats.mat, or every image in .* 1 are not there"):
        features_in(folder)
