"""Updates wait for the last one of a list, and none is lost."""

import pytest

from keras_dsd.adapters.base.joined_updates import COMPILED_SIZE, JOINED_SIZE, Together


def test_updates_that_wait_are_made_once_with_the_last_one():
    made = []
    together = Together(made.append)
    with together.up_to("c"):
        for key in "ab":
            together.add(1, key)
            together.passed(key)
            assert made == []
        together.passed("c")
        assert made == [["a", "b"]]
        assert not together.is_open, "what comes after the last one is made at once"
    assert made == [["a", "b"]]


def test_updates_are_made_where_the_last_one_is_left_out():
    made = []
    together = Together(made.append)
    with together.up_to("c"):
        together.add(1, "a")
    assert made == [["a"]]


def test_nothing_waits_outside_of_a_list():
    together = Together(pytest.fail)
    assert not together.is_open
    with together.up_to("a"):
        assert together.is_open
        together.passed("a")
    together.passed("a")


def test_updates_of_a_list_that_failed_are_forgotten():
    made = []
    together = Together(made.append)
    with pytest.raises(RuntimeError), together.up_to("b"):
        together.add(1, "a")
        raise RuntimeError
    assert not together.is_open
    with together.up_to("b"):
        together.passed("b")
    assert made == []


@pytest.mark.parametrize(
    ("size", "is_whole", "alone", "in_a_list"),
    [
        (JOINED_SIZE - 1, True, False, False), (JOINED_SIZE, True, False, True),
        (JOINED_SIZE, False, False, False), (COMPILED_SIZE, False, True, True),
    ],
)  # fmt: skip
def test_more_updates_are_worth_compiling_with_others(size, is_whole, alone, in_a_list):
    together = Together(pytest.fail)
    assert together.takes(size, is_whole) == alone
    with together.up_to("a"):
        assert together.takes(size, is_whole) == in_a_list


def test_that_of_a_large_tensor_does_not_wait():
    made = []
    together = Together(made.append)
    with together.up_to("b"):
        together.add(COMPILED_SIZE, "a")
        assert made == [["a"]]
    assert made == [["a"]]
