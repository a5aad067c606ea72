"""What both adapters do the same stands once, in adapters/base."""

import itertools
import pathlib

import keras_dsd

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
