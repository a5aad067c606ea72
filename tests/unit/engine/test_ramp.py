"""A sparse phase with a ramp: sparsity rises at the starts of its first epochs."""

import numpy as np
import pytest
from absl import logging

import keras_dsd as dsd
from keras_dsd.algorithm.patterns import NM
from tests.unit.engine.fake_adapter import FakeModel, FakeNorm, fit

ONE, RAMP = dsd.DensePhase(1), dsd.SparsePhase(5, sparsity=0.6, ramp=3)
# s (1 - (1 - t / n)^3) for t = 1 ... n: as Zhu and Gupta have it, one interval after its start.
SHARES = [1 - (2 / 3) ** 3, 1 - (1 / 3) ** 3, 1.0, 1.0, 1.0]


def run(phases, model=None, **options):
    """Trains; returns values and masks of each epoch's end, the logs, and the model."""
    model, seen = model or FakeModel(), []

    def after(epoch):
        seen.append([(k.values.copy(), k.mask) for k in model.kernels])

    schedule = dsd.DSDSchedule(phases=list(phases), **options)
    logs = fit(model, schedule, schedule.timeline.epochs, after=after)
    return seen, logs, model


def lowest(values, count):
    mask = np.ones(values.size, bool)
    mask[np.argsort(np.abs(values).ravel(), kind="stable")[:count]] = False
    return mask.reshape(values.shape)


def test_masks_grow_by_the_cubic_rule_and_prune_the_smallest_weights_left():
    seen, logs, model = run([ONE, RAMP, ONE])
    size = sum(kernel.values.size for kernel in model.kernels)
    for epoch, share in enumerate(SHARES, start=1):
        for (values, mask), (before, earlier) in zip(seen[epoch], seen[epoch - 1], strict=True):
            assert np.array_equal(mask, lowest(before, round(0.6 * share * mask.size)))
            assert earlier is None or not (mask & ~earlier).any()
            assert np.array_equal(values != 0, mask)
        pruned = sum(np.count_nonzero(~mask) for _, mask in seen[epoch])
        assert logs[epoch]["dsd_sparsity"] == pruned / size
    assert all(mask is None and values.all() for values, mask in seen[6])


def test_state_is_reset_for_pruned_weights_and_others_keep_theirs():
    model, momentum = FakeModel(), []
    prune = model.kernels[0].apply_mask

    def apply_mask(mask):
        momentum.append(model.kernels[0].momentum.copy())
        prune(mask)

    model.kernels[0].apply_mask = apply_mask
    step = model.train_step

    def train_step(masked):
        if model.iterations in (2, 4):  # the first of an epoch that prunes more
            kernel = model.kernels[0]
            assert np.array_equal(kernel.momentum, momentum[-1] * kernel.mask)
        step(masked)

    model.train_step = train_step
    run([ONE, RAMP, ONE], model)
    assert len(momentum) == 2  # 14 weights of 24 at 0.963 times the sparsity, and at once


def test_one_ranking_over_all_tensors():
    seen, _, model = run([ONE, RAMP, ONE], FakeModel(scope="global"))
    size = sum(kernel.values.size for kernel in model.kernels)
    for epoch, share in enumerate(SHARES, start=1):
        pruned = sum(np.count_nonzero(~mask) for _, mask in seen[epoch])
        assert pruned == round(0.6 * share * size)


def test_each_weight_rises_to_its_own_sparsity():
    model = FakeModel()
    model.kernels[1].sparsity = 0.2
    seen, _, _ = run([dsd.SparsePhase(4, ramp=2), ONE], model)
    assert [[int((~m).sum()) for _, m in epoch] for epoch in seen[:4]] == [[10, 4], *[[12, 4]] * 3]


def test_statistics_are_estimated_after_each_pruning(monkeypatch):
    model, shown = FakeModel(), []
    model.norms = [FakeNorm()]
    monkeypatch.setattr(logging, "info", lambda form, *rest: shown.append(form % rest))
    run([ONE, RAMP, ONE], model, batch_norm_data=[np.ones(3)])
    texts = [text for text in shown if text.startswith("Epoch")]
    assert [text.count("BatchNormalization") for text in texts] == [0, 1, 1, 1, 0]
    assert texts[2].startswith("Epoch 3: 59.1% sparsity (26 of 44 weights in 2 tensors)")


def test_n_of_m_has_no_ramp():
    model = FakeModel()
    model.kernels[0].pattern = NM(2, 4)
    with pytest.raises(ValueError, match="without `ramp`: the pattern 2:4 of 'net/a/kernel'"):
        run([dsd.SparsePhase(4, ramp=2), ONE], model)
    assert model.kernels[0].values.all()


def test_ramps_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="shorter than the phase.*ramp=4 with epochs=4"):
        dsd.SparsePhase(4, ramp=4)
    with pytest.raises(ValueError, match="ramp=2 with until=Plateau"):
        dsd.SparsePhase(4, ramp=2, until=dsd.Plateau("loss"))
    with pytest.raises(ValueError, match="after a DensePhase.*ramp=2 after sparse for 1 epoch"):
        dsd.DSDSchedule(phases=[dsd.SparsePhase(1), dsd.SparsePhase(4, ramp=2)])
    with pytest.raises(ValueError, match="in epochs, as the phase.*ramp=2 with steps=9"):
        dsd.SparsePhase(steps=9, ramp=2)
    with pytest.raises(ValueError, match="at least 1"):
        dsd.SparsePhase(4, ramp=0)
    assert str(RAMP) == "sparse for 5 epochs at sparsity 0.6 within 3 epochs"
