"""Studies on Shakespeare's works, letter by letter: an LSTM, a small transformer, and an MLP.

$STUDY_DATA is the folder of shakespeare.txt. What is trained on is from its first nine tenths. The
last tenth is cut into a hundred stretches; every other one is chosen by, the rest reported on: of
two halves one would be plays, the other poems. An epoch is a pass over windows of letters: for the
MLP, which guesses the letter after a window, there is one at each letter; for the others, which
guess the next letter all along, one after another.

    STUDY_DATA=data python benchmarks/studies/shakespeare.py --only=char-lstm
"""

import dataclasses
import functools
import math
import os
import pathlib

import numpy as np
from study import Task, keras, main

layers = keras.layers
WINDOW = 64
CONTEXT = 40
NUM_LETTERS = 96


@dataclasses.dataclass(frozen=True)
class Text:
    """A text.

    Args:
        file: Its name in $STUDY_DATA.
        words: What it is.
        held_out: How many letters the MLP guesses to choose by, and to report on.
    """

    file: str
    words: str
    held_out: str


SHAKESPEARE = Text(
    "shakespeare.txt", "Shakespeare's works", "126,412 to choose by, 252,824 to report on"
)


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


def mlp(width=128, context=CONTEXT, optimizer="sgd"):
    letters = layers.Input((context,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(NUM_LETTERS, 8)(letters))
    found = {
        "sgd": keras.optimizers.SGD(0.1, momentum=0.9), "adam": keras.optimizers.Adam(1e-3),
    }  # fmt: skip
    return compiled(letters, layers.Dense(width, "relu")(x), found[optimizer])


def compiled(letters, x, optimizer=None):
    model = keras.Model(letters, layers.Dense(NUM_LETTERS)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(2e-3), loss)
    return model


@functools.cache  # every arm asks for them
def read(num_letters):
    """Returns windows of letters, and the letter after each of theirs."""
    return {name: windows(part) for name, part in parts(num_letters, SHAKESPEARE).items()}


@functools.cache
def read_contexts(num_letters, context=CONTEXT, text=SHAKESPEARE):
    """Returns a window before each letter, and the letter; of the validation part, every other."""
    result = {}
    for name, letters in parts(num_letters, text).items():
        every = np.lib.stride_tricks.sliding_window_view(letters, context + 1)
        every = every[:: 2 if name == "validation" else 1]
        result[name] = np.ascontiguousarray(every[:, :-1]), np.ascontiguousarray(every[:, -1])
    return result


def parts(num_letters, text):
    found = pathlib.Path(os.environ["STUDY_DATA"], text.file).read_text(encoding="utf-8")
    names = {letter: index for index, letter in enumerate(sorted(set(found)))}
    letters = np.array([names[letter] for letter in found], "int32")
    if len(names) > NUM_LETTERS:
        raise ValueError(f"Expected {NUM_LETTERS} letters at most. Received: {len(names)}.")
    train, held_out = np.split(letters, [round(0.9 * len(letters))])
    stretches = np.array_split(held_out, 100)
    validation, test = (np.concatenate(stretches[first::2]) for first in (0, 1))
    return {"train": train[:num_letters], "validation": validation, "test": test}


def windows(letters):
    count = (len(letters) - 1) // WINDOW
    x = letters[: count * WINDOW].reshape(count, WINDOW)
    y = letters[1 : count * WINDOW + 1].reshape(count, WINDOW)
    return x, y


def bits(model, part):
    """Returns the bits that the model needs for a letter."""
    x, y = part
    return model.evaluate(x, y, batch_size=256 * WINDOW // y[0].size, verbose=0) / math.log(2)


def task(name, build, words, num_letters):
    return Task(
        name,
        f"{SHAKESPEARE.words}, {num_letters:,} letters to train on, 252,864 to choose by, as many "
        f"to report on, in windows of {WINDOW}; {words}; Adam at 0.002",
        build, functools.partial(read, num_letters), bits, "bits a letter", (3, 3, 3),
        batch_size=64,
    )  # fmt: skip


def mlp_task(name, num_letters, width, text=SHAKESPEARE):
    return Task(
        name,
        f"{text.words}, {num_letters:,} letters to train on, {text.held_out}; an MLP that guesses "
        f"a letter from the {CONTEXT} before it, {width} units; SGD at 0.1 with momentum 0.9",
        functools.partial(mlp, width), functools.partial(read_contexts, num_letters, text=text),
        bits, "bits a letter", (4, 4, 4),
    )  # fmt: skip


TASKS = [
    task("char-lstm", lstm, "an LSTM of 128 units", 200_000),
    task("char-transformer", transformer, "a transformer of 2 blocks", 200_000),
    mlp_task("char-mlp-100k", 100_000, 128),
    mlp_task("char-mlp-300k", 300_000, 128),
]

if __name__ == "__main__":
    main(TASKS)
