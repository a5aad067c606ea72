"""Letters, CTC's loss, decoding and error rates, against all alignments where there are few."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, logsumexp

from tests.helpers.paths import keras

pytest.importorskip("jiwer", reason="needs jiwer: make recipes")

from recipes import transcribing

A, B = transcribing.encode("ab")
BLANK = transcribing.BLANK


def text_of(alignment):
    """Returns what an alignment says, by CTC's rule."""
    return transcribing.decode([c for c, _ in itertools.groupby(alignment) if c != BLANK])


def likelihoods(logits):
    """Returns the logarithm of each text's probability: all alignments of a, b and blank."""
    scores = log_softmax(np.asarray(logits, "float64"), axis=-1)
    of_text = {}
    for alignment in itertools.product((A, B, BLANK), repeat=len(scores)):
        score = sum(frame[c] for frame, c in zip(scores, alignment, strict=True))
        of_text.setdefault(text_of(alignment), []).append(score)
    return {text: logsumexp(found) for text, found in of_text.items()}


def logits_of(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (*shape, BLANK + 1)).astype("float32")


def packed(num_frames, texts, width=4):
    letters = np.full((len(texts), width), 3)  # what pads counts for nothing
    for row, text in zip(letters, texts, strict=True):
        row[: len(text)] = transcribing.encode(text)
    return np.column_stack([num_frames, [len(text) for text in texts], letters]).astype("int32")


def loss(packed_rows, logits):
    logits = keras.backend.constant(logits) if hasattr(keras.backend, "constant") else logits
    value = transcribing.ctc_loss(packed_rows, logits)
    return np.array(keras.ops.convert_to_numpy(value) if hasattr(keras, "ops") else value)


def test_letters_there_and_back():
    assert transcribing.encode("'  az ") == [0, 1, 2, 27]
    assert transcribing.decode(transcribing.encode(" It's\n SO  ")) == "it's so"
    assert transcribing.encode("") == []


def test_characters_that_are_not_letters():
    with pytest.raises(ValueError, match=r"Expected letters a to z.*Received: '\.2' in 'Take 2\.'"):
        transcribing.encode("Take 2.")


@pytest.mark.parametrize(("text", "frames"), [("", 0), ("abc", 3), ("aab", 4), ("aaa", 5)])
def test_frames_that_a_text_takes(text, frames):
    assert transcribing.frames_needed(transcribing.encode(text)) == frames


@pytest.mark.parametrize("devices", [[], ["GPU"]])
def test_loss_is_that_of_all_alignments(devices, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    texts, num_frames = ["ab", "aab", "b", "aa"], [5, 5, 3, 4]
    logits = logits_of(4, 5)
    expected = [
        -likelihoods(frames[:number])[text]
        for frames, number, text in zip(logits, num_frames, texts, strict=True)
    ]
    np.testing.assert_allclose(loss(packed(num_frames, texts), logits), expected, rtol=1e-5)


def test_more_padding_leaves_the_loss():
    logits = logits_of(2, 5)
    longer = np.concatenate([logits, logits_of(2, 3, seed=1)], axis=1)
    short, long = packed([5, 4], ["ab", "aa"]), packed([5, 4], ["ab", "aa"], width=9)
    np.testing.assert_allclose(loss(long, longer), loss(short, logits), rtol=1e-6)


def test_loss_of_floats():
    rows, logits = packed([5], ["ab"]), logits_of(1, 5)
    assert loss(rows.astype("float32"), logits) == loss(rows, logits)


def test_greedy():
    best = [A, A, BLANK, A, B, BLANK, BLANK]
    logits = np.eye(BLANK + 1)[[best, best]]
    assert transcribing.transcribe(logits, [7, 3]) == ["aab", "a"]
    assert transcribing.transcribe(logits[:, 2:3], [1, 1]) == ["", ""]


@pytest.mark.parametrize("seed", range(5))
def test_beam_search_finds_the_likeliest_text(seed):
    logits = logits_of(1, 5, seed=seed) / 4
    logits[..., [c for c in range(BLANK) if c not in (A, B)]] = -100
    of_text = likelihoods(logits[0])
    assert transcribing.transcribe(logits, [5], beam_width=100) == [max(of_text, key=of_text.get)]


def test_beam_search_adds_up_alignments():
    # Blank twice is the likeliest alignment, yet a has three: 0.24 + 0.24 + 0.16.
    logits = np.full((1, 2, BLANK + 1), -100.0)
    logits[..., A], logits[..., BLANK] = np.log(0.4), np.log(0.6)
    assert transcribing.transcribe(logits, [2]) == [""]
    assert transcribing.transcribe(logits, [2], beam_width=10) == ["a"]


def test_packed_and_unpacked():
    rows = packed([5, 4], ["it's", ""], width=6)
    parts = transcribing.pack(rows[:, 0], rows[:, 1], rows[:, 2:])
    num_frames, texts = transcribing.unpack(parts)
    assert (num_frames.tolist(), texts) == ([5, 4], ["it's", ""])


@pytest.mark.parametrize(
    ("spoken", "heard", "wer", "cer"),
    [
        (["set red now"], ["set red now"], 0, 0),
        (["set red now", "a"], ["set red", "b"], 50, 100 * 5 / 12),
        (["set red now"], [""], 100, 100),
        (["ab", ""], ["ab", "c"], 100, 50),
    ],
)
def test_error_rates(spoken, heard, wer, cer):
    assert transcribing.error_rates(spoken, heard) == pytest.approx({"WER": wer, "CER": cer})
