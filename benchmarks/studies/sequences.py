"""The networks and data of tasks with sequences."""

import functools
import pathlib
import re
import sys
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import scipy.io
from building import classifier, compiled, dense_with, recurrent_with, shuffled
from keras import ops
from protocol import Setting
from trials import Part, Split, scanned

sys.path.append(str(pathlib.Path(__file__).parents[2] / "examples" / "small_data"))

import scenes

layers = keras.layers
CONTEXT = 40
WINDOW = 40
NUM_LETTERS = 96
TRAINED_LETTERS = 300_000
FRAMES = 32
PADDING, END = 0, 1
# Words for training, validation and testing; letters of a word at most.
NUM_WORDS = (40_000, 5_000, 5_000)
NUM_SPELLED = 12
NUM_PHONEMES = 41
# Scenes for training, validation and testing, of 2,280; filters for each of 64 parts of a picture.
NUM_SCENES = (1_680, 300, 300)
DRAWINGS = 4
FILTERS = 8
NUM_FEATURES = 64 * FILTERS
NUM_POSITIONS = 15
NUM_CAPTION_WORDS = 33


def letters_mlp(setting: Setting) -> keras.Model:
    """Returns an MLP that predicts a letter from the 40 before it."""
    dense = dense_with(setting)
    return classifier(
        [layers.Input((CONTEXT,), dtype="int32"), layers.Embedding(NUM_LETTERS, 8),
         layers.Flatten(), dense(128, "relu"), dense(NUM_LETTERS, name="last")],
        setting, 128,
    )  # fmt: skip


def letters_lstm(setting: Setting) -> keras.Model:
    """Returns an LSTM that predicts the letter after each of a window."""
    model = scanned(keras.Sequential, 32)([
        layers.Input((WINDOW,), dtype="int32"), layers.Embedding(NUM_LETTERS, 16),
        recurrent_with(setting, layers.LSTM)(64, return_sequences=True),
        dense_with(setting)(NUM_LETTERS, name="last"),
    ])  # fmt: skip
    return compiled(model, keras.optimizers.Adam(setting.lr))


def letters_transformer(setting: Setting) -> keras.Model:
    """Returns a transformer of two blocks that predicts the letter after each of a window."""
    width, dense, decay = 16, dense_with(setting), keras.regularizers.L2(setting.l2)
    letters = layers.Input((WINDOW,), dtype="int32")
    positions = ops.cumsum(ops.ones_like(letters), axis=1) - 1
    x = layers.Embedding(NUM_LETTERS, width)(letters) + layers.Embedding(WINDOW, width)(positions)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(2, width // 2, kernel_regularizer=decay)
        x = x + attention(y, y, use_causal_mask=True)
        y = dense(4 * width, "gelu")(layers.LayerNormalization()(x))
        x = x + dense(width)(y)
    logits = dense(NUM_LETTERS, name="last")(layers.LayerNormalization()(x))
    model = scanned(keras.Model, 32)(letters, logits)
    return compiled(model, keras.optimizers.Adam(setting.lr))


def speller(setting: Setting) -> keras.Model:
    """Returns GRUs that read a word, backward and forward, and predict each of its phonemes."""
    gru, size = recurrent_with(setting, layers.GRU), 32
    word = layers.Input((NUM_SPELLED,), dtype="int32", name="word")
    before = layers.Input((NUM_SPELLED + 1,), dtype="int32", name="before")
    x = layers.Embedding(27, 16, mask_zero=True)(word)
    read = layers.Bidirectional(gru(size // 2))(x)
    x = gru(size, return_sequences=True)(layers.Embedding(NUM_PHONEMES, 16)(before), read)
    logits = dense_with(setting)(NUM_PHONEMES, name="last")(x)
    model = scanned(keras.Model, 128)({"word": word, "before": before}, logits)
    return _compiled_for_tokens(model, keras.optimizers.Adam(setting.lr))


def captioner(setting: Setting) -> keras.Model:
    """Returns NeuralTalk's network, small: an LSTM that reads an image, and predicts each word."""
    size, dense = 64, dense_with(setting)
    image = layers.Input((NUM_FEATURES,), name="image")
    before = layers.Input((NUM_POSITIONS,), dtype="int32", name="before")
    embedded = layers.Reshape((1, size))(dense(size, name="image_embedding")(image))
    x = layers.Embedding(NUM_CAPTION_WORDS, size, name="word_embedding")(before)
    x = layers.Dropout(0.1)(layers.Concatenate(axis=1)([embedded, x]))
    x = recurrent_with(setting, layers.LSTM)(size, return_sequences=True)(x)
    x = layers.Dropout(0.1)(layers.Cropping1D((1, 0))(x))
    logits = dense(NUM_CAPTION_WORDS, name="last")(x)
    model = scanned(keras.Model, 64)({"image": image, "before": before}, logits)
    optimizer = keras.optimizers.RMSprop(setting.lr, rho=0.9, epsilon=1e-8, clipvalue=5.0)
    return _compiled_for_tokens(model, optimizer)


def _compiled_for_tokens(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Returns a model of logits, compiled with loss and metrics of the tokens of each sequence."""
    metrics = [_OfTokens(_token_nll, name="nll"), _OfTokens(_token_hits, name="accuracy")]
    model.compile(optimizer, _token_loss, metrics=metrics)
    return model


class _OfTokens(keras.metrics.Mean):
    """The mean over all tokens that are not padding."""

    def __init__(self, function: Callable[[Any, Any], Any], name: str) -> None:
        super().__init__(name)
        self._function = function

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch of tokens and their logits."""
        super().update_state(self._function(y_true, y_pred), y_true != PADDING)


def _token_loss(tokens: Any, logits: Any) -> Any:
    is_token = ops.cast(tokens != PADDING, logits.dtype)
    return ops.sum(_token_nll(tokens, logits) * is_token) / ops.sum(is_token)


def _token_nll(tokens: Any, logits: Any) -> Any:
    return ops.sparse_categorical_crossentropy(tokens, logits, from_logits=True)


def _token_hits(tokens: Any, logits: Any) -> Any:
    return ops.cast(ops.argmax(logits, axis=-1) == ops.cast(tokens, "int32"), "float32")


def piano_lstm(setting: Setting) -> keras.Model:
    """Returns an LSTM that predicts the keys of the next frame."""
    model = scanned(keras.Sequential, 16)([
        layers.Input((FRAMES, 88), dtype="uint8"), layers.Rescaling(1.0),
        recurrent_with(setting, layers.LSTM)(64, return_sequences=True),
        dense_with(setting)(88, name="last"),
    ])  # fmt: skip
    nll = keras.metrics.MeanMetricWrapper(_frame_nll, name="nll")
    model.compile(keras.optimizers.Adam(setting.lr), _frame_nll, metrics=[nll])
    return model


def _frame_nll(keys: object, logits: object) -> object:
    """Returns the negative log likelihood of each frame, in nats: the sum over its keys."""
    return ops.sum(ops.softplus(logits) - ops.cast(keys, "float32") * logits, axis=-1)


@functools.cache
def _letters(path: pathlib.Path) -> np.ndarray:
    text = pathlib.Path(path).read_text(encoding="utf-8")
    number = {letter: index for index, letter in enumerate(sorted(set(text)))}
    return np.array([number[letter] for letter in text], "int32")


def letters(path: pathlib.Path, seed: int) -> Split:
    """Returns the letters of a text, each with those before it."""
    parts = _parts_of_text(path, seed)
    windows = [np.lib.stride_tricks.sliding_window_view(part, CONTEXT + 1) for part in parts]
    (x, y), validation, test = ((each[:, :-1], each[:, -1]) for each in windows)
    return Split(shuffled(x, y, seed, 128), validation, test)


def letter_windows(path: pathlib.Path, seed: int) -> Split:
    """Returns windows of the same letters, each with the letters that follow its own.

    In training, windows start elsewhere in every epoch.
    """
    train, *held_out = _parts_of_text(path, seed, 6)

    def epoch(number: int) -> Part:
        offset = int(np.random.default_rng([seed, 2, number]).integers(WINDOW))
        return shuffled(*_windows([train[offset:]], WINDOW), seed, 32)(number)

    validation, test = (_windows([part], WINDOW) for part in held_out)
    return Split(epoch, validation, test)


def _parts_of_text(path: pathlib.Path, seed: int, every: int = 2) -> list[np.ndarray]:
    """Returns 300,000 letters in a row, from anywhere in the first nine tenths of the text.

    The last tenth is cut into a hundred stretches: one of `every` in turn is for validation, one in
    the middle between these for testing. Of two halves one would be plays, the other poems.
    """
    found = _letters(path)
    train, held_out = np.split(found, [round(0.9 * len(found))])
    start = np.random.default_rng([seed, 0]).integers(len(train) - TRAINED_LETTERS)
    stretches = np.array_split(held_out, 100)
    firsts = (0, every // 2)
    parts = (np.concatenate(stretches[first::every]) for first in firsts)
    return [train[start:][:TRAINED_LETTERS], *parts]


@functools.cache
def _pieces(path: pathlib.Path) -> list[np.ndarray]:
    found = scipy.io.loadmat(path)
    return [piece for name in ("traindata", "validdata", "testdata") for piece in found[name][0]]


def pieces(path: pathlib.Path, seed: int) -> Split:
    """Returns three fifths of the pieces, a fifth to choose by, and a fifth to report on.

    A piece is cut into windows of 32 frames, each with the frames that follow its own.
    """
    found = _pieces(path)
    order = np.random.default_rng([seed, 0]).permutation(len(found))
    parts = np.split(order, [len(found) * 3 // 5, len(found) * 4 // 5])
    (x, y), validation, test = (
        _windows([found[index] for index in part], FRAMES) for part in parts
    )
    return Split(shuffled(x, y, seed, 16), validation, test)


def _windows(rolls: Sequence[np.ndarray], length: int) -> Part:
    windows = [
        roll[start : start + length + 1]
        for roll in rolls for start in range(0, len(roll) - length, length)
    ]  # fmt: skip
    both = np.stack(windows)
    return both[:, :-1], both[:, 1:]


@functools.cache
def _dictionary(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the index of each pronunciation's word, its letters, and its phonemes.

    Of words of 2 to 12 letters; stress is left out. Letters are 1 to 26, phonemes start at 2, and
    1 ends them. The pronunciations of a word that differ in more than stress follow one another.
    """
    with zipfile.ZipFile(path) as found:
        lines = found.read("cmudict/cmudict").decode("latin-1").splitlines()
    entries: dict[str, dict[tuple[str, ...], None]] = {}
    for word, _, *phonemes in (line.split() for line in lines if line):
        if re.fullmatch(f"[A-Z]{{2,{NUM_SPELLED}}}", word) and len(phonemes) <= NUM_SPELLED:
            spoken = tuple(phoneme.rstrip("012") for phoneme in phonemes)
            entries.setdefault(word, {})[spoken] = None
    names = sorted({phoneme for spoken in entries.values() for each in spoken for phoneme in each})
    number = {name: index for index, name in enumerate(names, 2)}
    rows = [
        (index, [ord(letter) - 64 for letter in word], [*(number[name] for name in each), END])
        for index, (word, spoken) in enumerate(entries.items()) for each in spoken
    ]  # fmt: skip
    of_word, spelled, spoken = zip(*rows, strict=True)
    return np.array(of_word), _padded(spelled, NUM_SPELLED), _padded(spoken, NUM_SPELLED + 1)


def _padded(sequences: Sequence[Sequence[int]], length: int) -> np.ndarray:
    found = np.full((len(sequences), length), PADDING, "int32")
    for row, sequence in zip(found, sequences, strict=True):
        row[: len(sequence)] = sequence
    return found


def _before(tokens: np.ndarray) -> np.ndarray:
    """Returns the token before each, for teacher forcing; before the first one is padding."""
    return np.concatenate([np.full_like(tokens[..., :1], PADDING), tokens[..., :-1]], axis=-1)


def pronunciations(path: pathlib.Path, seed: int) -> Split:
    """Returns 40,000 words, 5,000 for validation and 5,000 for testing, no word in two parts."""
    of_word, spelled, spoken = _dictionary(path)
    order = np.random.default_rng([seed, 0]).permutation(of_word[-1] + 1)
    words = np.split(order, np.cumsum(NUM_WORDS))[:3]
    rows = (np.flatnonzero(np.isin(of_word, each)) for each in words)
    (x, y), validation, test = (
        ({"word": spelled[row], "before": _before(spoken[row])}, spoken[row]) for row in rows
    )
    return Split(shuffled(x, y, seed, 128), validation, test)


@functools.cache
def _vocabulary() -> dict[str, int]:
    """Returns the index of each word that describes a scene; indices start at 2."""
    random = np.random.default_rng(0)
    sentences = (scenes.describe(scene, random) for scene in scenes.all_scenes())
    words = {word for each in sentences for sentence in each for word in sentence.split()}
    return {word: index for index, word in enumerate(sorted(words), 2)}


@functools.lru_cache(maxsize=1)
def captions(path: None, seed: int) -> Split:
    """Returns drawn scenes and a sentence for each, no scene in two parts.

    A scene for training is drawn several times. In each epoch one of the five sentences of each
    drawing is drawn; for validation and testing there are all five.
    """
    del path
    random = np.random.default_rng([seed, 0])
    every = scenes.all_scenes()
    train, *held_out = np.split(random.permutation(len(every)), np.cumsum(NUM_SCENES))[:3]
    shown = np.concatenate([np.repeat(train, DRAWINGS), *held_out])
    pictures = np.stack([np.asarray(scenes.draw(every[index], random)) for index in shown])
    images = np.ascontiguousarray(scenes.features_of(pictures, random, FILTERS).T)
    words = np.stack([_words(every[index], random) for index in shown])
    ends = np.cumsum([len(train) * DRAWINGS, len(held_out[0])])
    (of_train, *images_held_out), (train_words, *words_held_out) = (
        np.split(each, ends) for each in (images, words)
    )

    def epoch(number: int) -> Part:
        chosen = np.random.default_rng([seed, 2, number]).integers(5, size=len(of_train))
        y = train_words[np.arange(len(of_train)), chosen]
        return shuffled({"image": of_train, "before": _before(y)}, y, seed, 64)(number)

    validation, test = (
        ({"image": np.repeat(x, 5, axis=0), "before": _before(y)}, y)
        for x, y in zip(images_held_out, map(np.concatenate, words_held_out), strict=True)
    )
    return Split(epoch, validation, test)


def _words(scene: scenes.Scene, random: np.random.Generator) -> np.ndarray:
    """Returns five sentences, (5, positions)."""
    index, sentences = _vocabulary(), scenes.describe(scene, random)
    numbers = [[*(index[word] for word in each.split()), END] for each in sentences]
    return _padded(numbers, NUM_POSITIONS)
