"""Sparsity of each weight, or the reason for none."""

import re
import types

import pytest

from keras_dsd.algorithm import selection
from keras_dsd.algorithm.selection import Selection


def weight(path):
    return types.SimpleNamespace(path=path)


def test_the_first_match_wins_and_exclusion_comes_before():
    chosen = Selection({"conv": 0.2, "kernel": 0.5}, exclude=["head"])
    assert chosen.choose(weight("conv/kernel")) == (0.2, None)
    assert chosen.choose(weight("dense/kernel")) == (0.5, None)
    assert chosen.choose(weight("head/kernel")) == (0.0, selection.EXCLUDED)
    assert chosen.choose(weight("embeddings")) == (0.0, selection.NO_MATCH)


def test_expressions_are_searched_not_matched_whole():
    chosen = Selection({r"^a/.*kernel$": 0.2, r"b\d": 0.4})
    assert chosen.choose(weight("a/x/kernel")) == (0.2, None)
    assert chosen.choose(weight("z/b7/kernel")) == (0.4, None)
    assert chosen.choose(weight("z/a/kernel")) == (0.0, selection.NO_MATCH)


def test_frozen_weights_need_to_be_named():
    assert Selection(0.3).choose(weight("w"), selection.FROZEN) == (0.0, selection.FROZEN)
    frozen = Selection(lambda w: 0.3).choose(weight("w"), selection.FROZEN)
    assert frozen == (0.0, selection.FROZEN)
    matched = Selection({"a/.": 0.3}).choose(weight("a/w"), selection.FROZEN)
    assert matched == (0.0, selection.FROZEN)
    assert Selection({"a/w": 0.3}).choose(weight("a/w"), selection.FROZEN) == (0.3, None)


@pytest.mark.parametrize("path", ["a/w", "c++/w", "a[1]/(b)/w", "a.b/$^"])
def test_a_path_that_is_escaped_is_given_whole_and_no_longer_one(path):
    chosen = Selection({"^" + re.escape(path) + "$": 0.3})
    assert chosen.choose(weight(path), selection.FROZEN) == (0.3, None)
    for longer in (f"model/{path}", f"{path}_1"):
        assert chosen.choose(weight(longer)) == (0.0, selection.NO_MATCH)


def test_zero_leaves_dense():
    assert Selection({"w": 0}).choose(weight("w")) == (0.0, selection.ZERO_SPARSITY)
    assert Selection(lambda w: 0.0).choose(weight("w")) == (0.0, selection.ZERO_SPARSITY)


def test_patterns_that_matched_nothing_are_named():
    chosen = Selection({"a": 0.1, "b": 0.2}, exclude=["c"])
    chosen.choose(weight("a"))
    assert chosen.unmatched == ("b", "c")
    with pytest.raises(ValueError, match=r"`sparsity`.*pattern='b', which matches none of \['x'\]"):
        selection.refuse_unmatched(chosen, ["x"])
    chosen.see(["b"])
    with pytest.raises(ValueError, match="`exclude`.*pattern='c'"):
        selection.refuse_unmatched(chosen, [])
    selection.refuse_unmatched(chosen, ["c"])


@pytest.mark.parametrize(("sparsity", "written"), [
    (0.3, 0.3), ({"a": 0.5, "b": 0}, {"a": 0.5, "b": 0.0}), (lambda w: 0.5, None),
])  # fmt: skip
def test_config_round_trip(sparsity, written):
    config = Selection(sparsity, exclude=["x", "y"]).get_config()
    layout = {"pattern": None, "scope": "layer"}
    assert config == {"sparsity": written, "exclude": ["x", "y"], **layout}
    again = Selection.from_config(config)
    assert again.exclude == ("x", "y")
    assert again.get_config()["sparsity"] == ({} if written is None else written)


REST = [("bert/words", 600, selection.UNKNOWN_LAYER), ("bert/a/kernel", 90, selection.NOT_LINEAR),
        ("bert/a/other", 10, selection.NOT_LINEAR), ("head/kernel", 50, selection.TOO_SMALL),
        ("top/kernel", 40, selection.DEPTHWISE)]  # fmt: skip


def test_the_layers_that_hold_the_rest_are_named_largest_first():
    message = selection.rest_message(Selection(), "net", 10, REST)
    assert "model='net' is selected: 10 of 800 weights in tensors of two or more axes" in message
    assert "1.25%. The rest is in bert with 600 (unknown layer type: " in message
    places = [message.index(part) for part in ("bert with 600", "bert/a with 100", "head with 50")]
    assert places == sorted(places) and "; and 1 more, and stays dense" in message


@pytest.mark.parametrize(("selected", "rest"), [
    (800, REST), (0, []),
    (1, [("w", 9, reason) for reason in (
        selection.FROZEN, selection.LORA, selection.QUANTISED, selection.EXCLUDED,
        selection.NO_MATCH, selection.ZERO_SPARSITY, selection.ONE_LAYER, selection.UNTRAINED)]),
], ids=["half", "nothing", "on purpose"])  # fmt: skip
def test_half_is_enough_and_what_was_left_on_purpose_does_not_count(selected, rest):
    assert selection.rest_message(Selection(), "net", selected, rest) is None


@pytest.mark.parametrize("chosen", [
    Selection(exclude=["bert"]), Selection({"head|top": 0.5}), Selection({"bert": 0, ".": 0.5}),
], ids=["excluded", "no match", "zero"])  # fmt: skip
def test_neither_does_what_the_arguments_leave_dense_in_layers_of_unknown_types(chosen):
    assert selection.rest_message(chosen, "net", 95, REST) is None
    assert selection.rest_message(chosen, "net", 80, REST).count(" with ") == 2
