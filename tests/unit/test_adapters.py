"""Code that both adapters share is in adapters/base alone."""

import itertools
import pathlib
import re

import keras_dsd
from keras_dsd.adapters.base import private_names

ADAPTERS = pathlib.Path(keras_dsd.__file__).parent / "adapters"
MOST_ALIKE = 5


def runs_of(package):
    """Returns every run of lines, one longer than may be alike, without indents and blank lines."""
    found = set()
    for path in (ADAPTERS / package).rglob("*.py"):
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [line for line in lines if line]
        found |= {*zip(*(lines[i:] for i in range(MOST_ALIKE + 1)), strict=False)}
    return found


def test_nothing_stands_in_both_adapters():
    ours = {package: runs_of(package) for package in ("keras3", "tf_keras", "base")}
    assert all(len(runs) > 100 for runs in ours.values())
    for one, other in itertools.combinations(ours.values(), 2):
        assert not one & other


class Bare:
    """An optimizer, a model and a variable of a version that lacks every private name."""

    handle = None


def test_what_is_done_without_private_names():
    bare, variable = Bare(), object()
    assert private_names.given_rate(bare) is None
    assert private_names.key_of(bare, variable) == id(variable)
    assert private_names.index_of(bare, variable) is None
    bare._trainable_variables = [object(), variable]
    assert private_names.index_of(bare, variable) == 1
    assert private_names.jit_compile_of(bare) == "auto"
    assert private_names.is_debugged() is False
    assert private_names.strategy_of(bare) is None
    assert private_names.whole_of(bare) is bare
    assert private_names.unique_id_of(bare) == id(bare)


def test_private_names_of_optimizers_stand_in_one_module():
    home = ADAPTERS / "base" / "private_names.py"
    names = set(re.findall(r'"(_[a-z_]+)"', home.read_text(encoding="utf-8")))
    assert len(names) > 12
    # An attribute of the same name as one of an optimizer's: that of a layer.
    elsewhere = {"_trainable_variables", "_compile_config"}
    for path in ADAPTERS.rglob("*.py"):
        if path != home:
            used = set(re.findall(r"\b_[a-z_]+\b", path.read_text(encoding="utf-8")))
            assert not used & names - elsewhere, path
