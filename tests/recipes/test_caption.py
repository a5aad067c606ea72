"""The caption recipe: its network and loss, BLEU, the program's data, and real runs."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("sacrebleu", reason="needs sacrebleu: make recipes")
pytest.importorskip("scipy", reason="needs SciPy: make recipes")

import caption
from absl.testing import flagsaver

import keras_dsd as dsd
from recipes import caption_data, caption_models, captioning
from recipes.problems import MissingData
from tests.helpers.paths import keras
from tests.helpers.programs_of_recipes import EXAMPLES, result_of, run, start, table_of

PROGRAM = EXAMPLES / "caption.py"
SMALL_DATA = EXAMPLES / "small_data" / "captions.py"
IMAGES = [
    caption_data.Image(0, "0.jpg", [["a", "dog", "runs"], ["a", "dog"]]),
    caption_data.Image(1, "1.jpg", [["a", "cat", "sleeps", "on", "a", "mat"]]),
]
VOCABULARY, BIAS = caption_data.vocabulary_of(IMAGES, 1)


@pytest.fixture(scope="module")
def features():
    random = np.random.default_rng(0)
    return np.maximum(random.normal(size=(2, 4096)), 0).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _flags():
    caption.FLAGS(["caption.py", "--data=none", "--workdir=none", "--learning_rate=0.001"])


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return caption_models.build(BIAS, hidden_size=8, dropout=0.5)


def test_parameters_of_the_published_size():
    model = caption_models.build(np.zeros(2539, np.float32), hidden_size=512, dropout=0.5)
    sizes = {layer.name: layer.count_params() for layer in model.layers if layer.count_params()}
    assert sizes == {
        "image_embedding": 4096 * 512 + 512,
        "word_embedding": 2539 * 512,
        "lstm": 4 * 512 * (512 + 512 + 1),
        "decoder": 512 * 2539 + 2539,
    }
    assert model.count_params() == 6_799_339
    assert [layer.rate for layer in model.layers if "dropout" in layer.name] == [0.5, 0.5]


def test_it_trains_as_neuraltalk_does(model):
    caption.compile_model(model)
    settings = model.optimizer.get_config()
    assert settings["name"].lower() in ("rmsprop", "rm_sprop")
    found = {
        name: float(settings[name]) for name in ("learning_rate", "rho", "epsilon", "clipvalue")
    }
    expected = {"learning_rate": 1e-3, "rho": 0.999, "epsilon": 1e-8, "clipvalue": 5}
    assert found == pytest.approx(expected)


def test_all_matrices_but_the_word_embedding_are_pruned(model):
    sparsity = dict.fromkeys(caption.PRUNE, 0.8)
    pruned = {w.path: w.sparsity for w in dsd.weights(dsd.apply(model, sparsity=sparsity))}
    names = ["image_embedding/kernel", "lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel",
             "decoder/kernel"]  # fmt: skip
    assert pruned == dict.fromkeys(names, 0.8)


def test_the_bias_starts_with_how_frequent_words_are(model):
    np.testing.assert_array_equal(model.get_layer("decoder").get_weights()[1], BIAS)


def test_batches_bring_each_sentence_its_image(features):
    pairs = caption_data.pairs_of(IMAGES, VOCABULARY, 7)
    rows = tf.data.Dataset.from_tensor_slices(dataclasses.astuple(pairs))
    with flagsaver.flagsaver(batch_size=2):
        full = list(caption.batches(rows, tf.constant(features), drop_remainder=True))
        first, last = caption.batches(rows, tf.constant(features))
    assert len(full) == 1
    for batch, at in ((full[0], [0, 1]), (first, [0, 1]), (last, [2])):
        (images, words), labels, weights = batch
        np.testing.assert_array_equal(images, features[pairs.images[at]])
        np.testing.assert_array_equal(words, pairs.words[at])
        np.testing.assert_array_equal(labels, pairs.labels[at])
        np.testing.assert_array_equal(weights, pairs.weights[at])


def loss_of(model, features, length):
    caption.compile_model(model)
    pairs = caption_data.pairs_of(IMAGES, VOCABULARY, length)
    inputs = [features[pairs.images], pairs.words]
    loss = model.evaluate(inputs, pairs.labels, sample_weight=pairs.weights, verbose=0)
    return loss, np.array(model.predict(inputs, verbose=0))


def test_the_loss_is_of_whole_sentences_and_of_nothing_after_them(model, features):
    loss, said = loss_of(model, features, 7)
    words = [[*sentence, "."] for image in IMAGES for sentence in image.sentences]
    ids = [[VOCABULARY.index(word) for word in sentence] for sentence in words]
    logs = [np.log(said[row, at, i]) for row, s in enumerate(ids) for at, i in enumerate(s)]
    assert loss == pytest.approx(-sum(logs) / 3, rel=1e-5)
    assert loss_of(model, features, 12)[0] == pytest.approx(loss, rel=1e-5)


def test_no_word_is_seen_before_it_is_said(model, features):
    words = np.array([[0, 1, 2, 3]])
    other = np.array([[0, 1, 2, 4]])
    first, second = (
        np.array(model.predict([features[:1], each], verbose=0)) for each in (words, other)
    )
    np.testing.assert_array_equal(first[:, :3], second[:, :3])
    assert (first[:, 3] != second[:, 3]).any()
    image = np.array(model.predict([features[1:], words], verbose=0))
    assert (first != image).all(axis=2).all()


@pytest.mark.parametrize("is_pruned", [False, True])
def test_word_by_word_it_says_what_it_says_at_once(model, features, is_pruned):
    if is_pruned:
        model = dsd.apply(model, sparsity={"": 0.8})
        caption.compile_model(model)
        zeros = np.zeros((2, 3), int)
        schedule = dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])
        with pytest.warns(UserWarning, match="ended with pruned weights"):
            model.fit([features, zeros], zeros, verbose=0, callbacks=[schedule])
        kernel = dsd.weights(model)[0].numpy()
        assert np.mean(kernel == 0) == pytest.approx(0.8, abs=1e-4)
    words = np.array([[0, 3, 1, 5], [0, 2, 2, 4]], np.int32)
    at_once = np.array(model.predict([features, words], verbose=0))
    generator = caption_models.Generator(len(VOCABULARY), 8)
    generator.load(model)
    states = generator.start(features)
    for at in range(4):
        said, states = generator.step(words[:, at], states)
        np.testing.assert_allclose(said, at_once[:, at], atol=1e-6)


class Numbered:
    """Stands in for a generator: says the word whose id is an image's only feature, and ends."""

    def start(self, features):
        assert len(features) == 2  # of a size alone, so that it is compiled once
        return [features]

    def step(self, words, states):
        said = np.where(words == 0, states[0][:, 0].astype(int), 0)
        return np.eye(4)[said], states


def test_each_image_gets_its_caption():
    features = np.array([[2], [0], [1], [3], [2]])
    written = captioning.write(
        Numbered(), features, [".", "a", "b", "c"], beam_size=1, max_words=9, batch_size=2
    )
    assert written == [["b"], [], ["a"], ["c"], ["b"]]


def test_bleu_of_the_same_words_is_100():
    sentences = ["a dog runs on grass".split(), "the cat sleeps on a mat".split()]
    references = [["some words".split(), sentences[0]], [sentences[1], ["other"]]]
    scores = captioning.bleu(sentences, references)
    assert scores == pytest.approx(dict.fromkeys(["BLEU-4", "BLEU-3", "BLEU-2", "BLEU-1"], 100))
    assert next(iter(scores)) == "BLEU-4"


def test_bleu_equals_a_worked_example():
    written = ["the the dog runs".split(), "a cat".split()]
    references = [
        ["the dog runs fast today".split(), "a dog runs".split()],
        ["a cat sleeps".split()],  # fewer than the first has
    ]
    # 1: of "the" one counts, dog, runs, a, cat: 5 of 6. 2: the-dog, dog-runs, a-cat: 3 of 4.
    # Nearest in length to 4 are 3 and 5, of which the shorter counts: 3 + 3 = 6, and 6 words: no
    # penalty. 3: the-dog-runs, 1 of 2; "a cat" has none. 4: 0 of 1.
    scores = captioning.bleu(written, references)
    assert scores["BLEU-1"] == pytest.approx(100 * 5 / 6)
    assert scores["BLEU-2"] == pytest.approx(100 * (5 / 6 * 3 / 4) ** (1 / 2))
    assert scores["BLEU-3"] == pytest.approx(100 * (5 / 6 * 3 / 4 * 1 / 2) ** (1 / 3))
    assert scores["BLEU-4"] == 0
    shorter = captioning.bleu([["dog"], ["a"]], references)
    assert shorter["BLEU-1"] == pytest.approx(100 * np.exp(1 - 6 / 2))


def test_bleu_of_silence_is_0():
    assert set(captioning.bleu([[], []], [[["a"]], [["b"]]]).values()) == {0}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a small data set, as the program that draws it writes it."""
    return drawn(tmp_path_factory.mktemp("small") / "data", "--train=30", "--val=5", "--test=10")


def drawn(folder, *options):
    subprocess.run([sys.executable, str(SMALL_DATA), str(folder), *options], check=True)
    return folder


def test_small_data_can_be_read(small):
    with flagsaver.flagsaver(data=str(small)):
        data = caption.read_data()
    assert [len(split) for split in (data.train, data.validation, data.test)] == [30, 5, 10]
    assert data.features.shape == (45, 4096)
    assert 0.3 < np.mean(data.features > 0) < 0.7
    for image in data.train:
        assert len({" ".join(sentence) for sentence in image.sentences}) == 5


def test_small_data_show_no_scene_twice(small):
    entries = json.loads((small / "dataset.json").read_text())["images"]
    assert len({json.dumps(entry["scene"]) for entry in entries}) == 45
    for entry in entries:
        (colour, _), _, background, _ = entry["scene"]
        assert colour in entry["sentences"][0]["tokens"]
        assert background in entry["sentences"][0]["tokens"]
        assert entry["sentences"][0]["raw"].startswith("A ")


def test_small_data_follow_from_the_seed(small, tmp_path):
    sizes = ["--train=30", "--val=5", "--test=10"]
    again = drawn(tmp_path / "again", *sizes)
    other = drawn(tmp_path / "other", *sizes, "--seed=1")
    for name in ("dataset.json", "imgs/scene_0044.jpg"):
        assert (again / name).read_bytes() == (small / name).read_bytes()
        assert (other / name).read_bytes() != (small / name).read_bytes()
    features = [caption_data.read_features(at / "vgg_feats.mat") for at in (small, again)]
    np.testing.assert_array_equal(*features)


def test_missing_data_are_reported():
    with flagsaver.flagsaver(data="/nowhere"), pytest.raises(MissingData, match="no such file"):
        caption.read_data()


@pytest.mark.parametrize("images", [None, "elsewhere"])
def test_without_features_they_are_computed(small, tmp_path, monkeypatch, images):
    (tmp_path / "dataset.json").write_bytes((small / "dataset.json").read_bytes())
    asked = []

    def features_of(folder, found, **options):
        asked.append((folder, len(found), options))
        return np.full((45, 4096), 7, np.float32)

    monkeypatch.setattr(caption.caption_features, "features_of", features_of)
    with flagsaver.flagsaver(data=str(tmp_path), images=images, vgg_weights="file.h5"):
        data = caption.read_data()
    pictures = pathlib.Path(images) if images else tmp_path / "imgs"
    assert asked == [(tmp_path, 45, {"pictures": pictures, "weights": "file.h5"})]
    assert (data.features == 7).all()


SIZES = ["--dense=1", "--sparse=1", "--redense=1@0.1"]


@pytest.mark.slow
@pytest.mark.only_on("tf_keras")
@pytest.mark.parametrize(
    "policy", ["", pytest.param("mixed_bfloat16", marks=pytest.mark.exhaustive)]
)
def test_full_size(tmp_path, policy):
    said = run(PROGRAM, tmp_path, "--data=fake", *SIZES, "--steps_per_epoch=2", "--batch_size=10",
               "--beam_size=2", "--max_words=6", f"--mixed_precision={policy}")  # fmt: skip
    assert all(line.startswith("FAKE DATA: ") for line in said.splitlines())
    result = result_of(tmp_path)
    assert result["parameters"] == 6_799_339
    embeddings = 1_299_968  # of words: they stay dense
    assert result["to_prune"] == 6_799_339 - 512 - 2048 - 2539 - embeddings
    parts = result["parts"]
    assert list(parts) == ["dense", "sparse", "re-dense"]
    assert parts["dense"]["sparsity"] < 0.01
    assert parts["sparse"]["sparsity"] == pytest.approx(0.8, abs=1e-6)
    assert parts["re-dense"]["sparsity"] < 0.3
    assert result["is_complete"]


TRAINING = f"--flagfile={SMALL_DATA.with_suffix('.flags')}"


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.only_on("tensorflow")
def test_small_data_are_learned(tmp_path):
    data = drawn(tmp_path / "data")
    work = tmp_path / "work"
    run(PROGRAM, work, f"--data={data}", TRAINING)
    assert table_of(work)["DSD"]["BLEU-4"]["0"] > 60
    assert result_of(work)["parts"]["sparse"]["sparsity"] == pytest.approx(0.8, abs=1e-4)


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
def test_from_photographs(small, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small, data)
    (data / "vgg_feats.mat").unlink()
    flags = [f"--data={data}", *SIZES, "--hidden_size=8", "--batch_size=10", "--beam_size=2"]
    said = run(PROGRAM, tmp_path / "work", *flags, "--vgg_weights=random")
    assert "VGG-16 looks at the images" in said
    assert (data / "vgg16_random_features.npz").exists()
    failed = start(PROGRAM, f"--workdir={tmp_path}", *flags, "--vgg_weights=lost.h5")
    assert failed.returncode == 1
    assert "Expected weights of VGG-16. Received: --vgg_weights=lost.h5" in failed.stderr
