"""Keras 3's `fit` trains on one worker; where there are several, it is refused before it begins."""

import functools
from typing import Any, NoReturn

from keras_dsd.adapters.keras3 import backends


def refuse_fit(model: Any) -> None:
    """Has `model.fit` raise a ValueError, if `model` is spread over several workers.

    Keras fails on its batches before it calls any callback, so none could say what to do.

    Args:
        model: A Keras 3 model or layer.
    """
    number = backends.current().num_workers(model)
    if number > 1 and type(model).fit.__module__.startswith("keras."):
        vars(model)["fit"] = functools.partial(_fit, number)


def allow_fit(model: Any) -> None:
    """Takes that back."""
    if getattr(vars(model).get("fit"), "func", None) is _fit:
        del vars(model)["fit"]


def _fit(number: int, *args: Any, **kwargs: Any) -> NoReturn:
    del args, kwargs
    raise ValueError(
        f"Expected a model on one worker: Keras 3's fit does not support several. Received: a "
        f"model of a MultiWorkerMirroredStrategy with {number} workers. Train a tf_keras model, "
        f"whose fit does, or this one in a loop of your own with keras_dsd.DSDLoop."
    )
