"""VGG-16 features of the photographs of a data set."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image as Picture
from rich.progress import track

from recipes.caption_data import Image, missing
from recipes.chosen_keras import keras

WEIGHTS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
)
BATCH = 32


def features_of(
    folder: pathlib.Path, images: Sequence[Image], *, pictures: pathlib.Path, weights: str
) -> np.ndarray:
    """Returns each image's features by its number, float32 of shape (images, 4096).

    They are computed once, and kept in the folder in a file named after the weights.

    Args:
        folder: Where they are kept.
        images: The images.
        pictures: Where the JPEGs are.
        weights: `"imagenet"`, which is downloaded, a file of the same weights, or `"random"`.

    Raises:
        MissingData: Pictures or weights are missing.
    """
    names = [f"{image.number} {image.filename}" for image in images]
    kept = folder / f"vgg16_{pathlib.Path(weights).stem}_features.npz"
    if kept.exists():
        with np.load(kept) as file:
            if file["names"].tolist() == names:
                return file["features"]
    absent = [image.filename for image in images if not (pictures / image.filename).is_file()]
    if absent:
        problem = f"Expected {folder / 'vgg_feats.mat'}, or every image in {pictures}."
        raise missing(folder, f"{problem} {len(absent)} are not there, such as {absent[0]}.")
    computed = _compute(vgg16(folder, weights), [pictures / image.filename for image in images])
    rows = [image.number for image in images]
    features = np.zeros((max(rows) + 1, computed.shape[1]), np.float32)
    features[rows] = computed
    beside = kept.with_suffix(".tmp.npz")
    np.savez(beside, features=features, names=names)
    beside.replace(kept)  # written atomically
    return features


def vgg16(folder: pathlib.Path, weights: str) -> Any:
    """Returns VGG-16 up to its second layer of 4096, from ImageNet's weights.

    Raises:
        MissingData: The weights can neither be read nor be downloaded.
    """
    known = {"imagenet": "imagenet", "random": None}
    try:
        network = keras.applications.VGG16(weights=known.get(weights, weights))
    except Exception as error:  # of the network, or of a file that does not fit
        problem = (
            f"Expected weights of VGG-16. Received: --vgg_weights={weights}, and {error}\n"
            f"Where there is no network, download {WEIGHTS_URL} elsewhere and give that file as "
            f"--vgg_weights."
        )
        raise missing(folder, problem) from error
    return keras.Model(network.input, network.get_layer("fc2").output)


def _compute(network: Any, paths: Sequence[pathlib.Path]) -> np.ndarray:
    height, width = network.input_shape[1:3]
    starts = range(0, len(paths), BATCH)
    done = []
    for start in track(starts, description="VGG-16 looks at the images"):
        # The whole image is squeezed into the square, as NeuralTalk's script does.
        pictures = [_read(path, (width, height)) for path in paths[start : start + BATCH]]
        pictures += pictures[:1] * (BATCH - len(pictures))  # full batches compile once
        x = keras.applications.vgg16.preprocess_input(np.stack(pictures))
        done.append(np.asarray(network.predict_on_batch(x)))
    return np.concatenate(done)[: len(paths)]


def _read(path: pathlib.Path, size: tuple[int, int]) -> np.ndarray:
    try:
        with Picture.open(path) as picture:
            small = picture.convert("RGB").resize(size, Picture.Resampling.BICUBIC)
    except OSError as error:
        raise missing(path.parent, f"{path} does not read as a picture: {error}") from error
    return np.asarray(small, np.float32)
