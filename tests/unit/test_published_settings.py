"""The settings of the recipes are those of the paper's tables."""

import ast
import importlib
import sys

import pytest

from tests.helpers import pages

# Of Han et al., arXiv:1607.04381: sparsity, and epochs and first learning rate of each step.
TABLE = {
    "googlenet": ([0.3], [(60, 1e-2), (11, 1e-3), (22, 1e-4)]),
    "vgg16": ([0.3], [(74, 1e-2), (1.25, 1e-4), (18, 1e-5)]),
    "resnet18": ([0.3], [(90, 1e-1), (45, 1e-2), (45, 1e-3)]),
    "resnet50": ([0.3], [(90, 1e-1), (45, 1e-2), (45, 1e-3)]),
    "neuraltalk": ([0.8], [(19, 1e-2), (10, 1e-3), (6, 1e-4)]),
    "deepspeech": ([0.5, 0.25], [(50, 8e-4), (50, 5e-4), (50, 3e-4), (50, 1e-4), (50, 3e-5)]),
    "deepspeech2": ([0.5, 0.25], [(20, 3e-4), (20, 3e-4), (20, 3e-5), (20, 3e-5), (20, 6e-6)]),
}
EXAMPLES = pages.ROOT / "examples"
STEPS = ("dense", "sparse", "redense", "sparse2", "redense2")


NAMES = {"LATER", "RESIDUAL", "SPARSITIES", "DEFAULTS"}


def defaults_of(program):
    """The defaults of a program, which defines flags where it is imported."""
    tree = ast.parse((EXAMPLES / f"{program}.py").read_text(encoding="utf-8"))
    tree.body = [
        node for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in NAMES
    ]  # fmt: skip
    found = {}
    exec(compile(tree, program, "exec"), found)
    return found["DEFAULTS"]


@pytest.fixture(scope="module")
def parse():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        yield importlib.import_module("recipes.arms").parse


@pytest.fixture(scope="module")
def defaults():
    images, speech, caption = map(defaults_of, ("imagenet", "speech", "caption"))
    return {**images, **speech, "neuraltalk": caption}


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_has_the_settings_of_the_paper(defaults, parse, name):
    sparsities, steps = TABLE[name]
    given = defaults[name]
    assert [given[key] for key in ("sparsity", "sparsity2") if key in given] == sparsities
    found = [parse(given[step]) for step in STEPS if step in given]
    assert len(found) == len(steps)
    for parts, (epochs, rate) in zip(found, steps, strict=True):
        # Recipes count whole epochs.
        assert sum(length for length, _ in parts) == int(epochs)
        assert parts[0][1] * given["learning_rate"] == pytest.approx(rate)
