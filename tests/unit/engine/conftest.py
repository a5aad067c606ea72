import types

import pytest

from keras_dsd.adapters import registry
from tests.unit.engine.fake_adapter import FakeModel


@pytest.fixture(autouse=True)
def _fake_adapter(monkeypatch):
    """Makes `DSDSchedule` and `DSDLoop` train a `FakeModel`."""
    fake = types.SimpleNamespace(training_adapter=lambda model, optimizer=None: model.adapter)
    monkeypatch.setattr(registry, "adapter_of", lambda model: fake)


@pytest.fixture
def model():
    return FakeModel()
