"""The networks and data of tasks with sequences."""

import functools
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
import scipy.io
from building import classifier, dense_with, shuffled
from keras import ops
from protocol import Setting
from trials import Split, scanned

layers = keras.layers
CONTEXT = 40
NUM_LETTERS = 96
FRAMES = 32


def letters_mlp(setting: Setting) -> keras.Model:
    """Returns an MLP that predicts a letter from the 40 before it."""
    dense = dense_with(setting)
    return classifier(
        [layers.Input((CONTEXT,), dtype="int32"), layers.Embedding(NUM_LETTERS, 8),
         layers.Flatten(), dense(128, "relu"), dense(NUM_LETTERS, name="last")],
        setting, 128,
    )  # fmt: skip


def piano_lstm(setting: Setting) -> keras.Model:
    """Returns an LSTM that predicts the keys of the next frame."""
    decay = keras.regularizers.L2(setting.l2)
    recurrent = layers.LSTM(
        64, return_sequences=True, kernel_regularizer=decay, recurrent_regularizer=decay
    )
    model = scanned(keras.Sequential, 16)([
        layers.Input((FRAMES, 88), dtype="uint8"), layers.Rescaling(1.0), recurrent,
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
    """Returns 300,000 letters in a row, from anywhere in the first nine tenths of the text.

    The last tenth is cut into a hundred stretches: every other one is chosen by, the rest reported
    on. Of two halves one would be plays, the other poems.
    """
    found = _letters(path)
    train, held_out = np.split(found, [round(0.9 * len(found))])
    start = np.random.default_rng([seed, 0]).integers(len(train) - 300_000)
    stretches = np.array_split(held_out, 100)
    parts = [train[start:][:300_000], *(np.concatenate(stretches[i::2]) for i in (0, 1))]
    windows = [np.lib.stride_tricks.sliding_window_view(part, CONTEXT + 1) for part in parts]
    (x, y), validation, test = ((each[:, :-1], each[:, -1]) for each in windows)
    return Split(shuffled(x, y, seed, 128), validation, test)


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
    (x, y), validation, test = (_windows([found[index] for index in part]) for part in parts)
    return Split(shuffled(x, y, seed, 16), validation, test)


def _windows(rolls: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    windows = [
        roll[start : start + FRAMES + 1]
        for roll in rolls for start in range(0, len(roll) - FRAMES, FRAMES)
    ]  # fmt: skip
    both = np.stack(windows)
    return both[:, :-1], both[:, 1:]
