"""Runs the examples in the docstrings of all public names: `python -m tests.helpers.docstrings`.

What an example says is printed has to be; what it prints besides, such as progress of fit, is
not compared. Each has a separate namespace, with a model and data as a reader would have.
"""

import contextlib
import doctest
import functools
import inspect
import io
import sys

import keras
import numpy as np

import keras_dsd as dsd

MODULES = ("plots", "timelines")
# These take a model that has not been through apply.
OF_A_PLAIN_MODEL = {"apply", "timelines.Preset"}


def build():
    hidden = [keras.layers.Dense(8, "relu", name=name) for name in ("conv", "dense")]
    last = keras.layers.Dense(3, "softmax", name="predictions")
    model = keras.Sequential([keras.layers.Input((4,)), *hidden, last])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def names():
    """Every public name with what has its docstring, methods by their class."""
    inner = [f"{m}.{n}" for m in MODULES for n in getattr(dsd, m).__all__]
    for name in [*dsd.__all__, *inner]:
        module, _, last = name.rpartition(".")
        public = getattr(getattr(dsd, module) if module else dsd, last)
        yield name, public
        if inspect.isclass(public):
            methods = inspect.getmembers(public, inspect.isroutine)
            yield from ((f"{name}.{n}", method) for n, method in methods if n[0] != "_")


def namespace(name):
    random = np.random.default_rng(0)
    x, y = random.random((24, 4), dtype="float32"), np.arange(24) % 3
    model = build()
    if name not in OF_A_PLAIN_MODEL:
        model = dsd.apply(model)
    cuts = {"train": slice(12), "validation": slice(12, 18), "test": slice(18, 24)}
    parts = {part: (x[cut], y[cut]) for part, cut in cuts.items()}
    given = {n: getattr(dsd, n) for n in (*dsd.__all__, *MODULES)}
    given["compare"] = functools.partial(dsd.compare, seeds=2, arms=("dense", "dsd"))
    return {
        **given, "dsd": dsd, "keras": keras, "build": build, "data": parts, "model": model,
        "x": x, "y": y, "optimizer": model.optimizer, "batches": [(x, y)],
        "train_step": model.train_on_batch,
    }  # fmt: skip


def run(name, text):
    """Runs the examples in a docstring, and returns how many there were."""
    given = namespace(name)
    examples = doctest.DocTestParser().get_examples(text)
    for example in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example.source, name, "exec"), given)
        if example.want and printed.getvalue() != example.want:
            sys.exit(f"{name}: {example.source}printed {printed.getvalue()}not {example.want}")
    return len(examples)


if __name__ == "__main__":
    found = {name: inspect.getdoc(public) or "" for name, public in names()}
    wrong = [name for name, text in found.items() if "\nExample:" in text or "::\n" in text]
    if wrong:
        sys.exit(f"Write 'Examples:', which the reference shows as code, in {', '.join(wrong)}")
    ran = {name: run(name, text) for name, text in found.items() if ">>>" in text}
    print(", ".join(f"{name} {count}" for name, count in ran.items()))
