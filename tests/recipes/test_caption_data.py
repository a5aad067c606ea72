"""Reading captions and features, and the arrays that a caption model is trained on."""

import json

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs SciPy: make recipes")

import scipy.io

from recipes import caption_data
from recipes.caption_data import Image
from recipes.problems import MissingData

pytestmark = pytest.mark.only_on("tensorflow")


def entry(imgid, split, *sentences):
    tokens = [{"tokens": sentence.split(), "raw": sentence} for sentence in sentences]
    return {"filename": f"{imgid}.jpg", "imgid": imgid, "split": split, "sentences": tokens}


ENTRIES = [
    entry(2, "train", "a dog runs", "the dog"),
    entry(0, "test", "a cat"),
    entry(3, "restval", "a dog"),
    entry(1, "val", "a bird sings"),
]


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, ENTRIES)
    features = np.arange(4096 * 4, dtype=np.float64).reshape(4096, 4)
    scipy.io.savemat(tmp_path / "vgg_feats.mat", {"feats": features})
    return tmp_path


def write(folder, entries):
    (folder / "dataset.json").write_text(json.dumps({"images": entries, "dataset": "flickr8k"}))


def test_images_of_each_split(folder):
    splits = caption_data.read_images(folder)
    assert splits == {
        "train": [
            Image(2, "2.jpg", [["a", "dog", "runs"], ["the", "dog"]]),
            Image(3, "3.jpg", [["a", "dog"]]),
        ],
        "validation": [Image(1, "1.jpg", [["a", "bird", "sings"]])],
        "test": [Image(0, "0.jpg", [["a", "cat"]])],
    }


def test_an_image_has_the_column_of_its_imgid(folder):
    features = caption_data.read_features(folder / "vgg_feats.mat")
    assert features.dtype == np.float32
    assert features.shape == (4, 4096)
    np.testing.assert_array_equal(features[2], np.arange(4096) * 4 + 2)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry(0, "training", "a")], "KeyError('training')"),
        ([{"filename": "0.jpg", "imgid": 0, "split": "test"}], "KeyError('sentences')"),
        ([entry(0, "test")], "image 0.jpg has no sentence, or an empty one"),
        ([entry(0, "test", "a", "")], "image 0.jpg has no sentence, or an empty one"),
        ([entry("first", "test", "a")], "invalid literal for int"),
        (ENTRIES[:3], "Expected images of the split 'validation' in"),
        (None, "does not read as a list of captioned images"),
    ],
)
def test_captions_that_do_not_read(folder, entries, said):
    write(folder, entries)
    with pytest.raises(MissingData) as error:
        caption_data.read_images(folder)
    assert said in str(error.value)
    assert f"{folder}/dataset.json" in str(error.value)
    assert "cs.stanford.edu/people/karpathy/deepimagesent" in str(error.value)


def test_captions_that_are_not_there_or_no_json(folder):
    (folder / "dataset.json").write_text('{"images": [')
    with pytest.raises(MissingData, match="does not read as a list of captioned images"):
        caption_data.read_images(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(MissingData, match=r"Expected captions in .*dataset.json. There is no such"):
        caption_data.read_images(folder)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"feats": np.ones((4, 4096))}, r"of 4096 rows, a column an image.*shape=\(4, 4096\)"),
        ({"feats": np.ones((2, 4096, 4))}, r"Received: shape=\(2, 4096, 4\)"),
        ({"features": np.ones((4096, 4))}, r'Expected "feats" in .*There is no variable'),
    ],
)
def test_features_of_another_shape(folder, arrays, said):
    scipy.io.savemat(folder / "vgg_feats.mat", arrays)
    with pytest.raises(MissingData, match=said):
        caption_data.read_features(folder / "vgg_feats.mat")


def test_features_that_do_not_read(folder):
    (folder / "vgg_feats.mat").write_bytes(b"not of MATLAB" * 20)
    with pytest.raises(MissingData, match="does not read as a file of MATLAB"):
        caption_data.read_features(folder / "vgg_feats.mat")


def test_every_image_needs_features(folder):
    images = [Image(3, "3.jpg", [["a"]]), Image(4, "4.jpg", [["a"]])]
    features = np.ones((4, 4096), np.float32)
    with pytest.raises(MissingData, match="4 images' features, none for imgid=4"):
        caption_data.check_features(folder, features, images)
    features[2, 5] = np.nan
    with pytest.raises(MissingData, match="features of imgid=2 are not all finite"):
        caption_data.check_features(folder, features, images[:1])


def test_vocabulary_and_its_bias():
    images = [Image(0, "", [["b", "a", "b"], ["b", "c"]]), Image(1, "", [["a", "c"], ["b"]])]
    words, bias = caption_data.vocabulary_of(images, 2)
    assert words == [".", "b", "a", "c"]
    np.testing.assert_allclose(bias, np.log([1, 1, 0.5, 0.5]), rtol=1e-6)
    assert bias.dtype == np.float32
    assert caption_data.vocabulary_of(images, 3)[0] == [".", "b"]
    with pytest.raises(MissingData, match=r"occur 5 times or more.*the most frequent 4 times"):
        caption_data.vocabulary_of(images, 5)


def test_arrays_for_teacher_forcing():
    vocabulary = [".", "a", "dog", "runs"]
    images = [Image(7, "", [["a", "dog", "runs"], ["the", "dog"]]), Image(5, "", [["a"] * 9])]
    pairs = caption_data.pairs_of(images, vocabulary, 5)
    assert pairs.images.tolist() == [7, 7, 5]
    # "the" is not known and left out; what is longer than four words and their end is cut.
    assert pairs.words.tolist() == [[0, 1, 2, 3, 0], [0, 2, 0, 0, 0], [0, 1, 1, 1, 1]]
    assert pairs.labels.tolist() == [[1, 2, 3, 0, 0], [2, 0, 0, 0, 0], [1, 1, 1, 1, 0]]
    assert pairs.weights.tolist() == [[5, 5, 5, 5, 0], [5, 5, 0, 0, 0], [5, 5, 5, 5, 5]]
    assert caption_data.longest(images[:1]) == 4


def test_vocabulary_file(tmp_path):
    caption_data.write_vocabulary(tmp_path / "new", [".", "a", "château"])
    text = (tmp_path / "new" / "vocabulary.txt").read_text(encoding="utf-8")
    assert text.splitlines() == [".", "a", "château"]


def test_fake_data_are_of_full_size():
    data = caption_data.fake(2538)
    assert len(caption_data.vocabulary_of(data.train, 5)[0]) == 2539
    assert data.features.shape == (len(data.train), 4096)
    assert {len(image.sentences) for image in data.test} == {5}
    assert {len(sentence) for image in data.test for sentence in image.sentences} <= {20, 21}
    caption_data.check_features(None, data.features, data.train)
