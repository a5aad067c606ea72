"""Reads captioned images as NeuralTalk does: `dataset.json` and `vgg_feats.mat` of one folder."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy.io

from recipes.problems import MissingData

FEATURES = 4096  # the width of VGG-16's fc7, NeuralTalk's only size
MARK = 0  # the id at the start of every sentence, as an input, and at its end, as an output
LAYOUT = """\
The layout is that of Karpathy's Flickr-8K, from https://cs.stanford.edu/people/karpathy/deepimagesent:
    {folder}/dataset.json    images, each with its imgid, filename, split and tokenized sentences
    {folder}/vgg_feats.mat   "feats", 4096 x images: column imgid is what VGG-16 makes of an image
    {folder}/imgs/*.jpg      only where there is no vgg_feats.mat: features are computed from them
Request the images at https://forms.illinois.edu/sec/1713398."""
# The images that are not in COCO's usual validation and test sets are for training, too.
SPLITS = {"train": "train", "restval": "train", "val": "validation", "test": "test"}

Sentence = list[str]


@dataclasses.dataclass(frozen=True)
class Image:
    """An image and the sentences that people wrote about it."""

    number: int  # `imgid`: its row of the features
    filename: str
    sentences: list[Sentence]


@dataclasses.dataclass(frozen=True)
class Captions:
    """A data set: the features, float32 of shape (images, 4096), and the images of each split."""

    features: np.ndarray
    train: list[Image]
    validation: list[Image]
    test: list[Image]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Images with a sentence each, as the model is trained on them; one row a pair."""

    images: np.ndarray  # int32 (pairs,): rows of the features
    words: np.ndarray  # int32 (pairs, length): MARK, then the sentence
    labels: np.ndarray  # int32 (pairs, length): the sentence, then MARK
    weights: np.ndarray  # float32 (pairs, length): 0 where the sentence is over


def missing(folder: pathlib.Path, problem: str) -> MissingData:
    """Returns the error that says what is wrong with a folder, and how it should look."""
    return MissingData(f"{problem}\n{LAYOUT.format(folder=folder)}")


def read_images(folder: pathlib.Path) -> dict[str, list[Image]]:
    """Returns the images of each split, of `dataset.json`.

    Raises:
        MissingData: The file is not there, or does not read as it should.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        raise missing(folder, f"Expected captions in {path}. There is no such file.")
    splits: dict[str, list[Image]] = {"train": [], "validation": [], "test": []}
    try:
        for entry in json.loads(path.read_text(encoding="utf-8"))["images"]:
            splits[SPLITS[entry["split"]]].append(_image(entry))
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{path} does not read as a list of captioned images: {error!r}."
        raise missing(folder, problem) from error
    for name, images in splits.items():
        if not images:
            raise missing(
                folder, f"Expected images of the split {name!r} in {path}. Received none."
            )
    return splits


def _image(entry: dict[str, Any]) -> Image:
    sentences = [list(sentence["tokens"]) for sentence in entry["sentences"]]
    if not sentences or not all(sentences):
        raise ValueError(f"image {entry['filename']} has no sentence, or an empty one")
    return Image(int(entry["imgid"]), entry["filename"], sentences)


def read_features(path: pathlib.Path) -> np.ndarray:
    """Returns the features in a `vgg_feats.mat`, float32 of shape (images, 4096).

    Raises:
        MissingData: The file does not read as a matrix of 4096 rows.
    """
    try:
        columns = scipy.io.loadmat(path, variable_names=["feats"])["feats"]
    except KeyError as error:
        problem = f'Expected "feats" in {path}. There is no variable of that name.'
        raise missing(path.parent, problem) from error
    except Exception as error:  # SciPy raises what its parser stumbles over
        problem = f"{path} does not read as a file of MATLAB: {error}"
        raise missing(path.parent, problem) from error
    if columns.ndim != 2 or len(columns) != FEATURES:
        problem = f'Expected "feats" of {FEATURES} rows, a column an image, in {path}.'
        raise missing(path.parent, f"{problem} Received: shape={columns.shape}.")
    return np.ascontiguousarray(columns.T, np.float32)


def check_features(folder: pathlib.Path, features: np.ndarray, images: Iterable[Image]) -> None:
    """Raises MissingData unless every image has features, all of them numbers."""
    for image in images:
        if not 0 <= image.number < len(features):
            raise missing(
                folder,
                f"Expected features of every image in {folder / 'dataset.json'}. Received: "
                f"{len(features)} images' features, none for imgid={image.number}.",
            )
    if not np.isfinite(features).all():
        rows = np.flatnonzero(~np.isfinite(features).all(axis=1))
        raise missing(folder, f"The features of imgid={rows[0]} are not all finite numbers.")


def vocabulary_of(images: Sequence[Image], threshold: int) -> tuple[list[str], np.ndarray]:
    """Returns the words to know, the most frequent first, and the initial bias of each.

    Args:
        images: Those of training.
        threshold: How often a word occurs at least.

    Returns:
        The words; the first is the full stop that stands for MARK. And the logarithm of how often
        each occurs, float32, 0 for the most frequent: as the bias of the last layer it spares the
        model from learning that.

    Raises:
        MissingData: No word occurs as often.
    """
    counts = collections.Counter(w for image in images for s in image.sentences for w in s)
    words = sorted((w for w, n in counts.items() if n >= threshold), key=lambda w: (-counts[w], w))
    if not words:
        most = max(counts.values(), default=0)
        raise MissingData(
            f"Expected words that occur {threshold} times or more in the sentences to train on. "
            f"Received: none does, the most frequent {most} times. Lower --word_count_threshold."
        )
    ends = sum(len(image.sentences) for image in images)
    logs = np.log([ends, *(counts[word] for word in words)])
    return [".", *words], (logs - logs.max()).astype(np.float32)


def longest(images: Sequence[Image]) -> int:
    """Returns how many positions hold each sentence and its end."""
    return 1 + max(len(sentence) for image in images for sentence in image.sentences)


def pairs_of(images: Sequence[Image], vocabulary: Sequence[str], length: int) -> Pairs:
    """Returns each sentence of each image, as ids.

    A word that the vocabulary lacks is left out, as NeuralTalk does: the model then neither reads
    nor writes a word for "unknown". The weights are the number of positions: Keras divides
    by it, so that the loss is NeuralTalk's, a sum over a sentence's words, averaged over sentences.

    Args:
        images: Images with their sentences.
        vocabulary: Words by id.
        length: How many positions there are; what is longer is cut.
    """
    ids = {word: index for index, word in enumerate(vocabulary) if index != MARK}
    sentences = [(image.number, sentence) for image in images for sentence in image.sentences]
    words = np.full((len(sentences), length), MARK, np.int32)
    labels, weights = words.copy(), np.zeros(words.shape, np.float32)
    for row, (_, sentence) in enumerate(sentences):
        known = [ids[word] for word in sentence if word in ids][: length - 1]
        words[row, 1 : len(known) + 1] = known
        labels[row, : len(known)] = known
        weights[row, : len(known) + 1] = length
    return Pairs(np.array([number for number, _ in sentences], np.int32), words, labels, weights)


def fake(words: int, seed: int = 0) -> Captions:
    """Returns random features, and sentences of 20 words, of a vocabulary with each five times."""
    random = np.random.default_rng(seed)
    stream = random.permutation(np.repeat(np.arange(words), 5))
    sentences = [[f"word{n}" for n in part] for part in np.array_split(stream, words // 4)]
    images = [
        Image(number, f"{number}.jpg", sentences[start : start + 5])
        for number, start in enumerate(range(0, len(sentences), 5))
    ]
    features = np.maximum(random.normal(size=(len(images), FEATURES)), 0).astype(np.float32)
    return Captions(features, images, images[:8], images[:8])


def write_vocabulary(folder: pathlib.Path, vocabulary: Sequence[str]) -> None:
    """Writes what a trained model's ids mean: a line each, from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocabulary.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
