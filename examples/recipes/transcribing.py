"""Conversion between texts and numbers for speech recognition: letters, CTC, errors."""

import itertools
from collections.abc import Sequence

import jiwer
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from recipes.chosen_keras import IS_LEGACY, keras

LETTERS = "' abcdefghijklmnopqrstuvwxyz"
BLANK = len(LETTERS)  # the last class, as TensorFlow's decoders have it


def encode(text: str) -> list[int]:
    """Returns the class of each letter; upper case counts as lower case.

    Raises:
        ValueError: `text` has other characters than letters, spaces and apostrophes.
    """
    words = " ".join(text.lower().split())
    others = sorted(set(words) - set(LETTERS))
    if others:
        raise ValueError(
            f"Expected letters a to z, spaces and apostrophes. Received: {''.join(others)!r} in "
            f"{text!r}. Write numbers as words, and take punctuation and marks of noise out."
        )
    return [LETTERS.index(letter) for letter in words]


def decode(classes: Sequence[int]) -> str:
    """Returns the text of letters' classes."""
    return "".join(LETTERS[index] for index in classes)


def frames_needed(classes: Sequence[int]) -> int:
    """Returns how many frames letters take at least: a blank parts one from the same again."""
    return len(classes) + sum(a == b for a, b in itertools.pairwise(classes))


def pack(num_frames: tf.Tensor, num_letters: tf.Tensor, letters: tf.Tensor) -> tf.Tensor:
    """Returns the inputs of the loss in one tensor, shape (batch, 2 + letters)."""
    return tf.concat([num_frames[:, None], num_letters[:, None], letters], axis=1)


@keras.saving.register_keras_serializable("keras_dsd_recipes")
def ctc_loss(packed: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns CTC's loss of each utterance, in nats.

    Args:
        packed: The result of `pack`.
        logits: Shape (batch, frames, classes), float32. Frames past an utterance's own count for
            nothing.
    """
    cast = tf.cast if IS_LEGACY else keras.ops.cast  # Keras may have made floats of them
    packed = cast(packed, "int32")
    num_frames, num_letters, letters = packed[:, 0], packed[:, 1], packed[:, 2:]
    if keras.backend.backend() != "tensorflow":
        return keras.ops.ctc_loss(letters, logits, num_letters, num_frames, mask_index=BLANK)
    if not tf.config.list_physical_devices("GPU"):
        # A separate CPU kernel, ten times as fast. On a GPU sparse labels would mean
        # cuDNN's, which does not take texts of any length.
        letters, num_letters = tf.RaggedTensor.from_tensor(letters, num_letters).to_sparse(), None
    return tf.nn.ctc_loss(
        letters, logits, num_letters, num_frames, logits_time_major=False, blank_index=BLANK
    )


def transcribe(logits: npt.ArrayLike, num_frames: npt.ArrayLike, beam_width: int = 0) -> list[str]:
    """Returns the recognized text of each utterance.

    Args:
        logits: Shape (batch, frames, classes).
        num_frames: Number of frames of each utterance.
        beam_width: Width of the beam search. Defaults to 0: the most likely class of each frame,
            without repetitions and blanks.
    """
    by_time = tf.transpose(tf.convert_to_tensor(logits, tf.float32), [1, 0, 2])
    lengths = tf.convert_to_tensor(num_frames, tf.int32)
    if beam_width:
        (found,), _ = tf.nn.ctc_beam_search_decoder(by_time, lengths, beam_width)
    else:
        (found,), _ = tf.nn.ctc_greedy_decoder(by_time, lengths)
    rows: list[list[int]] = [[] for _ in range(by_time.shape[1])]
    for (row, _), index in zip(found.indices.numpy(), found.values.numpy(), strict=True):
        rows[row].append(int(index))
    return [decode(row) for row in rows]


def unpack(packed: npt.ArrayLike) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Returns the frames and the text of each utterance from the result of `pack`."""
    rows = np.asarray(packed)
    return rows[:, 0], [decode(row[2 : 2 + row[1]]) for row in rows]


def error_rates(spoken: list[str], heard: list[str]) -> dict[str, float]:
    """Returns errors per word spoken and per letter spoken, in percent."""
    return {
        "WER": 100 * float(jiwer.wer(spoken, heard)),
        "CER": 100 * float(jiwer.cer(spoken, heard)),
    }
