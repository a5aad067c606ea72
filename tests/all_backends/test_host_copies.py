"""Copies to the host: a few numbers at each boundary and epoch end, and no weight."""

import pytest

import keras_dsd as dsd
from keras_dsd.adapters.base.device_arrays import ArrayOperations
from tests.helpers.host_reads import HostReads
from tests.helpers.paths import keras


@pytest.fixture
def reads(monkeypatch):
    """The sizes of tensors that are read within the hooks of a DSDSchedule."""
    reads = HostReads()
    for name in ("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end"):
        hook = getattr(dsd.DSDSchedule, name)

        def noted(schedule, *args, hook=hook, **kwargs):
            with reads.noting(monkeypatch):
                return hook(schedule, *args, **kwargs)

        monkeypatch.setattr(dsd.DSDSchedule, name, noted)
    return reads


class Epochs(keras.callbacks.Callback):
    """Keeps what was read until each epoch's start and end."""

    def __init__(self, sizes):
        super().__init__()
        self._sizes = sizes
        self.begins, self.ends = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.begins.append(self._taken())

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self._taken())

    def _taken(self):
        sizes, self._sizes[:] = list(self._sizes), []
        return sizes


@pytest.mark.parametrize("phases", ["dense first", "sparse first"])
def test_no_weight_is_copied(phases, reads, compiled, mlp, digits, monkeypatch):
    """As on an accelerator: nothing that is read has the size of a kernel, a mask or a slot."""
    model = dsd.apply(mlp(), 0.5)
    arrays = type(dsd.weights(model)[0].arrays)
    monkeypatch.setattr(arrays, "is_on_host", lambda self, values: False)
    compiled(model, keras.optimizers.Adam(1e-3, use_ema=True), run_eagerly=True)
    seen = Epochs(reads.sizes)
    dense = 2 if phases == "dense first" else 0
    x, y = digits
    schedule = dsd.DSDSchedule(dense, 2, 2)
    model.fit(x[:64], y[:64], epochs=dense + 4, verbose=0, callbacks=[schedule, seen])
    read = [*seen.begins, *seen.ends, list(reads.sizes)]
    assert max(size for each in read for size in each) < 20
    # Four numbers of both weights at once; besides, scalars such as the learning rate.
    assert all([size for size in each if size > 1] == [8] for each in seen.ends), seen.ends
    with reads.noting(monkeypatch):  # a copy would have been seen
        sizes = [weight.numpy().size for weight in dsd.weights(model)]
    assert min(sizes) >= 160 and set(sizes) <= set(reads.sizes)


def test_an_epoch_is_measured_in_one_transfer(compiled, mlp, digits, monkeypatch):
    fetched, fetch = [], ArrayOperations.measure

    def measure(self, pairs):
        fetched.append(len(pairs))
        return fetch(self, pairs)

    monkeypatch.setattr(ArrayOperations, "measure", measure)
    model = compiled(dsd.apply(mlp(), 0.5), run_eagerly=True)

    class Between(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((list(fetched), logs["dsd_sparsity"]))
            fetched.clear()

        def on_epoch_begin(self, epoch, logs=None):
            fetched.clear()

    seen = []
    x, y = digits
    schedule = dsd.DSDSchedule(1, 1, 1)
    model.fit(x[:64], y[:64], epochs=3, verbose=0, callbacks=[schedule, Between()])
    assert [each for each, _ in seen] == [[2]] * 3
    assert seen[0][1] == 0.0 and seen[1][1] == pytest.approx(0.5, abs=0.001)
