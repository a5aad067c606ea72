"""Keeps apart the tests that can't share a process: those of tf_keras and those of Keras 3."""

import gc
import os

IS_TF_KERAS = os.environ.get("KERAS_DSD_PATH", "tf_keras") == "tf_keras"

collect_ignore = ["keras3"] if IS_TF_KERAS else ["tfmot"]


def pytest_unconfigure():
    gc.freeze()  # Looking through all that TensorFlow has left took a minute as the process ended.
