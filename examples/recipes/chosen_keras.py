"""The Keras that a recipe trains with: tf_keras where TF_USE_LEGACY_KERAS=1, as for tf.keras."""

import importlib
import os

IS_LEGACY = os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true")
keras = importlib.import_module("tf_keras" if IS_LEGACY else "keras")
