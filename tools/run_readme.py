"""Runs the first Python block of a README on a small model, in the folder where it is started.

python run_readme.py README.md tf_keras
KERAS_BACKEND=jax python run_readme.py README.md keras
"""

import importlib
import pathlib
import re
import sys

from sklearn.datasets import load_digits


def first_block(readme: str) -> str:
    """Returns the code of the first ```python block."""
    found = re.search(r"^```python\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError("The README has no ```python block.")
    return found[1]


if __name__ == "__main__":
    code = first_block(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    keras = importlib.import_module(sys.argv[2])
    x, y = load_digits(return_X_y=True)
    layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.layers.InputLayer((64,)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    given = {"model": model, "x": x / 16, "y": y}
    exec(compile(code, sys.argv[1], "exec"), given)
    checkout = pathlib.Path(__file__).resolve().parents[1]
    if checkout in pathlib.Path(given["dsd"].__file__).resolve().parents:
        raise RuntimeError("This ran the checkout's keras_dsd, not an installed one.")
