"""ImageNet on disk: TFRecords or a folder for each class; still encoded, as JPEG or PNG.

    train-00000-of-01024 ... validation-00000-of-00128    (or within train/ and validation/)
        image/encoded: the file's bytes; image/class/label: 1 for the first class in order, to 1000
    train/n01440764/*.JPEG ... validation/n01440764/*.JPEG ... (or val/)
        the classes are the names of the folders, in order

Either way the first class in order is class 0 here.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from recipes.problems import MissingData

LAYOUT = """in one of these layouts:
  train-00000-of-01024 ... validation-00000-of-00128, TFRecords
  train/CLASS/*.JPEG ... and val/CLASS/*.JPEG ... (or validation/; .jpg, .jpeg and .png too)
https://image-net.org has ImageNet (ILSVRC2012); examples/small_data/images.py writes a small set"""
SUFFIXES = (".jpeg", ".jpg", ".png")
SPLITS = {"train": ("train",), "validation": ("validation", "val")}
FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of both splits, as pairs of a file's bytes and a label from 0.

    Args:
        num_classes: Number of classes.
        train: From an epoch's seed, an int64 tensor, to all training images in a random order.
        validation: All validation images, once each.
    """

    num_classes: int
    train: Callable[[tf.Tensor], tf.data.Dataset]
    validation: tf.data.Dataset


def find(data: str | None, num_classes: int, shuffle_buffer: int, batch_size: int) -> Images:
    """Returns the images below a folder, whichever layout they are in.

    Args:
        data: The folder.
        num_classes: How many classes are expected. 0: as many as there are folders; of TFRecords,
            1000.
        shuffle_buffer: How many images of TFRecords are held to draw the next one from. Those of
            class folders are drawn from all.
        batch_size: How many training images are needed at least.

    Raises:
        MissingData: The folder is not there, in neither layout or in both; or something is wrong
            with what is there.
    """
    folder = pathlib.Path(data or "")
    if data is None or not folder.is_dir():
        raise MissingData(
            f"Expected a folder. Received: --data={data}. Give the one with ImageNet {LAYOUT}."
        )
    records = {split: _records(folder, split) for split in SPLITS}
    classes = {split: _classes(folder, split) for split in SPLITS}
    if any(records.values()) and any(classes.values()):
        raise MissingData(
            f"Expected TFRecords or class folders. Received: --data={data}, which has both. Give a "
            f"folder with one of them."
        )
    for found in (records, classes):
        missing = [split for split in found if not found[split]]
        if len(missing) == 1:
            raise MissingData(
                f"Expected training and validation images. Received: --data={data}, which has none "
                f"of {missing[0]}. Give ImageNet {LAYOUT}."
            )
    if any(records.values()):
        return of_records(records, num_classes or 1000, shuffle_buffer, batch_size)
    if any(classes.values()):
        return of_folders(classes, num_classes, batch_size)
    raise MissingData(
        f"Expected images. Received: --data={data}, which has none. Give ImageNet {LAYOUT}."
    )


def fake(num_classes: int, num_images: int) -> Images:
    """Returns random images, as JPEG in memory, as many for validation as for training."""
    drawn = np.random.default_rng(0)
    pixels = drawn.integers(0, 256, (num_images, 240, 320, 3), np.uint8)
    encoded = [tf.io.encode_jpeg(image).numpy() for image in pixels]
    images = tf.data.Dataset.from_tensor_slices(
        (encoded, drawn.integers(0, num_classes, num_images, np.int64))
    )

    def train(seed: tf.Tensor) -> tf.data.Dataset:
        return images.shuffle(num_images, seed=seed, reshuffle_each_iteration=False)

    return Images(num_classes, train, images)


def _records(folder: pathlib.Path, split: str) -> list[str]:
    """Returns the TFRecords of a split, in order; checks that none of them is missing."""
    pattern = f"{split}-?????-of-?????"
    found = sorted(folder.glob(pattern)) or sorted((folder / split).glob(pattern))
    if found and (count := int(found[0].name[-5:])) != len(found):
        raise MissingData(
            f"Expected {count} TFRecords, for one is called {found[0].name}. Received: "
            f"{len(found)} in {found[0].parent}. Fetch or write those that are missing."
        )
    return [str(path) for path in found]


def _classes(folder: pathlib.Path, split: str) -> dict[str, list[str]]:
    """Returns the paths of a split's images by class, both in order."""
    places = [folder / name for name in SPLITS[split] if (folder / name).is_dir()]
    if len(places) == 2:
        raise MissingData(f"Expected {places[0]} or {places[1]}. Received: both. Move one away.")
    found = {}
    for place in sorted(path for name in places for path in name.iterdir() if path.is_dir()):
        images = [str(path) for path in place.iterdir() if path.suffix.lower() in SUFFIXES]
        if not images:
            raise MissingData(
                f"Expected images in the folder of each class. Received: {place}, which has none "
                f"that ends in {', '.join(SUFFIXES)}. Put them there, or remove it."
            )
        found[place.name] = sorted(images)
    return found


def of_folders(
    classes: dict[str, dict[str, list[str]]], num_classes: int, batch_size: int
) -> Images:
    """Returns the images of class folders.

    Args:
        classes: The paths of each split and class.
        num_classes: How many classes are expected. 0: any number.
        batch_size: How many training images are needed at least.

    Raises:
        MissingData: The splits have other classes, or another number of them than expected.
    """
    names = {split: list(found) for split, found in classes.items()}
    odd = sorted(set(names["train"]) ^ set(names["validation"]))
    if odd:
        raise MissingData(
            f"Expected the same classes for training and validation. Received: {len(odd)} that one "
            f"of them has, such as {odd[0]!r}. Give each a folder in both; ImageNet's validation "
            f"images come without any, and their classes in a list beside them."
        )
    if num_classes not in (0, len(names["train"])):
        raise MissingData(
            f"Expected {num_classes} classes, by --num_classes. Received: {len(names['train'])} "
            f"folders. Leave the flag out, or give another --data."
        )
    paths, labels = _in_order(classes["train"])
    _check_enough(len(paths), batch_size)

    def train(seed: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(paths)), [seed, 0])
        order = tf.data.Dataset.from_tensor_slices(order)
        return _opened(order.map(lambda i: (tf.gather(paths, i), tf.gather(labels, i))))

    validation = tf.data.Dataset.from_tensor_slices(_in_order(classes["validation"]))
    return Images(len(names["train"]), train, _opened(validation))


def _in_order(classes: dict[str, list[str]]) -> tuple[tf.Tensor, tf.Tensor]:
    paths = [path for found in classes.values() for path in found]
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in classes.values()])
    return tf.constant(paths), tf.constant(labels, tf.int64)


def _opened(files: tf.data.Dataset) -> tf.data.Dataset:
    return files.map(
        lambda path, label: (tf.io.read_file(path), label), tf.data.AUTOTUNE, deterministic=True
    )


def of_records(
    records: dict[str, list[str]], num_classes: int, shuffle_buffer: int, batch_size: int
) -> Images:
    """Returns the images of TFRecords.

    Args:
        records: The paths of each split, in order.
        num_classes: How many classes there are; labels go from 1 to it.
        shuffle_buffer: How many images are held to draw the next one from.
        batch_size: How many training images are needed at least.

    Raises:
        MissingData: A file ends too early, or one of the first records is not as it should be.
    """
    for paths in records.values():
        _check_labels(paths[0], num_classes)
    numbers = {split: sum(map(_num_records, paths)) for split, paths in records.items()}
    _check_enough(numbers["train"], batch_size)

    def counted(split: str, images: tf.data.Dataset) -> tf.data.Dataset:
        # Of data whose end it does not foresee, Keras 3 on TensorFlow starts a batch that is not
        # there, and counts it into its metrics.
        return images.apply(tf.data.experimental.assert_cardinality(numbers[split]))

    def parsed(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.io.parse_single_example(record, FEATURES)
        label = features["image/class/label"]
        tf.debugging.Assert(
            (1 <= label) & (label <= num_classes), ["label", label, _range(num_classes)]
        )
        return features["image/encoded"], label - 1

    def train(seed: tf.Tensor) -> tf.data.Dataset:
        paths = tf.random.experimental.stateless_shuffle(tf.constant(records["train"]), [seed, 0])
        read = tf.data.Dataset.from_tensor_slices(paths).interleave(
            tf.data.TFRecordDataset, cycle_length=16, num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )  # fmt: skip
        read = read.shuffle(shuffle_buffer, seed=seed, reshuffle_each_iteration=False)
        return counted("train", read.map(parsed))

    validation = tf.data.TFRecordDataset(records["validation"]).map(parsed)
    return Images(num_classes, train, counted("validation", validation))


def _range(num_classes: int) -> str:
    return f"is not from 1, the first class, to --num_classes={num_classes}"


def _num_records(path: str) -> int:
    """Returns how many records a file holds, by the length that stands before each of them."""
    number, place, size = 0, 0, pathlib.Path(path).stat().st_size
    with pathlib.Path(path).open("rb") as file:
        while place < size:
            file.seek(place)
            place += 16 + int.from_bytes(file.read(8), "little")  # 8 for it, twice 4 for checksums
            number += 1
    if place > size:
        raise MissingData(
            f"Expected complete TFRecords. Received: {path}, which ends within one. Fetch it again."
        )
    return number


def _check_labels(path: str, num_classes: int) -> None:
    """Reads the labels of one file of many."""
    try:
        for record in tf.data.TFRecordDataset(path):
            label = int(tf.io.parse_single_example(record, FEATURES)["image/class/label"])
            if not 1 <= label <= num_classes:
                raise MissingData(
                    f"Expected labels of TFRecords in a range. Received: {path}, where label "
                    f"{label} {_range(num_classes)}. Give the number of classes, or write them so."
                )
    except tf.errors.OpError as error:
        raise MissingData(
            f"Expected TFRecords with image/encoded (bytes) and image/class/label (an integer). "
            f"Received: {path}, of which TensorFlow says: {error.message}. Write it again."
        ) from error


def _check_enough(num_images: int, batch_size: int) -> None:
    if num_images < batch_size:
        raise MissingData(
            f"Expected a batch of training images at least. Received: {num_images} images and "
            f"--batch_size={batch_size}. Give more of them, or a smaller batch."
        )


def check_decodable(data: str) -> None:
    """Looks for an image that does not decode, among all.

    Raises:
        MissingData: There is one; it is named.
    """
    folder = pathlib.Path(data)
    for split in SPLITS:
        for path in _records(folder, split):
            for number, record in enumerate(tf.data.TFRecordDataset(path)):
                encoded = tf.io.parse_single_example(record, FEATURES)["image/encoded"]
                _check_decodable(encoded, f"record {number} of {path}")
        for paths in _classes(folder, split).values():
            for path in paths:
                _check_decodable(tf.io.read_file(path), path)


def _check_decodable(encoded: tf.Tensor, name: str) -> None:
    try:
        tf.io.decode_image(encoded, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        raise MissingData(
            f"Expected a JPEG or PNG. Received: {name}, of which TensorFlow says: {error.message}. "
            f"Fetch it again or remove it; the same command then resumes."
        ) from error
