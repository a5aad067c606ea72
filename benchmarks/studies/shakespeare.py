"""Studies on Shakespeare's works, letter by letter: an LSTM and a small transformer.

$STUDY_DATA is the folder of shakespeare.txt. Its first nine tenths are trained on, the next
twentieth is chosen by and the last reported on. An epoch is a pass over windows of letters, one
after another.

    STUDY_DATA=data python benchmarks/studies/shakespeare.py --only=char-lstm
"""

import functools
import math
import os
import pathlib

import numpy as np
from study import Task, keras, main

layers = keras.layers
WINDOW = 64
NUM_LETTERS = 96


def lstm():
    letters = layers.Input((WINDOW,), dtype="int32")
    x = layers.Embedding(NUM_LETTERS, 32)(letters)
    x = layers.LSTM(128, return_sequences=True)(x)
    return compiled(letters, x)


class Position(layers.Layer):
    """Adds a vector that is trained for each place."""

    def build(self, shape):
        """Makes the vectors, for inputs of (batch, places, width)."""
        self.places = self.add_weight(shape=shape[1:], initializer="random_normal", name="position")

    def call(self, x):
        """Returns the sum."""
        return x + self.places


def transformer(width=64, heads=4, blocks=2):
    letters = layers.Input((WINDOW,), dtype="int32")
    x = Position()(layers.Embedding(NUM_LETTERS, width)(letters))
    for _ in range(blocks):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(heads, width // heads)(y, y, use_causal_mask=True)
        y = layers.Dense(4 * width, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(width)(y)
    return compiled(letters, layers.LayerNormalization()(x))


def compiled(letters, x):
    model = keras.Model(letters, layers.Dense(NUM_LETTERS)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    return model


def read(num_letters):
    """Returns windows of letters, and the letter after each of them."""
    text = pathlib.Path(os.environ["STUDY_DATA"], "shakespeare.txt").read_text(encoding="utf-8")
    names = {letter: index for index, letter in enumerate(sorted(set(text)))}
    letters = np.array([names[letter] for letter in text], "int32")
    if len(names) > NUM_LETTERS:
        raise ValueError(f"Expected {NUM_LETTERS} letters at most. Received: {len(names)}.")
    ends = [round(len(letters) * share) for share in (0.9, 0.95, 1.0)]
    train, validation, test = np.split(letters, ends[:2])
    parts = {"train": train[:num_letters], "validation": validation, "test": test}
    return {name: windows(part) for name, part in parts.items()}


def windows(letters):
    count = (len(letters) - 1) // WINDOW
    x = letters[: count * WINDOW].reshape(count, WINDOW)
    y = letters[1 : count * WINDOW + 1].reshape(count, WINDOW)
    return x, y


def bits(model, part):
    """Returns the bits that the model needs for a letter."""
    return model.evaluate(*part, batch_size=256, verbose=0) / math.log(2)


def task(name, build, words, num_letters, phases):
    return Task(
        name,
        f"Shakespeare's works, {num_letters:,} letters to train on, 223,000 to choose by, as many "
        f"to report on, in windows of {WINDOW}; {words}; Adam at 0.002",
        build, functools.partial(read, num_letters), bits, "bits a letter", phases,
        batch_size=64, sparsities=(0.3, 0.5, 0.7),
    )  # fmt: skip


TASKS = [
    task("char-lstm", lstm, "an LSTM of 128 units", 1_000_000, (4, 4, 4)),
    task("char-transformer", transformer, "a transformer of 2 blocks", 1_000_000, (4, 4, 4)),
]

if __name__ == "__main__":
    main(TASKS)
