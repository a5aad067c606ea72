"""Learning rates inside a phase: shapes, functions of the step, and what they are refused for."""

import copy
import math
import pickle

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.algorithm import learning_rates
from keras_dsd.algorithm.learning_rates import Decay, StepFunction
from keras_dsd.algorithm.timeline import Timeline

D, S = dsd.DensePhase, dsd.SparsePhase


class Schedule:
    """As a Keras schedule: callable, with a config."""

    def __init__(self, first, rate):
        self.first, self.rate = first, rate

    def __call__(self, step):
        return np.float32(self.first * self.rate**step)

    def get_config(self):
        return {"first": self.first, "rate": self.rate, "name": None}


# What each shape says at update i of n, written down once more.
def cosine(i, n, start, end):
    return end + (start - end) * 0.5 * (1 + np.cos(np.pi * min(i, n) / n))


def linear(i, n, start, end):
    return start * (1 - min(i, n) / n) + end * min(i, n) / n


def steps(i, n, start, drop, boundaries):
    return start * np.prod([drop if i >= n * each else 1 for each in boundaries])


CASES = {
    "cosine": (lambda i: cosine(i, 12, 1, 0)),
    "linear": (lambda i: linear(i, 12, 1, 0)),
    "steps": (lambda i: steps(i, 12, 1, 0.1, (1 / 3, 2 / 3))),
    Decay("cosine", start=0.1, end=0.001): (lambda i: cosine(i, 12, 0.1, 0.001)),
    Decay("linear", start=0.0, end=0.5): (lambda i: linear(i, 12, 0, 0.5)),
    Decay("steps", start=0.2, boundaries=[0.5, 0.75], drop=0.5): (
        lambda i: steps(i, 12, 0.2, 0.5, (0.5, 0.75))
    ),
    Decay("constant", start=0.3): (lambda i: 0.3),
    Schedule(0.5, 0.9): (lambda i: 0.5 * 0.9**i),
    0.7: (lambda i: 0.7),
}  # fmt: skip


@pytest.mark.parametrize("lr", CASES, ids=str)
@pytest.mark.parametrize("phase", [D, S])
def test_factors_of_updates(phase, lr):
    """After the phase's last update, a shape stays where it was to end."""
    found = learning_rates.factors(phase(3, lr=lr).lr, range(15), 12)
    assert found.dtype == np.float64
    assert found == pytest.approx([CASES[lr](i) for i in range(15)], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("lr", CASES, ids=str)
def test_a_run_that_resumes_has_the_same_bits(lr):
    lr = D(1, lr=lr).lr
    whole = learning_rates.factors(lr, range(15), 12)
    for first in range(15):
        part = learning_rates.factors(lr, range(first, 15), 12)
        assert part.tobytes() == whole[first:].tobytes()


def test_keras_cosine_is_this_one():
    """`CosineDecay(1.0, decay_steps=n, alpha=a)`, as its documentation gives it."""
    for i in range(20):
        decayed = 0.9 * 0.5 * (1 + math.cos(math.pi * i / 20)) + 0.1
        assert Decay("cosine", end=0.1)(i / 20) == pytest.approx(decayed)


def test_what_is_constant_is_a_number():
    assert D(1, lr="constant") == D(1) and D(1, lr="constant").lr == 1.0
    assert D(1, lr=Decay("constant", start=0.1)) == D(1, lr=0.1)


def test_phases_are_values():
    assert D(1, lr="cosine") == D(1, lr=Decay("cosine")) != D(1, lr="linear")
    one, same, other = (D(1, lr=Schedule(*each)) for each in ((1, 0.9), (1, 0.9), (1, 0.8)))
    assert one == same != other and hash(one) == hash(same)
    assert D(1, lr=float.__abs__) == D(1, lr=float.__abs__) != D(1, lr=abs)
    assert D(1, lr=lambda step: 1) != D(1, lr=lambda step: 1)
    for each in (one, D(1, lr="steps")):
        assert copy.deepcopy(each) == each == pickle.loads(pickle.dumps(each))
        assert dsd.DSDSchedule(phases=[each]).timeline == Timeline([each])
    assert StepFunction(abs) != abs


@pytest.mark.parametrize(("lr", "text"), [
    ("cosine", "at 1 to 0 (cosine) times the learning rate"),
    (Decay("linear", start=0.1, end=0.001), "at 0.1 to 0.001 (linear) times the learning rate"),
    ("steps", "at 1 to 0.01 (steps at 0.333, 0.667) times the learning rate"),
    (Schedule(1.0, 0.9), "at Schedule(first=1.0, rate=0.9) times the learning rate"),
    (math.sqrt, "at sqrt times the learning rate"),
])  # fmt: skip
def test_a_timeline_reads_as_a_line(lr, text):
    assert str(Timeline([D(2, lr=lr)])) == f"dense for 2 epochs {text}"


@pytest.mark.parametrize(("make", "error", "said"), [
    (lambda: D(1, lr="cos"), ValueError, "`lr` to be 'constant', 'cosine'.*lr='cos'.*a Decay"),
    (lambda: D(1, lr=Schedule), TypeError, "`lr` to be a factor, or a fun.*an object of it"),
    (lambda: dsd.DSDSchedule(1, 1, 1, redense_lr="cos"), ValueError, "`redense_lr` to be 'con"),
    (lambda: Decay("cos"), ValueError, "`shape` to be 'constant'.*shape='cos'"),
    (lambda: Decay("steps", end=0.1), ValueError, "`end` to be left out.*shape='steps'.*=0.1"),
    (lambda: Decay("cosine", drop=0.1), ValueError, "`drop` to be left out"),
    (lambda: Decay("linear", boundaries=(0.1,)), ValueError, "`boundaries` to be left out"),
    (lambda: Decay("cosine", start=0), ValueError, "`start` to be finite and above 0"),
    (lambda: Decay("cosine", end=-1), ValueError, "`end` to be finite and at least 0"),
    (lambda: Decay("steps", start=0), ValueError, "`start`.*above 0"),
    (lambda: Decay("steps", boundaries=(0.5, 0.5)), ValueError, r"`boundaries` to rise in \(0, 1"),
    (lambda: Decay("steps", boundaries=()), ValueError, "`boundaries` to rise"),
    (lambda: Decay("steps", boundaries=(0, 0.5)), ValueError, "`boundaries` to rise"),
    (lambda: Decay("steps", boundaries=0.5), TypeError, "`boundaries` to be a list of fractions"),
    (lambda: Decay("steps", boundaries=(0.5, 1)), ValueError, r"`boundaries\[1\]` to be in"),
    (lambda: StepFunction(lambda step: "a")(3), TypeError, r"`lr\(3\)` to be a number"),
    (lambda: StepFunction(lambda step: None)(0), TypeError, r"`lr\(0\)` to be a number"),
    (lambda: StepFunction(lambda step: -0.1)(2), ValueError, r"`lr\(2\)`.*at least 0.*=-0.1"),
    (lambda: StepFunction(lambda step: math.nan)(0), ValueError, r"finite.*lr\(0\)=nan"),
])  # fmt: skip
def test_errors(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_curves_for_figures():
    assert learning_rates.curve(0.1) == ([0.0, 1.0], [0.1, 0.1])
    fractions, found = learning_rates.curve(Decay("linear", end=0.5), points=3)
    assert fractions == [0, 0.5, 1] and found == [1, 0.75, 0.5]
    fractions, found = learning_rates.curve(Decay("steps", boundaries=(0.25, 0.5)))
    assert fractions == [0, 0.25, 0.25, 0.5, 0.5, 1]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    halved = StepFunction(Schedule(1, 0.5))
    assert learning_rates.curve(halved) == ([], [])
    assert learning_rates.curve(halved, 4, points=3) == ([0, 0.5, 1], [1, 0.25, 0.0625])
