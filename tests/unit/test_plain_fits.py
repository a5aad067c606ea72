"""A fit of a model that went through `apply` warns where DSD took no part, once."""

import gc
import warnings
import weakref

import pytest

from keras_dsd.adapters.base.plain_fits import PlainFits


class Layer:
    def __init__(self, *layers):
        self.name, self.layers = "net", layers


class Trainer:
    def fit(self, x, epochs=1):
        """Trains."""
        if x is None:
            raise RuntimeError("no data")
        return x * epochs


class Model(Trainer, Layer):
    pass


class Own(Model):
    def fit(self, x):
        return super().fit(x, epochs=2)


def parts_of(model):
    return [model, *(part for layer in model.layers for part in parts_of(layer))]


@pytest.fixture
def watch():
    return PlainFits(Model, parts_of)


def is_plain():
    return Trainer.fit.__qualname__ == "Trainer.fit" and not hasattr(Trainer.fit, "__wrapped__")


@pytest.mark.parametrize("kind", [Model, Own])
def test_the_first_fit_without_dsd_warns(watch, kind):
    model = kind()
    watch.expect([model])
    assert not is_plain() and set(vars(model)) == {"name", "layers"}
    with pytest.warns(UserWarning, match="trained model='net' without DSD") as seen:
        assert model.fit(3) in (3, 6)
    assert [each.filename for each in seen] == [__file__]
    model.fit(3)
    assert is_plain()


def test_a_fit_in_which_dsd_takes_part_is_quiet(watch):
    class Schedule(Model):
        def fit(self, x):
            watch.forget(self)
            return super().fit(x)

    model = Schedule()
    watch.expect([model])
    model.fit(3)
    assert is_plain()
    model.fit(3)
    assert not watch.forget(model)


def test_a_model_that_holds_it_is_watched_and_others_are_not(watch):
    inner = Layer()
    model, other = Model(Layer(inner)), Model(Layer())
    watch.expect([inner])
    other.fit(1)
    with pytest.raises(RuntimeError):  # it did not train
        model.fit(None)
    with pytest.warns(UserWarning, match="fit has no DSDSchedule"):
        model.fit(1)
    assert is_plain()


def test_the_hook_looks_like_fit_and_keeps_nothing_alive(watch):
    model = Model()
    watch.expect([model])
    assert (Model.fit.__name__, Model.fit.__doc__) == ("fit", "Trains.")
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Model().fit(1)
    assert is_plain()
