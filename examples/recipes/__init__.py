"""Data, models, arms and results of the recipes of the paper's systems."""

import os

# TensorFlow's C++ side logs dozens of lines as it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
