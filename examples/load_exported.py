"""Loads an exported model, and checks that its predictions equal those in an .npz file.

python examples/load_exported.py saved_model predictions.npz
"""

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
    return lambda images: model.serve(images).numpy()


if __name__ == "__main__":
    _, exported, expected = sys.argv
    data = np.load(expected)
    predicted = load(exported)(data["images"])
    np.testing.assert_allclose(predicted, data["predicted"], atol=1e-5)
    print(f"A fresh process loaded {exported} and predicts the same for {len(predicted)} images.")
