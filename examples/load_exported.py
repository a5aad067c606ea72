"""Loads an exported model, and checks that its predictions equal those in an .npz file.

python examples/load_exported.py saved_model predictions.npz
"""

import importlib.metadata
import sys

import numpy as np


def load(path):
    """Returns a function from images to predictions: of a .keras file, or of a SavedModel."""
    if path.endswith(".keras"):
        import keras

        model = keras.models.load_model(path)
        return lambda images: model.predict(images, verbose=0)
    import tensorflow as tf

    model = tf.saved_model.load(path)

    def serve(images):
        try:
            return model.serve(images).numpy()
        except tf.errors.InvalidArgumentError as error:
            if "StableHLO" not in str(error):
                raise
            jax = importlib.metadata.version("jax")
            sys.exit(
                f"Expected a SavedModel that TensorFlow {tf.__version__} can read. Received: "
                f"{path}, which JAX {jax} wrote in a later format. Install 'jax<0.11' and export "
                f"again, or use model.save: see Versions in docs/install.md."
            )

    return serve


if __name__ == "__main__":
    _, exported, expected = sys.argv
    data = np.load(expected)
    predicted = load(exported)(data["images"])
    np.testing.assert_allclose(predicted, data["predicted"], atol=1e-5)
    print(f"A fresh process loaded {exported} and predicts the same for {len(predicted)} images.")
