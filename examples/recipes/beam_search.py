"""Beam search over sentences, for any model that predicts the next word."""

from collections.abc import Callable
from typing import Any

import numpy as np

State = Any
# Takes the last word of each sentence, int32 (sentences,), and the states before it; returns the
# probabilities of the next word, (sentences, words), and the states after it.
Step = Callable[[np.ndarray, list[np.ndarray]], tuple[np.ndarray, list[np.ndarray]]]


def search(
    step: Step, states: list[np.ndarray], *, beam_size: int, max_words: int, mark: int = 0
) -> tuple[list[list[int]], np.ndarray]:
    """Returns the most probable sentence of a beam for each image.

    As in NeuralTalk: a sentence's score is the sum of its words' log-probabilities, which is not
    divided by its length; a finished sentence stays in the beam and competes with unfinished
    ones; and after `max_words` steps the best one is returned, finished or not.

    Args:
        step: Returns the probabilities of the next word.
        states: Its initial states, arrays of shape (images, ...).
        beam_size: Number of sentences in the beam of each image.
        max_words: Maximum number of words, including the end.
        mark: The id that starts and ends a sentence.

    Returns:
        The ids of each image's words, without the mark; and their scores, float64.
    """
    num = len(states[0])
    states = [np.repeat(state, beam_size, axis=0) for state in states]
    # All beams start equal, so only the first of them is extended.
    scores = np.where(np.arange(beam_size) == 0, 0.0, -np.inf)[None].repeat(num, axis=0)
    words = np.full((num, beam_size, max_words + 1), mark, np.int32)
    ended = np.zeros((num, beam_size), bool)
    for position in range(max_words):
        probabilities, states = step(words[:, :, position].reshape(-1), states)
        logs = np.log(np.maximum(np.asarray(probabilities, np.float64), 1e-20))
        logs = logs.reshape(num, beam_size, -1)
        logs[ended] = -np.inf
        logs[ended, mark] = 0.0  # a finished sentence is one candidate, unchanged
        candidates = (scores[:, :, None] + logs).reshape(num, -1)
        best = _largest(candidates, beam_size)
        beams, chosen = np.divmod(best, logs.shape[-1])
        scores = np.take_along_axis(candidates, best, axis=1)
        words = np.take_along_axis(words, beams[:, :, None], axis=1)
        words[:, :, position + 1] = chosen
        ended = chosen == mark  # that of a finished one is the mark again
        rows = (np.arange(num)[:, None] * beam_size + beams).reshape(-1)
        states = [state[rows] for state in states]
        if ended[:, 0].all():  # scores only fall, so nothing can overtake the first
            break
    found = [[int(word) for word in row if word != mark] for row in words[:, 0]]
    return found, scores[:, 0]


def _largest(candidates: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the `count` largest of each row, in falling order."""
    if count < candidates.shape[1]:
        some = np.argpartition(-candidates, count - 1, axis=1)[:, :count]
    else:
        some = np.arange(candidates.shape[1])[None].repeat(len(candidates), axis=0)
    order = np.argsort(-np.take_along_axis(candidates, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)
