"""Keeps apart the tests that can't share a process: those of tf_keras and those of Keras 3."""

import gc
import os

import pytest

IS_TF_KERAS = os.environ.get("KERAS_DSD_PATH", "tf_keras") == "tf_keras"
# What tools/run_tests.py calls the path.
NAME = "tf_keras" if IS_TF_KERAS else os.environ.get("KERAS_BACKEND", "tensorflow")

collect_ignore = ["keras3"] if IS_TF_KERAS else ["tf_keras"]


@pytest.hookimpl(tryfirst=True)  # before pytest itself selects by keywords
def pytest_collection_modifyitems(items):
    for item in items:
        item.extra_keyword_matches.add(f"path:{NAME}")


def pytest_unconfigure():
    gc.freeze()  # Looking through all that TensorFlow has left took a minute as the process ended.
