"""Files around the package agree: versions, requirements, and the parts of CI."""

import configparser
import pathlib
import re

import keras_dsd

ROOT = pathlib.Path(__file__).resolve().parents[2]
# JAX and PyTorch users need none of these.
OF_TENSORFLOW = {"tensorflow", "tf_keras", "tensorflow-model-optimization", "setuptools"}


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def find(pattern, path):
    """The one match of a pattern in a file."""
    (found,) = re.findall(pattern, read(path), flags=re.MULTILINE)
    return found


def setup():
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(read("setup.cfg"))
    return config


def requirements(text):
    """The name and the versions of each requirement."""
    lines = [line.partition(";")[0].strip() for line in text.splitlines()]
    return [re.fullmatch(r"([\w.-]+)(.*)", line).groups() for line in lines if line]


def test_the_version_is_the_same_everywhere():
    assert find(r"^version: (.+)$", "CITATION.cff") == keras_dsd.__version__


def test_users_may_install_what_is_newer_than_the_tests():
    extras = setup()["options.extras_require"]
    needed = requirements(setup()["options"]["install_requires"])
    for name, versions in [*needed, *requirements(extras["jax"]), *requirements(extras["torch"])]:
        assert re.fullmatch(r">=[\d.]+", versions), f"{name}{versions}"


def test_the_install_without_tensorflow_has_all_the_rest():
    needed = {name for name, _ in requirements(setup()["options"]["install_requires"])}
    given = find(r"^\$ pip install (absl-py .+) jax$", "docs/install.md")
    checked = find(r"(absl-py .+) jax$", "tools/check_wheel.sh")
    assert given == checked
    assert {*given.split()} == needed - OF_TENSORFLOW


def test_the_workflow_runs_every_step_once():
    steps = re.findall(r"^ *step (?!\(\))\"?([\w.$-]+)\"?", read(".ci/run"), re.MULTILINE)
    expanded = {name for step in steps for name in versions_of(step)} - {"packages", "install"}
    rows = find(r"^        steps:\n((?:          - .+\n)+)", ".github/workflows/ci.yml")
    parts = rows.replace("- ", "").split()
    assert sorted(parts) == sorted(expanded)


def versions_of(step):
    return [step.replace("$minor", minor) for minor in ("12", "13")] if "$minor" in step else [step]
