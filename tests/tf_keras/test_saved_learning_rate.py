"""The learning rate of a file of a wrapped model, which may hold a scaled one."""

import numpy as np
import pytest
import tf_keras

import keras_dsd as dsd

optimizers = tf_keras.optimizers


class Rates(tf_keras.callbacks.Callback):
    """Records the learning rate that each batch and each epoch's end sees."""

    def __init__(self):
        super().__init__()
        self.batches, self.ends = [], []

    def rate(self):
        return np.float32(tf_keras.backend.get_value(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(self.rate())

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.rate())


def fit(model, digits, schedule, *others):
    rates = Rates()
    model.fit(*digits, batch_size=160, epochs=schedule.timeline.epochs, verbose=0,
              callbacks=[schedule, *others, rates])  # fmt: skip
    return rates


@pytest.mark.parametrize("recompiled", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "object"])
@pytest.mark.parametrize("format_", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
def test_a_file_of_a_scaled_phase_goes_on_at_the_right_rate(
    format_, optimizer, recompiled, digits, compiled, mlp, tmp_path
):
    """Keras loads an optimizer named by a string with its first rate, not the one in use."""
    made = optimizers.SGD(0.01) if optimizer == "object" else optimizer
    model = compiled(dsd.apply(mlp()), made, run_eagerly=True)
    path = str(tmp_path / ("{epoch}." + format_))
    halve = tf_keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100)
    others = [halve, tf_keras.callbacks.ModelCheckpoint(path)] if optimizer == "object" else [
        tf_keras.callbacks.ModelCheckpoint(path)]  # fmt: skip
    rates = fit(model, digits, dsd.DSDSchedule(1, 1, 3), *others)
    restored = tf_keras.models.load_model(path.format(epoch=3))
    expected = rates.batches[6]
    if recompiled:
        compiled(restored, optimizers.SGD(0.04), run_eagerly=True)
        expected = 0.004
    again = Rates()
    restored.fit(*digits, batch_size=160, epochs=4, initial_epoch=3, verbose=0,
                 callbacks=[dsd.DSDSchedule(1, 1, 2), again])  # fmt: skip
    assert again.ends == pytest.approx([expected], rel=1e-6)
    assert Rates.rate(again) == pytest.approx(10 * expected, rel=1e-6)


def test_an_unscaled_rate_is_recovered_to_the_bit_from_a_checkpoint(
    digits, compiled, mlp, tmp_path
):
    """What a run that is restored in the third phase trains with is what it would have."""
    base = 0.0073
    model = compiled(dsd.apply(mlp()), optimizers.SGD(base))
    path = str(tmp_path / "{epoch}.keras")
    rates = fit(model, digits, dsd.DSDSchedule(1, 1, 3), tf_keras.callbacks.ModelCheckpoint(path))
    restored = tf_keras.models.load_model(path.format(epoch=4))
    again = Rates()
    restored.fit(*digits, batch_size=160, epochs=5, initial_epoch=4, verbose=0,
                 callbacks=[dsd.DSDSchedule(1, 1, 3), again])  # fmt: skip
    assert again.batches == rates.batches[-2:]
    assert Rates.rate(again) == pytest.approx(base, rel=1e-7)
