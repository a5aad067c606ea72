"""DeepSpeech and Deep Speech 2, for either Keras, of the layers that the DSD paper's tables have.

A recurrent layer multiplies its inputs with one matrix for both directions; for its state, each
direction has a separate matrix. Deep Speech 2 normalises what a matrix or a convolution makes, in
place of a bias, and convolutions for each channel and frequency apart.

Both take spectrograms, shape (batch, frames, bins), and give scores of letters, shape
(batch, ceil(frames / stride), classes). Batches are padded with zeros, and nothing that an
utterance comes to depends on how far: recurrences pass over what is not an utterance's own,
normalisation over batch and time does not count it, and convolutions see zeros there.
"""

from typing import Any

import tensorflow as tf

from recipes.chosen_keras import IS_LEGACY, keras
from recipes.transcribing import LETTERS

layers = keras.layers
NUM_CLASSES = len(LETTERS) + 1  # and CTC's blank


@keras.saving.register_keras_serializable("keras_dsd_recipes")
def clipped_relu(x: Any) -> Any:
    """Returns `x`, no less than 0 and no more than 20: what keeps a plain recurrence in bounds."""
    clip = tf.clip_by_value if IS_LEGACY else keras.ops.clip
    return clip(x, 0.0, 20.0)


@keras.saving.register_keras_serializable("keras_dsd_recipes")
class OwnFrames(layers.Layer):
    """Tells an utterance's own frames, as 1, from those of padding, as 0: all of these is zero."""

    def call(self, x: Any) -> Any:
        """Returns shape (batch, frames)."""
        if IS_LEGACY:
            return tf.cast(tf.reduce_any(tf.not_equal(x, 0), axis=-1), x.dtype)
        return keras.ops.cast(keras.ops.any(keras.ops.not_equal(x, 0), axis=-1), x.dtype)


@keras.saving.register_keras_serializable("keras_dsd_recipes")
class Letters(layers.Dense):
    """The layer of the letters' scores, without the mask, which the loss would not know to use."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Returns none; the loss receives the lengths."""


@keras.saving.register_keras_serializable("keras_dsd_recipes")
class Recurrence(layers.SimpleRNNCell):
    """Adds what a matrix makes of the state to the inputs, which another layer has multiplied."""

    def build(self, input_shape: Any) -> None:
        """Creates the matrix of the state alone."""
        del input_shape
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, self.units), initializer=self.recurrent_initializer,
            name="recurrent_kernel",
        )  # fmt: skip
        self.built = True

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        """Returns the output, which is the state, and the state."""
        del training
        matmul = tf.matmul if IS_LEGACY else keras.ops.matmul
        state = states[0] if isinstance(states, list | tuple) else states
        output = clipped_relu(inputs + matmul(state, self.recurrent_kernel))
        return output, [output]


def deepspeech(num_bins: int, width: int, stride: int, context: int = 5) -> Any:
    """Returns a network of five layers (Hannun et al. 2014, arXiv:1412.5567).

    Args:
        num_bins: Of the spectrogram.
        width: Units of each layer.
        stride: Frames from one that is looked at to the next.
        context: Frames that the first layer sees on either side.
    """
    spectrogram = layers.Input((None, num_bins), name="spectrogram")
    own = _own_frames(spectrogram, stride)
    x = layers.ZeroPadding1D(context)(spectrogram)
    x = layers.Conv1D(
        width, 2 * context + 1, stride, activation=clipped_relu, name="convolution_1"
    )(x)  # fmt: skip
    x = layers.Dense(width, activation=clipped_relu, name="hidden_2")(x)
    x = layers.Dense(width, activation=clipped_relu, name="hidden_3")(x)
    x = layers.Dense(width, name="recurrent_4_inputs")(x)
    x = _both_ways(width, "recurrent_4")(x, mask=own)
    x = layers.Dense(width, activation=clipped_relu, name="hidden_5")(x)
    return keras.Model(spectrogram, _logits(x), name="deepspeech")


def deepspeech2(num_bins: int, width: int, stride: int, num_recurrent: int = 7) -> Any:
    """Returns two convolutions, recurrent layers, a fully connected one (arXiv:1512.02595).

    Args:
        num_bins: Of the spectrogram.
        width: Units of each layer after the convolutions.
        stride: Frames from one that the first convolution looks at to the next.
        num_recurrent: Number of recurrent layers.
    """
    spectrogram = layers.Input((None, num_bins), name="spectrogram")
    own = _own_frames(spectrogram, stride)
    x = layers.Reshape((-1, num_bins, 1))(spectrogram)
    x = _convolution(x, own, 32, (11, 41), (stride, 2), "convolution_1")
    x = _convolution(x, own, 32, (11, 21), (1, 2), "convolution_2")
    x = layers.Reshape((-1, x.shape[2] * x.shape[3]))(x)
    for number in range(1, num_recurrent + 1):
        x = layers.Dense(width, use_bias=False, name=f"recurrent_{number}_inputs")(x)
        x = layers.BatchNormalization(name=f"norm_{number}")(x, mask=own)
        x = _both_ways(width, f"recurrent_{number}")(x, mask=own)
    x = layers.Dense(width, use_bias=False, name="hidden")(x)
    x = layers.BatchNormalization(name=f"norm_{num_recurrent + 1}")(x, mask=own)
    x = layers.Activation(clipped_relu)(x)
    return keras.Model(spectrogram, _logits(x), name="deepspeech2")


def _own_frames(spectrogram: Any, stride: int) -> Any:
    looked_at = layers.MaxPooling1D(1, stride, name="looked_at")(spectrogram)
    return OwnFrames(name="own_frames")(looked_at)


def _both_ways(width: int, name: str) -> Any:
    recurrent = layers.RNN(Recurrence(width), return_sequences=True, name="one_way")
    return layers.Bidirectional(recurrent, merge_mode="sum", name=name)


def _convolution(
    x: Any, own: Any, channels: int, size: tuple[int, int], strides: tuple[int, int], name: str
) -> Any:
    x = layers.ZeroPadding2D([(side // 2, side // 2) for side in size])(x)
    x = layers.Conv2D(channels, size, strides, use_bias=False, name=name)(x)
    num_bins = x.shape[2]
    x = layers.Reshape((-1, num_bins * channels))(x)
    x = layers.BatchNormalization(name=f"norm_of_{name}")(x, mask=own)
    x = layers.Activation(clipped_relu)(x)
    x = layers.Multiply()([x, layers.Reshape((-1, 1))(own)])  # the next one sees past the end too
    return layers.Reshape((-1, num_bins, channels))(x)


def _logits(x: Any) -> Any:
    x = Letters(NUM_CLASSES, name="letters")(x)
    return layers.Activation("linear", dtype="float32", name="logits")(x)
