"""Runs resumed by `initial_epoch` from any file of Keras end as uninterrupted ones."""

import shutil

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import paths
from tests.helpers.paths import PATH, keras

EPOCHS = 6


def with_norm():
    """Returns a model with state besides its weights; no dropout: Keras saves no seeds."""
    paths.fresh()  # Orbax goes by the layers' names
    layers = keras.layers
    body = [layers.Flatten(), layers.Dense(16), layers.BatchNormalization(), layers.ReLU()]
    return keras.Sequential([layers.Input((8, 8, 1)), *body, layers.Dense(10)])


def train(model, digits, *callbacks, first=0):
    paths.seed(1)
    model.fit(*digits, epochs=EPOCHS, initial_epoch=first, shuffle=False, verbose=0,
              callbacks=[dsd.DSDSchedule(2, 2, 2), *callbacks])  # fmt: skip
    found = model.optimizer.variables
    variables = found() if callable(found) else found
    return [*paths.arrays(model), *(np.asarray(each.numpy()) for each in variables)]


class TensorFlowCheckpoint(keras.callbacks.Callback):
    """Writes with tf.train.Checkpoint."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        import tensorflow as tf

        checkpoint = tf.train.Checkpoint(model=self.model, optimizer=self.model.optimizer)
        checkpoint.write(str(self.folder / f"{epoch + 1}"))


def read_checkpoint(model, folder, epoch):
    import tensorflow as tf

    model.optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    checkpoint.read(str(folder / f"{epoch}")).assert_existing_objects_matched()
    return model


def read_weights(model, folder, epoch):
    model.optimizer.build(model.trainable_variables)
    model.load_weights(folder / f"{epoch}.weights.h5")
    return model


def read_whole(model, folder, epoch):
    del model
    loaded = keras.saving.load_model(folder / f"{epoch}.keras")
    return loaded if PATH == "tf_keras" else dsd.apply(loaded, 0.4)


def orbax(folder):
    pytest.importorskip("orbax.checkpoint")
    return keras.callbacks.OrbaxCheckpoint(folder / "orbax", max_to_keep=None)


def read_orbax(model, folder, epoch):
    for step in (folder / "orbax").iterdir():  # Keras loads the latest of a folder
        if int(step.name) >= epoch:
            shutil.rmtree(step)
    model.optimizer.build(model.trainable_variables)
    model.load_weights(folder / "orbax")
    return model


def checkpoint(folder, name, **options):
    return keras.callbacks.ModelCheckpoint(str(folder / name), **options)


ROUTES = {
    "whole": (lambda folder: checkpoint(folder, "{epoch}.keras"), read_whole),
    "weights": (lambda folder: checkpoint(folder, "{epoch}.weights.h5", save_weights_only=True),
                read_weights),
    "tf.train.Checkpoint": (TensorFlowCheckpoint, read_checkpoint),
    "orbax": (orbax, read_orbax),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sharding info not provided when restoring")
@pytest.mark.parametrize("route", [
    "whole", "weights",
    pytest.param("tf.train.Checkpoint", marks=pytest.mark.only_on("tensorflow", "tf_keras")),
    pytest.param("orbax", marks=pytest.mark.only_on("jax")),
])  # fmt: skip
def test_from_files_of_every_phase(route, digits, tmp_path):
    write, read = ROUTES[route]

    def make():
        paths.seed(1)
        model = dsd.apply(with_norm(), 0.4)
        return paths.compiled(model, keras.optimizers.Adam(0.003, name="adam"))

    whole = train(make(), digits, write(tmp_path))
    for epoch in (5, 3, 2):  # after the weights were pruned, while they are, and before
        model = read(make(), tmp_path, epoch)
        again = train(model, digits, first=epoch)
        assert len(whole) == len(again)
        for one, two in zip(whole, again, strict=True):
            assert np.array_equal(one, two)
