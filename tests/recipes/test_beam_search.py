"""Beam search, on distributions whose every sentence can be counted out."""

import itertools

import numpy as np
import pytest

from recipes.beam_search import search

pytestmark = pytest.mark.only_on("tensorflow")

WORDS = 4  # 0 ends a sentence


class Grammar:
    """A random distribution of the next word after each start of a sentence, for each image."""

    def __init__(self, images, seed):
        self._seed = seed
        self.start = [np.arange(images)[:, None], np.ones((images, 1), int)]

    def after(self, image, code):
        random = np.random.default_rng([self._seed, int(image), int(code)])
        return random.dirichlet(np.full(WORDS, 0.7))

    def step(self, words, states):
        images, codes = states
        codes = codes * WORDS + words[:, None]
        said = [self.after(*row) for row in np.concatenate([images, codes], axis=1)]
        return np.array(said), [images, codes]

    def score(self, image, sentence):
        """Returns the log-probability of a sentence, whose end counts if it is there."""
        code, total = WORDS, 0.0
        for word in sentence:
            total += np.log(self.after(image, code)[word])
            code = code * WORDS + word
        return total


def every_sentence(longest):
    """All that are over after at most so many steps: ended, or as long as may be."""
    for length in range(longest + 1):
        for words in itertools.product(range(1, WORDS), repeat=length):
            yield (*words, 0) if length < longest else words


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_what_counting_out_finds(seed):
    grammar = Grammar(3, seed)
    found, scores = search(grammar.step, grammar.start, beam_size=200, max_words=4)
    for image in range(3):
        best = max(every_sentence(4), key=lambda sentence: grammar.score(image, sentence))
        assert found[image] == [word for word in best if word]
        assert scores[image] == pytest.approx(grammar.score(image, best), abs=1e-12)


def plain_search(grammar, image, beam_size, max_words):
    """NeuralTalk's search, one sentence at a time."""
    beams = [(0.0, ())]
    for _ in range(max_words):
        candidates = []
        for score, words in beams:
            if words[-1:] == (0,):
                candidates.append((score, words))
                continue
            for word in range(WORDS):
                longer = (*words, word)
                candidates.append((grammar.score(image, longer), longer))
        beams = sorted(candidates, reverse=True)[:beam_size]
    return beams[0]


@pytest.mark.parametrize("beam_size", [1, 2, 3, 7])
def test_a_narrow_beam_finds_what_neuraltalk_finds(beam_size):
    grammar = Grammar(40, 11)
    found, scores = search(grammar.step, grammar.start, beam_size=beam_size, max_words=5)
    for image in range(40):
        score, words = plain_search(grammar, image, beam_size, 5)
        assert found[image] == [word for word in words if word]
        assert scores[image] == pytest.approx(score, abs=1e-12)


def test_a_wider_beam_sees_past_the_likelier_first_word():
    # After 1 all is open; after 2 the sentence is nearly sure to end.
    table = {0: [0, 0.6, 0.4, 0], 1: [0.25, 0.25, 0.25, 0.25], 2: [0.97, 0.01, 0.01, 0.01]}

    def step(words, states):
        return np.array([table.get(word, table[1]) for word in words]), states

    start = [np.zeros((1, 1))]
    greedy, score = search(step, start, beam_size=1, max_words=2)
    assert greedy == [[1]]
    assert score[0] == pytest.approx(np.log(0.6 * 0.25))
    wider, score = search(step, start, beam_size=2, max_words=2)
    assert wider == [[2]]
    assert score[0] == pytest.approx(np.log(0.4 * 0.97))


def test_a_sentence_that_does_not_end_is_cut():
    def step(words, states):
        return np.tile([0.1, 0.9], (len(words), 1)), states

    found, scores = search(step, [np.zeros((2, 1))], beam_size=1, max_words=3)
    assert found == [[1, 1, 1]] * 2
    assert scores == pytest.approx([3 * np.log(0.9)] * 2)


def test_search_ends_when_nothing_can_overtake():
    calls = []

    def step(words, states):
        calls.append(len(words))
        return np.tile([0.9, 0.1], (len(words), 1)), states

    found, _ = search(step, [np.zeros((2, 1))], beam_size=3, max_words=20)
    assert found == [[], []]
    assert calls == [6]
