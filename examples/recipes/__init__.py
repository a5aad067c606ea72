"""What stands beside the recipes of the paper's systems: their data, models, arms and results."""

import os

# TensorFlow's C++ side logs dozens of lines as it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
