"""NeuralTalk's network, a generator of sentences: for training, and word by word."""

from typing import Any

import numpy as np

from recipes.caption_data import FEATURES
from recipes.chosen_keras import keras

layers = keras.layers


def build(bias: np.ndarray, *, hidden_size: int, dropout: float) -> Any:
    """Returns the model to train: image and words in, probabilities of each next word out.

    An LSTM reads the image first, embedded as wide as a word, then the mark that
    starts a sentence and its words; what it says after the image alone is left out. Two things
    differ from NeuralTalk, as in Keras's LSTM, which has a fast kernel on GPUs for it: the
    cell's state passes a tanh on its way out, and the forget gate's bias starts at one.

    Args:
        bias: Initial bias of the last layer, (words,).
        hidden_size: Units of the LSTM, and the size of the embeddings.
        dropout: Rate before the LSTM and after it.
    """
    image = layers.Input((FEATURES,), name="image")
    words = layers.Input((None,), dtype="int32", name="words")
    embedded = layers.Reshape((1, hidden_size))(_image_embedding(hidden_size)(image))
    x = _word_embedding(len(bias), hidden_size)(words)
    x = layers.Concatenate(axis=1)([embedded, x])
    x = layers.Dropout(dropout, name="dropout_encoder")(x)
    x = _lstm(hidden_size, return_sequences=True)(x)
    x = layers.Cropping1D((1, 0))(x)
    x = layers.Dropout(dropout, name="dropout_decoder")(x)
    decoder = _decoder(len(bias))
    x = layers.Activation("softmax", dtype="float32", name="probabilities")(decoder(x))
    kernel, _ = decoder.get_weights()
    decoder.set_weights([kernel, bias])
    return keras.Model([image, words], x, name="neuraltalk")


class Generator:
    """The network that generates word by word, for beam search.

    Args:
        words: Number of words.
        hidden_size: As in `build`.
    """

    def __init__(self, words: int, hidden_size: int) -> None:
        size = hidden_size
        lstm = _lstm(size, return_state=True)
        self._layers = [
            _image_embedding(size), _word_embedding(words, size), lstm, _decoder(words),
        ]  # fmt: skip
        embed_image, embed_word, _, decoder = self._layers
        image = layers.Input((FEATURES,))
        word = layers.Input((1,), dtype="int32")
        before = [layers.Input((size,), dtype=lstm.compute_dtype) for _ in ("h", "c")]
        _, *after_image = lstm(layers.Reshape((1, size))(embed_image(image)))
        hidden, *after_word = lstm(embed_word(word), initial_state=before)
        said = layers.Activation("softmax", dtype="float32")(decoder(hidden))
        self._read_image = keras.Model(image, after_image)
        self._read_word = keras.Model([word, *before], [said, *after_word])

    def load(self, model: Any) -> None:
        """Copies the weights of a model of `build`, in any phase."""
        values = [variable.numpy() for variable in model.trainable_weights]
        for layer in self._layers:
            count = len(layer.get_weights())
            layer.set_weights(values[:count])
            values = values[count:]

    def start(self, features: np.ndarray) -> list[np.ndarray]:
        """Returns the LSTM's states after it has read images, (images, 4096)."""
        return [_float32(state) for state in self._read_image.predict_on_batch(features)]

    def step(
        self, words: np.ndarray, states: list[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Returns the probabilities of the next words, and the states after these words."""
        said, *after = self._read_word.predict_on_batch([words[:, None], *states])
        return _float32(said), [_float32(state) for state in after]


def _float32(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float32)


# NeuralTalk draws all its matrices so. One initializer would draw the same twice.
def _uniform() -> Any:
    return keras.initializers.RandomUniform(-0.1, 0.1)


def _image_embedding(size: int) -> Any:
    return layers.Dense(size, kernel_initializer=_uniform(), name="image_embedding")


def _word_embedding(words: int, size: int) -> Any:
    # Nothing is masked: positions after the end come last, and the loss gives them no weight.
    return layers.Embedding(words, size, embeddings_initializer=_uniform(), name="word_embedding")


def _lstm(size: int, **options: bool) -> Any:
    draws = {"kernel_initializer": _uniform(), "recurrent_initializer": _uniform()}
    return layers.LSTM(size, name="lstm", **draws, **options)


def _decoder(words: int) -> Any:
    return layers.Dense(words, kernel_initializer=_uniform(), name="decoder")
