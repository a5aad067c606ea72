"""Batches of spectrograms with what CTC's loss is to know, for `fit` and for decoding."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from recipes import speech_data, transcribing

NUM_BUCKETS = 8


@dataclasses.dataclass(frozen=True)
class Split:
    """The utterances of a manifest, in batches.

    Args:
        rows: What is shuffled.
        read: What makes spectrograms and letters of it.
        num_frames: Of each utterance's spectrogram.
        most_letters: That an utterance has.
        batch_size: Utterances in a batch.
        stride: Frames from one that the model looks at to the next.
    """

    rows: tf.data.Dataset
    read: Callable[[tf.data.Dataset], tf.data.Dataset]
    num_frames: Sequence[int]
    most_letters: int
    batch_size: int
    stride: int

    def shuffled(self, seed: tf.Tensor) -> tf.data.Dataset:
        """Returns whole batches in an order that follows from `seed` alone."""
        rows = self.rows.shuffle(len(self.num_frames), seed, reshuffle_each_iteration=False)
        return self._in_batches(self.read(rows), drop_remainder=True)

    def in_order(self) -> tf.data.Dataset:
        """Returns all utterances."""
        return self._in_batches(self.read(self.rows))

    def _in_batches(
        self, examples: tf.data.Dataset, drop_remainder: bool = False
    ) -> tf.data.Dataset:
        ends = ends_of_buckets(self.num_frames, self.batch_size)
        in_bucket = np.bincount(np.searchsorted(ends, self.num_frames))
        sizes = in_bucket + (0 if drop_remainder else self.batch_size - 1)
        num_bins = examples.element_spec[0].shape[1]
        batches = examples.map(_with_lengths).bucket_by_sequence_length(
            lambda spectrogram, *_: tf.shape(spectrogram)[0],
            [end + 1 for end in ends],
            [self.batch_size] * (len(ends) + 1),
            padded_shapes=([None, num_bins], [], [self.most_letters], []),
            drop_remainder=drop_remainder,
            pad_to_bucket_boundary=True,
        )
        pack = functools.partial(self._pack, size=self.batch_size if drop_remainder else None)
        number = int(np.sum(sizes // self.batch_size))
        return batches.map(pack).apply(tf.data.experimental.assert_cardinality(number))

    def _pack(
        self,
        spectrogram: tf.Tensor,
        num_frames: tf.Tensor,
        letters: tf.Tensor,
        num_letters: tf.Tensor,
        size: int | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        packed = transcribing.pack(num_out(num_frames, self.stride), num_letters, letters)
        # Buckets may be of several sizes, so TensorFlow takes the size of a batch for unknown.
        spectrogram = tf.ensure_shape(spectrogram, [size, None, None])
        return spectrogram, tf.ensure_shape(packed, [size, None])


def _with_lengths(spectrogram: tf.Tensor, letters: tf.Tensor) -> tuple[tf.Tensor, ...]:
    return spectrogram, tf.shape(spectrogram)[0], letters, tf.size(letters)


def num_out(num_frames: Any, stride: int) -> Any:
    """Returns how many frames a model gives of `num_frames` that it is given."""
    return (num_frames + stride - 1) // stride


def alignable(
    utterances: Sequence[speech_data.Utterance], stride: int
) -> list[speech_data.Utterance]:
    """Returns those that are not too short for their letters, which CTC's loss is infinite of."""
    return [
        utterance
        for utterance in utterances
        if num_out(utterance.num_frames, stride) >= transcribing.frames_needed(utterance.letters)
    ]


def ends_of_buckets(num_frames: Sequence[int], batch_size: int) -> list[int]:
    """Returns the lengths to pad to: of eight buckets alike in size, of fewer if they were small.

    Few lengths mean that JAX compiles few steps; utterances of like length waste little on padding.
    """
    num_buckets = min(NUM_BUCKETS, max(1, len(num_frames) // (8 * batch_size)))
    shares = np.arange(1, num_buckets + 1) / num_buckets
    return sorted({int(end) for end in np.quantile(num_frames, shares, method="higher")})


def rows_of(utterances: Sequence[speech_data.Utterance]) -> tf.data.Dataset:
    """Returns file and letters of each utterance."""
    paths = [utterance.audio for utterance in utterances]
    letters = tf.ragged.constant([u.letters for u in utterances], tf.int32, ragged_rank=1)
    return tf.data.Dataset.from_tensor_slices((paths, letters))


def read(rows: tf.data.Dataset, num_bands: int) -> tf.data.Dataset:
    """Returns spectrogram and letters of each row."""

    def read_one(path: tf.Tensor, letters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        samples = tf.numpy_function(speech_data.read_audio, [path], tf.float32)
        samples = tf.ensure_shape(samples, [None])
        return speech_data.spectrogram(samples, num_bands), letters

    return rows.map(read_one, tf.data.AUTOTUNE)


def fake(num_utterances: int, num_bins: int, num_frames: int, num_letters: int) -> tf.data.Dataset:
    """Returns random spectrograms with random letters."""
    random = np.random.default_rng(0)
    spectrograms = random.normal(size=(num_utterances, num_frames, num_bins)).astype(np.float32)
    letters = random.integers(0, transcribing.BLANK, (num_utterances, num_letters)).astype(np.int32)
    return tf.data.Dataset.from_tensor_slices((spectrograms, letters))
