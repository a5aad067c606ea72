"""Updates wait for the last one of a list, and none is lost."""

import pytest

from keras_dsd.together import Together


def test_updates_that_wait_are_made_once_with_the_last_one():
    made = []
    together = Together(made.append)
    with together.up_to("c"):
        for key in "ab":
            together.wait(key)
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
        together.wait("a")
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
        together.wait("a")
        raise RuntimeError
    assert not together.is_open
    with together.up_to("b"):
        together.passed("b")
    assert made == []
