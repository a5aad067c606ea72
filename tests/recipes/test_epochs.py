"""The batches of a recipe's epochs."""

import pytest
import tensorflow as tf
from absl import flags

from recipes import running

FLAGS = flags.FLAGS


@pytest.fixture(autouse=True)
def parsed(monkeypatch):
    FLAGS.mark_as_parsed()
    tf.random.set_seed(1)
    yield
    FLAGS["seed"].value = FLAGS["steps_per_epoch"].value = 0


def reader():
    """Returns what reads an epoch by its number."""
    epoch = running.Epoch()
    data = running._every_epoch(
        lambda seed: tf.data.Dataset.range(50).shuffle(50, seed=seed).batch(5), epoch
    )

    def read(number):
        epoch.on_epoch_begin(number)
        return [batch.tolist() for batch in data.as_numpy_iterator()]

    return read


def test_an_epoch_has_an_order_of_its_own_and_has_it_whatever_was_read_before():
    read, again = reader(), reader()
    first, second = read(0), read(1)
    for batches in (first, second):
        assert sorted(value for batch in batches for value in batch) == list(range(50))
    assert first != second
    assert again(1) == second
    assert read(0) == first


def test_the_seed_is_another_order():
    first = reader()(0)
    FLAGS["seed"].value = 1
    assert reader()(0) != first


def test_an_epoch_may_end_early():
    whole = reader()(3)
    FLAGS["steps_per_epoch"].value = 4
    assert reader()(3) == whole[:4]


def test_how_many_batches_there_are_has_to_be_known():
    def batches(seed):
        return tf.data.Dataset.range(50).filter(lambda number: number > 3)

    with pytest.raises(ValueError, match=r"Expected a known .*cardinality=-2.*assert_cardinality"):
        running._every_epoch(batches, running.Epoch())
    with pytest.raises(ValueError, match=r"Expected a known number .*cardinality=0"):
        running._every_epoch(lambda seed: tf.data.Dataset.range(3).batch(4, True), running.Epoch())
