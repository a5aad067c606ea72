"""Data of examples/imagenet.py: both layouts, each image once, scaled as published."""

import collections
import importlib.util
import io
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_image

from recipes.image_data import check_decodable, find
from recipes.image_pixels import Pixels, decoded
from recipes.problems import MissingData
from tests.helpers.paths import keras

pytestmark = pytest.mark.only_on("tensorflow")

Image = pytest.importorskip("PIL.Image", reason="needs pillow: make recipes")
WRITER = pathlib.Path(__file__).parents[2] / "examples" / "small_data" / "images.py"
NUM_TRAIN, NUM_VALIDATION = 12 * 4, 12 * 3
CLASSES = [*(f"digit_{label}" for label in range(10)), "photo_china", "photo_flower"]
PLAIN = Pixels(32, "none", "caffe")
STANDARD = Pixels(32, "standard", "caffe")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A few of the small data, in both layouts."""
    folder = tmp_path_factory.mktemp("small")
    spec = importlib.util.spec_from_file_location("small_images", WRITER)
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    writer.FLAGS.mark_as_parsed()
    writer.FLAGS.train, writer.FLAGS.validation = 4, 3
    writer.main(["images.py", str(folder)])
    return folder


def images_in(folder, batch_size=8, **options):
    options = {"num_classes": 12, "shuffle_buffer": 1000} | options
    return find(str(folder), batch_size=batch_size, **options)


@pytest.fixture(scope="module", params=["folders", "tfrecords"])
def images(small, request):
    return images_in(small / request.param)


def arrays(batches):
    """Returns all images and labels of a dataset of batches."""
    found = list(batches.as_numpy_iterator())
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def files(images):
    """Returns the pairs of bytes and label in a dataset."""
    return [(bytes(encoded), int(label)) for encoded, label in images.as_numpy_iterator()]


def seed(value):
    return tf.constant(value, tf.int64)


def test_both_layouts_read_to_the_same_validation_batches(small):
    found = [images_in(small / layout) for layout in ("folders", "tfrecords")]
    folders, records = (list(PLAIN.validation_batches(each.validation, 8)) for each in found)
    assert [len(y) for _, y in folders] == [8, 8, 8, 8, 4]
    for ours, theirs in zip(folders, records, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    assert [each.num_classes for each in found] == [12, 12]


def test_labels_follow_the_order_of_the_classes(small, images):
    written = {
        split: collections.Counter(
            (path.read_bytes(), CLASSES.index(path.parent.name))
            for path in (small / "folders" / split).rglob("*.JPEG")
        )
        for split in ("train", "validation")
    }
    assert collections.Counter(files(images.validation)) == written["validation"]
    assert collections.Counter(files(images.train(seed(3)))) == written["train"]
    assert sum(written["validation"].values()) == NUM_VALIDATION


def test_an_epoch_follows_from_its_seed_alone(images):
    batches = lambda s: STANDARD.train_batches(images.train(s), s, 8)  # noqa: E731
    first, other = (arrays(batches(seed(value))) for value in (0, 1))
    again = arrays(tf.data.Dataset.from_tensors(seed(0)).flat_map(batches))
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert first[0].shape == (NUM_TRAIN, 32, 32, 3)
    assert (first[1] != other[1]).any()
    assert (first[1] != np.sort(first[1])).any()


def test_training_batches_are_whole_and_know_their_number(images):
    batches = STANDARD.train_batches(images.train(seed(0)), seed(0), 10)
    assert batches.element_spec[0].shape == (10, 32, 32, 3)
    assert batches.cardinality() == len(list(batches)) == NUM_TRAIN // 10
    assert PLAIN.validation_batches(images.validation, 10).cardinality() == 4


def test_without_augmentation_training_sees_what_evaluation_sees(small):
    images = images_in(small / "folders")
    pixels, labels = arrays(PLAIN.train_batches(images.train(seed(5)), seed(5), 8))
    encoded = files(images.train(seed(5)))
    in_order = tf.data.Dataset.from_tensor_slices(tuple(map(list, zip(*encoded, strict=True))))
    evaluated, same = arrays(PLAIN.validation_batches(in_order, 8))
    np.testing.assert_array_equal(pixels, evaluated)
    np.testing.assert_array_equal(labels, same)


COORDINATES = np.stack([*np.mgrid[:200, :250], np.zeros((200, 250))], axis=-1).astype("uint8")


def cut_of(index, size=64, image=COORDINATES):
    pixels = Pixels(size, "standard", "caffe")
    return pixels.cut(tf.constant(image), tf.constant([7, index], tf.int64)).numpy()


def test_crops_have_the_requested_sizes_and_shapes():
    cuts = [cut_of(index) for index in range(200)]
    height, width = (np.array([np.ptp(c[..., axis]) + 1 for c in cuts]) for axis in (0, 1))
    area, shape = height * width / (200 * 250), width / height
    # The outermost values lie half a pixel of the result within the cut.
    assert 0.07 < area.min() < 0.15 and 0.8 < area.max() <= 1
    assert 0.7 < shape.min() < 0.8 and 1.25 < shape.max() < 1.4
    mirrored = np.array([c[0, 0, 1] > c[0, -1, 1] for c in cuts])
    assert 70 < mirrored.sum() < 130
    assert abs(np.corrcoef(mirrored, area)[0, 1]) < 0.2
    assert all(c[0, 0, 0] < c[-1, 0, 0] for c in cuts)


def test_the_crop_of_an_image_depends_on_its_index_in_the_epoch():
    encoded = tf.io.encode_png(COORDINATES)
    twice = tf.data.Dataset.from_tensor_slices(([encoded, encoded], [0, 0]))
    pixels, _ = arrays(STANDARD.train_batches(twice, seed(0), 2))
    assert (pixels[0] != pixels[1]).any()


@pytest.mark.parametrize(("height", "width"), [(256, 320), (330, 256), (256, 256)])
def test_the_evaluated_crop_is_the_exact_middle(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    top, left = (height - 224) // 2, (width - 224) // 2
    found = Pixels(224, "standard", "caffe").centre(tf.constant(image))
    np.testing.assert_array_equal(found, image[top : top + 224, left : left + 224])


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (97, 1000), (8, 8)])
def test_any_size_is_brought_to_the_crop(height, width):
    columns = np.broadcast_to(np.linspace(0, 250, width)[None, :, None], (height, width, 3))
    found = Pixels(224, "standard", "caffe").centre(tf.constant(np.float32(columns))).numpy()
    assert found.shape == (224, 224, 3)
    slope = 250 / (width - 1) * min(height, width) / 256
    np.testing.assert_allclose(found[0, 112, 0], 125, atol=slope)
    np.testing.assert_allclose(np.diff(found[100, 20:200, 0]).mean(), slope, rtol=0.02)


@pytest.mark.parametrize("mode", ["caffe", "torch"])
def test_values_are_scaled_as_keras_applications_does(mode):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype("float32")
    theirs = keras.applications.imagenet_utils.preprocess_input(
        image.copy(), data_format="channels_last", mode=mode
    )
    np.testing.assert_allclose(
        Pixels(32, "none", mode).scaled(tf.constant(image)), theirs, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(("kind", "mode"), [
    ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L"),
])  # fmt: skip
def test_files_decode_to_rgb(mode, kind):
    stored = io.BytesIO()
    image = Image.fromarray(load_sample_image("flower.jpg")[200:240, 300:348]).convert(mode)
    image.save(stored, kind)
    theirs = np.asarray(Image.open(stored).convert("RGB")).astype(int)
    ours = decoded(tf.constant(stored.getvalue())).numpy().astype(int)
    assert ours.shape == (40, 48, 3)
    assert np.abs(ours - theirs).mean() < 3
    assert kind == "JPEG" or (ours == theirs).all()


def test_the_small_data_keep_training_and_validation_apart(small):
    pixels = {
        split: {
            decoded(tf.constant(path.read_bytes())).numpy().tobytes()
            for path in (small / "folders" / split).rglob("*.JPEG")
        }
        for split in ("train", "validation")
    }
    assert len(pixels["train"]) == NUM_TRAIN
    assert len(pixels["validation"]) == NUM_VALIDATION
    assert not pixels["train"] & pixels["validation"]


def column_of(part, photograph):
    """Returns where in a photograph's channel a part was cut out, by some of its pixels."""
    rows, columns = (np.random.default_rng(0).integers(0, n, 25) for n in part.shape[:2])
    height, width = (photograph.shape[axis] - part.shape[axis] + 1 for axis in (0, 1))
    differ = sum(
        abs(photograph[r : r + height, c : c + width] - part[r, c])
        for r, c in zip(rows, columns, strict=True)
    )
    return np.unravel_index(differ.argmin(), differ.shape)[1]


@pytest.mark.parametrize("file", ["china", "flower"])
def test_parts_of_photographs_are_cut_from_either_side_of_a_line(file, small):
    green = load_sample_image(f"{file}.jpg")[..., 1].astype("int16")
    at = {
        split: [
            column_of(
                decoded(tf.constant(path.read_bytes())).numpy()[..., 1].astype("int16"), green
            )
            for path in sorted((small / "folders" / split / f"photo_{file}").iterdir())
        ]
        for split in ("train", "validation")
    }
    assert max(at["train"]) + 48 <= 400 <= min(at["validation"])


def copied(small, tmp_path, layout):
    return shutil.copytree(small / layout, tmp_path / layout)


def no_folder(small, tmp_path):
    return tmp_path / "nowhere"


def empty(small, tmp_path):
    return tmp_path


def both(small, tmp_path):
    shutil.copytree(small / "tfrecords", copied(small, tmp_path, "folders"), dirs_exist_ok=True)
    return tmp_path / "folders"


def no_validation_folder(small, tmp_path):
    folder = copied(small, tmp_path, "folders")
    shutil.rmtree(folder / "validation")
    return folder


def no_training_records(small, tmp_path):
    folder = copied(small, tmp_path, "tfrecords")
    for path in folder.glob("train-*"):
        path.unlink()
    return folder


def two_validation_folders(small, tmp_path):
    folder = copied(small, tmp_path, "folders")
    (folder / "val").mkdir()
    return folder


def a_class_of_training_alone(small, tmp_path):
    folder = copied(small, tmp_path, "folders")
    shutil.rmtree(folder / "validation" / "digit_3")
    return folder


def a_class_without_images(small, tmp_path):
    folder = copied(small, tmp_path, "folders")
    for path in (folder / "train" / "digit_3").iterdir():
        path.rename(path.with_suffix(".txt"))
    return folder


def a_record_file_missing(small, tmp_path):
    folder = copied(small, tmp_path, "tfrecords")
    (folder / "train-00002-of-00004").unlink()
    return folder


def cut_short(small, tmp_path):
    folder = copied(small, tmp_path, "tfrecords")
    path = folder / "train-00002-of-00004"
    path.write_bytes(path.read_bytes()[:-3])
    return folder


def something_else(small, tmp_path):
    folder = copied(small, tmp_path, "tfrecords")
    with tf.io.TFRecordWriter(str(folder / "validation-00000-of-00002")) as writer:
        writer.write(tf.train.Example().SerializeToString())
    return folder


def no_records(small, tmp_path):
    folder = copied(small, tmp_path, "tfrecords")
    (folder / "validation-00000-of-00002").write_bytes(b"something else altogether")
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_folder, r"Expected a folder. Received: --data=.*nowhere. .*\n  train-00000-of-01024"),
        (empty, r"Expected images\. .* has none\. .*\n  train-00000-of-01024.*\n.*\n.*image-net"),
        (both, "Expected TFRecords or class folders.* has both"),
        (no_validation_folder, "Expected training and validation images.* has none of validation"),
        (no_training_records, "Expected training and validation images.* has none of train"),
        (two_validation_folders, "Expected .*/validation or .*/val. Received: both"),
        (a_class_of_training_alone, "Expected the same classes.* 1 that .*, such as 'digit_3'"),
        (a_class_without_images, r"train/digit_3, which has none that ends in \.jpeg"),
        (a_record_file_missing, "Expected 4 TFRecords.*Received: 3 in "),
        (cut_short, "Expected complete TFRecords.*train-00002-of-00004, which ends within one"),
        (something_else, "image/encoded .*validation-00000-of-00002, of which TensorFlow says"),
        (no_records, "image/encoded .*validation-00000-of-00002, of which TensorFlow says"),
    ],
)
def test_errors_in_the_data_are_reported(change, said, small, tmp_path):
    with pytest.raises(MissingData, match=said):
        images_in(change(small, tmp_path))


@pytest.mark.parametrize(
    ("layout", "options", "said"),
    [
        ("folders", {"num_classes": 10}, "Expected 10 classes.*Received: 12 folders"),
        ("tfrecords", {"num_classes": 5}, r"label \d+ is not from 1, .*--num_classes=5"),
        ("folders", {"batch_size": 49}, "Received: 48 images and --batch_size=49"),
        ("tfrecords", {"batch_size": 49}, "Received: 48 images and --batch_size=49"),
    ],
)
def test_what_does_not_fit_the_data_is_reported(layout, options, said, small):
    with pytest.raises(MissingData, match=said):
        images_in(small / layout, **options)


def test_the_number_of_classes_is_that_of_imagenet_or_of_the_folders(small):
    assert images_in(small / "tfrecords", num_classes=0).num_classes == 1000
    assert images_in(small / "folders", num_classes=0).num_classes == 12


def test_a_label_out_of_range_ends_the_run_wherever_it_is(small, tmp_path):
    folder = copied(small, tmp_path, "tfrecords")
    path = str(folder / "train-00003-of-00004")
    (*records, last) = tf.data.TFRecordDataset(path).as_numpy_iterator()
    example = tf.train.Example.FromString(last)
    example.features.feature["image/class/label"].int64_list.value[0] = 0
    with tf.io.TFRecordWriter(path) as writer:
        for record in [*records, example.SerializeToString()]:
            writer.write(record)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not from 1, the first class"):
        list(images_in(folder).train(seed(0)))


def test_records_may_lie_in_a_folder_for_each_split(small, tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        for path in (small / "tfrecords").glob(f"{split}-*"):
            shutil.copy(path, tmp_path / split)
    assert files(images_in(tmp_path).validation) == files(images_in(small / "folders").validation)


def test_an_image_that_does_not_decode_is_named(small, tmp_path):
    shutil.copytree(small / "folders", tmp_path / "folders")
    check_decodable(str(tmp_path / "folders"))
    broken = sorted((tmp_path / "folders" / "validation" / "digit_3").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(MissingData, match=re.escape(f"Expected a JPEG or PNG. Received: {broken}")):
        check_decodable(str(tmp_path / "folders"))


def test_a_record_whose_image_does_not_decode_is_named(small, tmp_path):
    shutil.copytree(small / "tfrecords", tmp_path / "tfrecords")
    check_decodable(str(tmp_path / "tfrecords"))
    path = tmp_path / "tfrecords" / "validation-00001-of-00002"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    example = tf.train.Example.FromString(records[2])
    example.features.feature["image/encoded"].bytes_list.value[0] = b"no image"
    records[2] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    with pytest.raises(MissingData, match=re.escape(f"Received: record 2 of {path}, of which")):
        check_decodable(str(tmp_path / "tfrecords"))
