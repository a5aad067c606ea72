"""The batches of a recipe's epochs."""

import pytest
import tensorflow as tf

from recipes.chosen_keras import keras
from recipes.epochs import Epoch, every_epoch


@pytest.fixture(autouse=True)
def seeded():
    tf.random.set_seed(1)


def reader(seed=0, steps=0):
    """Returns what reads an epoch by its number."""
    epoch = Epoch(seed)
    epoch.set_model(keras.Sequential())
    data = every_epoch(
        lambda seed: tf.data.Dataset.range(50).shuffle(50, seed=seed).batch(5), epoch, steps
    )

    def read(number):
        epoch.on_epoch_begin(number)
        return [batch.tolist() for batch in data.as_numpy_iterator()]

    return read


def test_the_order_of_an_epoch_depends_on_its_number_alone():
    read, again = reader(), reader()
    first, second = read(0), read(1)
    for batches in (first, second):
        assert sorted(value for batch in batches for value in batch) == list(range(50))
    assert first != second
    assert again(1) == second
    assert read(0) == first


def test_the_seed_is_another_order():
    first = reader()(0)
    assert reader(seed=1)(0) != first


def test_an_epoch_may_end_early():
    whole = reader()(3)
    assert reader(steps=4)(3) == whole[:4]


def test_how_many_batches_there_are_has_to_be_known():
    def batches(seed):
        return tf.data.Dataset.range(50).filter(lambda number: number > 3)

    with pytest.raises(ValueError, match=r"Expected a known .*cardinality=-2.*assert_cardinality"):
        every_epoch(batches, Epoch(0), 0)
    with pytest.raises(ValueError, match=r"Expected a known number .*cardinality=0"):
        every_epoch(lambda seed: tf.data.Dataset.range(3).batch(4, True), Epoch(0), 0)
