"""A discriminator that is frozen inside the combined model of a GAN, as Keras-GAN has it."""

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.algorithm.selection import FROZEN
from tests.helpers.paths import PATH, keras

layers = keras.layers
Z, X = np.ones((8, 3), "float32"), np.ones((8, 4), "float32")
ONES = np.ones((8, 1), "float32")


def gan(prepare=lambda model: dsd.apply(model, 0.5)):
    """Returns a discriminator, frozen after it was prepared, the generator, and both combined."""
    discriminator = keras.Sequential(
        [layers.Input((4,)), layers.Dense(6, "tanh"), layers.Dense(1)], name="discriminator"
    )
    discriminator = prepare(discriminator)
    discriminator.compile("sgd", "mse", run_eagerly=True)
    generator = keras.Sequential([layers.Input((3,)), layers.Dense(4)], name="generator")
    discriminator.trainable = False
    z = layers.Input((3,))
    combined = keras.Model(z, discriminator(generator(z)), name="combined")
    combined.compile("sgd", "mse", run_eagerly=True)
    return discriminator, generator, combined


def kernels(discriminator):
    return [weight.numpy() for weight in dsd.weights(discriminator)]


def test_a_frozen_model_is_reported_with_what_to_do():
    discriminator, _, _ = gan()
    message = "whose selected weights are all frozen: .*kernel.*discriminator.trainable = True"
    before = discriminator.get_weights()
    schedule = dsd.DSDSchedule(0, 1, 1)
    schedule.set_model(discriminator)
    schedule.on_train_begin()
    with pytest.raises(ValueError, match=message):
        schedule.on_epoch_begin(0)
    assert all(map(np.array_equal, discriminator.get_weights(), before))


def test_unfrozen_for_its_own_epochs_it_trains_and_the_combined_model_leaves_it_alone():
    discriminator, generator, combined = gan()
    schedule = dsd.DSDSchedule(1, 1, 1)
    schedule.set_params({"epochs": 3})
    schedule.set_model(discriminator)
    discriminator.trainable = True
    schedule.on_train_begin()
    zeros = []
    for epoch in range(3):
        discriminator.trainable = True
        schedule.on_epoch_begin(epoch)
        discriminator.train_on_batch(X, ONES)
        schedule.on_epoch_end(epoch, {})
        zeros.append(sum(np.sum(kernel == 0) for kernel in kernels(discriminator)))
        before, generated = kernels(discriminator), generator.get_weights()[0]
        discriminator.trainable = False
        combined.train_on_batch(Z, ONES)
        discriminator.trainable = True
        assert all(map(np.array_equal, kernels(discriminator), before))
        assert not np.array_equal(generator.get_weights()[0], generated)
    schedule.on_train_end()
    assert zeros[:2] == [0, 15] and zeros[2] < 8


def test_in_fit_what_counts_is_what_keras_trains_there():
    """tf_keras trains what was not frozen when it was compiled."""
    discriminator, _, _ = gan()
    discriminator.trainable = PATH == "tf_keras"
    discriminator.compile("sgd", "mse", run_eagerly=True)
    discriminator.trainable = PATH != "tf_keras"
    discriminator.fit(X, ONES, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    discriminator.trainable = True
    assert len(kernels(discriminator)) == 2


@pytest.mark.once_per_keras
def test_the_combined_model_is_pruned_in_the_generator_alone():
    _, _, combined = gan(prepare=lambda model: model)
    found = dsd.report(dsd.apply(combined, 0.5))
    assert [weight.shape for weight in found.weights] == [(3, 4)]
    assert {each.shape for each in found.skipped if each.reason == FROZEN} == {(4, 6), (6, 1)}
