"""Every public name stands in the reference, whose pages are made of the docstrings."""

import re

import pytest

import keras_dsd
from tests.helpers import pages

# Not in __all__: the base class of custom observers.
FURTHER = {"observers.Observer"}
MODULES = ("exclusions", "plots", "timelines")
NAMES = [*keras_dsd.__all__, *(f"{m}.{n}" for m in MODULES for n in getattr(keras_dsd, m).__all__)]
REFERENCE = pages.ROOT / "docs" / "reference"


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_entry_and_the_index_leads_to_it(name):
    entry = f"::: keras_dsd.{name}"
    texts = {page.name: page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md")}
    lines = [(page, line) for page, text in texts.items() for line in text.splitlines()]
    found = [page for page, line in lines if line == entry]
    assert len(found) == 1
    assert f"[`{name}`]({found[0]}#keras_dsd.{name})" in texts["index.md"]


def test_the_index_names_nothing_that_is_not_public():
    index = (REFERENCE / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"\[`([\w.]+)`\]\(\w+\.md#keras_dsd\.([\w.]+)\)", index)
    assert {name for name, path in rows if name == path} == {*NAMES} | FURTHER
