"""Writes a small data set of real images in the layouts that examples/imagenet.py reads.

    python examples/small_data/images.py DIR

makes DIR/folders and DIR/tfrecords, of the same 12 classes: scikit-learn's handwritten digits, and
parts of its two photographs. Training and validation share no image: digits are split, and parts
of photographs are cut from either side of a line. Some are stored in ways that ImageNet has too:
digits in grey, one of them as PNG in a .JPEG file, a part of a photograph in CMYK.
"""

import io
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

FLAGS = flags.FLAGS
flags.DEFINE_enum("layout", "both", ["both", "folders", "tfrecords"], "What to write.")
flags.DEFINE_integer("train", 120, "Training images of each class.", 1, 120)
flags.DEFINE_integer("validation", 50, "Validation images of each class.", 1, 50)

BORDER = 400  # the photographs' column that parts training from validation
PHOTOGRAPHS = {"photo_china": "china.jpg", "photo_flower": "flower.jpg"}
NUM_SHARDS = {"train": 4, "validation": 2}


def digits(split: str) -> Iterator[tuple[str, Image.Image]]:
    """Yields classes and images of 32 x 32 in grey."""
    pixels, labels = load_digits(return_X_y=True)
    for label in range(10):
        of_class = pixels[labels == label].reshape(-1, 8, 8)
        chosen = of_class[: FLAGS.train] if split == "train" else of_class[-FLAGS.validation :]
        for image in chosen:
            grey = Image.fromarray(np.uint8(image * (255 / 16)))
            yield f"digit_{label}", grey.resize((32, 32), Image.Resampling.BICUBIC)


def photographs(split: str) -> Iterator[tuple[str, Image.Image]]:
    """Yields classes and parts of photographs of 48 x 40 in colour."""
    drawn = np.random.default_rng(0 if split == "train" else 1)
    number = FLAGS.train if split == "train" else FLAGS.validation
    for name, file in PHOTOGRAPHS.items():
        photograph = load_sample_image(file)
        side = photograph[:, :BORDER] if split == "train" else photograph[:, BORDER:]
        for _ in range(number):
            top, left = (drawn.integers(0, n + 1) for n in (side.shape[0] - 40, side.shape[1] - 48))
            yield name, Image.fromarray(side[top : top + 40, left : left + 48])


def files(split: str) -> list[tuple[str, str, bytes]]:
    """Returns class, name and bytes of all images of a split, in the order of class and name."""
    found: list[tuple[str, str, bytes]] = []
    for number, (kind, image) in enumerate([*digits(split), *photographs(split)]):
        first_photograph = kind == "photo_china" and found[-1][0] != kind
        image = image.convert("CMYK") if first_photograph else image
        stored = io.BytesIO()
        image.save(stored, "PNG" if number == 0 else "JPEG", **({"quality": 95} if number else {}))
        found.append((kind, f"{kind}_{number:04}.JPEG", stored.getvalue()))
    return found


def write_folders(folder: pathlib.Path) -> None:
    """Writes a folder for each split, class folders within."""
    for split in NUM_SHARDS:
        for kind, name, encoded in files(split):
            path = folder / split / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded)


def write_tfrecords(folder: pathlib.Path) -> None:
    """Writes the same images as TFRecords, labels from 1 in the order of the classes' names."""
    folder.mkdir(parents=True)
    for split, num_shards in NUM_SHARDS.items():
        found = files(split)
        kinds = sorted({kind for kind, _, _ in found})
        order = np.arange(len(found))
        if split == "train":  # any file has images of many classes, as ImageNet's have
            order = np.random.default_rng(0).permutation(order)
        for shard, some in enumerate(np.array_split(order, num_shards)):
            path = folder / f"{split}-{shard:05}-of-{num_shards:05}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for kind, _, encoded in (found[index] for index in some):
                    writer.write(example(encoded, 1 + kinds.index(kind)))


def example(encoded: bytes, label: int) -> bytes:
    """Returns a record as TF-slim's script writes it, with what is read of it."""
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise app.UsageError("Expected one folder. Write images.py DIR [--layout=...].")
    for layout, write in {"folders": write_folders, "tfrecords": write_tfrecords}.items():
        if FLAGS.layout in ("both", layout):
            folder = pathlib.Path(argv[1], layout)
            if folder.exists():
                raise app.UsageError(f"Expected a new folder. Received: {folder}. Remove it first.")
            write(folder)
            print(f"Wrote {folder}: give it as --data, and images.flags as --flagfile.")


if __name__ == "__main__":
    app.run(main)
