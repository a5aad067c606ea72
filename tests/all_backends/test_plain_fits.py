"""A fit of a model that went through `apply` says so where no DSDSchedule followed."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import keras

pytestmark = pytest.mark.once_per_keras

DATA = np.ones((4, 3)), np.ones((4, 1))


def net():
    layers = keras.layers
    return keras.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dense(1)])


def fit(model, **options):
    if getattr(model, "optimizer", None) is None:
        model.compile("sgd", "mse", run_eagerly=True)
    return model.fit(*DATA, verbose=0, **options)


class Own(keras.Model):
    """Holds a layer that went through `apply`; has a custom `fit`."""

    def __init__(self):
        super().__init__()
        self.inner = dsd.apply(keras.layers.Dense(4))
        self.last = keras.layers.Dense(1)

    def call(self, x):
        return self.last(self.inner(x))

    def fit(self, *args, **kwargs):
        return super().fit(*args, **kwargs)


def around(model):
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Dense(1)(model(x)))


@pytest.mark.parametrize("make", [
    lambda: dsd.apply(net()), Own, lambda: around(dsd.apply(net())),
], ids=["model", "layer in a subclass", "model in a model"])  # fmt: skip
def test_the_warning_comes_once(make):
    model = make()
    with pytest.warns(
        UserWarning, match="it was passed through apply.*fit has no DSDSchedule"
    ) as seen:
        fit(model)
    assert [each.filename for each in seen] == [__file__]
    fit(model)


@pytest.mark.parametrize("wrap", [
    lambda schedule, model: [schedule],
    lambda schedule, model: schedule,
    lambda schedule, model: keras.callbacks.CallbackList(
        [schedule], add_history=True, model=model, epochs=3, verbose=0),
], ids=["list", "callback", "CallbackList"])  # fmt: skip
def test_no_warning_where_dsd_follows(wrap):
    model = dsd.apply(net())
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, epochs=3, callbacks=wrap(dsd.DSDSchedule(1, 1, 1), model))
    fit(model)


def test_no_warning_after_a_loop_or_strip():
    model = dsd.apply(net())
    model.compile("sgd", "mse", run_eagerly=True)
    with dsd.DSDLoop(model, model.optimizer, dsd.DSDSchedule(phases=[dsd.DensePhase(1)])) as loop:
        loop.begin_epoch(0)
        model.train_on_batch(*DATA)
        loop.end_epoch()
    fit(model)
    fit(dsd.strip(dsd.apply(dsd.strip(model))))


def test_nothing_of_it_is_on_the_model(tmp_path):
    before = inspect.signature(keras.Model.fit)
    model = dsd.apply(net())
    assert "fit" not in vars(model) and inspect.ismethod(model.fit)
    assert inspect.signature(keras.Model.fit) == before
    model.save(tmp_path / "model.keras")
    copies = [
        keras.models.clone_model(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model)),
        keras.saving.load_model(tmp_path / "model.keras"),
    ]  # fmt: skip
    for each in copies:  # no call of `apply` returned them
        fit(each)
    with pytest.warns(UserWarning, match="fit has no DSDSchedule"):
        fit(model)
