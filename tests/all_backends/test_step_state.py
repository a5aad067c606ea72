"""What steps of a phase do besides updates and masks, against transcriptions in NumPy."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import Watch, arrays, classifier, compiled, keras, left_behind, seed


def test_the_run_ends_with_the_moving_averages_of_its_last_phase(digits):
    seed(1)
    model = compiled(dsd.apply(classifier(), 0.3), keras.optimizers.Adam(0.01))
    phases = [dsd.SparsePhase(1), dsd.DensePhase(2, ema=0.9)]
    watch = Watch(lambda m: [np.array(each) for each in m.trainable_variables])
    model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(phases=phases), watch])
    expected = watch.of_epoch(0)[-1]
    for values in [*watch.of_epoch(1), *watch.of_epoch(2)]:
        pairs = zip(expected, values, strict=True)
        expected = [np.float32(0.9) * a + np.float32(1 - 0.9) * v for a, v in pairs]
    for ours, reference in zip(arrays(model), expected, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-6)
    assert not np.allclose(arrays(model)[0], watch.of_epoch(2)[-1][0], rtol=0, atol=1e-4)
    assert not left_behind(model)


def test_averages_of_the_optimizer_and_of_a_phase_are_not_mixed(digits):
    model = compiled(dsd.apply(classifier(), 0.3), keras.optimizers.SGD(0.1, use_ema=True))
    before = arrays(model)
    schedule = dsd.DSDSchedule(phases=[dsd.SparsePhase(1), dsd.DensePhase(1, ema=0.9)])
    with pytest.raises(ValueError, match="without use_ema.*ema=0.9.*SGD.use_ema=True"):
        model.fit(*digits, epochs=2, verbose=0, callbacks=[schedule])
    assert all(map(np.array_equal, arrays(model), before))
