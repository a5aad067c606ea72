"""Imports of the package, and its public names."""

import inspect
import subprocess
import sys

import pytest

import keras_dsd

FRAMEWORKS = {
    "jax", "keras", "matplotlib", "rich", "tensorflow", "tensorflow_model_optimization", "tf_keras",
    "torch",
}  # fmt: skip
PUBLIC = [
    "NM", "Block", "DSDLoop", "DSDSchedule", "DSDTensorBoard", "Decay", "DensePhase", "Plateau",
    "SparsePhase", "WeightHistory", "apply", "compare", "report", "sensitivity", "strip",
    "weights",
]  # fmt: skip


def test_importing_the_package_imports_no_framework():
    code = (
        "import sys, keras_dsd; dir(keras_dsd); keras_dsd.DSDSchedule(1, 1, 1);"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "keras_dsd" in loaded
    assert loaded & FRAMEWORKS == set()


def test_the_public_names_are_these():
    assert keras_dsd.__all__ == PUBLIC
    assert {*PUBLIC} <= {*dir(keras_dsd)}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented_and_annotated(name):
    public = getattr(keras_dsd, name)
    documented = vars(public).get("__doc__") if inspect.isclass(public) else public.__doc__
    # A dataclass without a docstring gets its signature for one.
    assert documented and not documented.startswith(f"{name}(")
    signature = inspect.signature(public.__init__ if inspect.isclass(public) else public)
    bare = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.name != "self" and parameter.annotation is parameter.empty
    ]
    assert bare == []
    assert signature.return_annotation is not signature.empty
