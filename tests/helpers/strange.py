"""Values that nobody should give, and what has to come of them."""

import decimal
import fractions

import numpy as np
from hypothesis import strategies as st


class RaisingRepr:
    def __repr__(self):
        raise KeyError("repr")


class RaisingEquality:
    __hash__ = None

    def __eq__(self, other):
        raise KeyError("eq")

    def __bool__(self):
        raise KeyError("bool")


class RaisingLength(list):
    def __len__(self):
        raise AttributeError("len")


class RaisingIteration(list):
    def __iter__(self):
        raise KeyError("iter")


class RaisingItems(dict):
    def items(self):
        raise RuntimeError("items")


class RaisingFloat(float):
    def __float__(self):
        raise AttributeError("float")


class RaisingPath:
    def __fspath__(self):
        raise KeyError("fspath")


def nested(depth=100_000):
    outer = inner = []
    for _ in range(depth):
        inner.append([])
        inner = inner[0]
    return outer


def within_itself():
    value = []
    value.append(value)
    return value


# Created for each example: reading changes some of them.
MAKERS = [
    object, RaisingRepr, RaisingEquality, nested, within_itself, RaisingPath,
    lambda: [RaisingRepr()], lambda: {"": RaisingRepr()}, lambda: RaisingLength([0.5]),
    lambda: RaisingIteration([0.5]), lambda: RaisingItems(a=1), lambda: RaisingFloat(0.3),
    lambda: iter([0.5]), lambda: range(3), lambda: ..., lambda: np, lambda: type,
    lambda: 10**400, lambda: -(10**5000), lambda: float("nan"), lambda: -float("inf"),
    lambda: 1j, lambda: fractions.Fraction(1, 3), lambda: fractions.Fraction(10**400),
    lambda: decimal.Decimal("0.3"), lambda: np.int8(127), lambda: np.float16("inf"),
    lambda: np.float32(0.3), lambda: np.bool_(True), lambda: np.array(0.3),
    lambda: np.array([0.1, 0.2]), lambda: np.array([]), lambda: np.datetime64("2017-01-01"),
    lambda: "a" * 100_000, lambda: "a" * 300, lambda: "a\0b", lambda: "\ud800", lambda: "(",
    lambda: ["a{99999999999999999999}"], lambda: ["(" * 5000 + ")" * 5000], lambda: {"(": 0.3},
    lambda: {"dense": 2}, lambda: {"dense": None}, lambda: {1: 0.3}, lambda: {"dense": 10**400},
]  # fmt: skip

_PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9),
    st.binary(max_size=3), st.sampled_from(MAKERS).map(lambda make: make()),
)  # fmt: skip


def values():
    """Anything: numbers, text, and odd objects; alone, or in lists, tuples, sets and dicts."""
    return st.one_of(
        st.sampled_from(MAKERS).map(lambda make: make()),
        _PLAIN,
        st.lists(_PLAIN, max_size=3),
        st.lists(_PLAIN, max_size=3).map(tuple),
        st.sets(st.integers(), max_size=3),
        st.dictionaries(st.text(max_size=5), _PLAIN, max_size=2),
    )


def is_refused(call):
    """Returns whether a call is refused, and then as it should be; anything else comes out."""
    try:
        call()
    except (TypeError, ValueError) as error:
        said = str(error)
        assert type(error) in (TypeError, ValueError), f"{type(error).__name__}: {said}"
        assert "Expected" in said and "Received: " in said, said
        assert len(said) < 2000
        return True
    return False
