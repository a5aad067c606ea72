"""Every phase change: the value that describes it, and what is true after it was applied."""

import dataclasses

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.engine.batch_norm import Batches
from keras_dsd.engine.controller import Controller
from keras_dsd.engine.messages import learning_rate_text
from keras_dsd.engine.observers import Moment, Observer
from keras_dsd.engine.run_history import RunHistory
from keras_dsd.engine.trainer import Trainer
from keras_dsd.engine.transition import (
    OptimizerReset,
    Pruning,
    Transition,
    apply_lost_masks,
    prune,
    transition_to,
)
from tests.unit.engine.fake_adapter import FakeModel, FakeNorm, fit

DENSE, SPARSE = dsd.DensePhase(2), dsd.SparsePhase(2)
LOW, QUARTER = dsd.DensePhase(1, lr=0.1), dsd.SparsePhase(1, sparsity=0.25)
UNTIL = dsd.Plateau("loss", patience=1, restore_best=True)
DSD = (DENSE, SPARSE, LOW)
BATCHES = Batches([1, 2], 2)


def make(phases, epoch, current, epochs=None, **options):
    timeline = dsd.DSDSchedule(phases=list(phases)).timeline
    history = RunHistory(timeline, None)
    history.epochs = [{} for _ in range(epoch)] if epochs is None else epochs
    return transition_to(
        epoch, timeline, history, current, **{"reset": "all", "batches": BATCHES, **options}
    )


def value(index, phase, epoch, is_start=True, **fields):
    """The expected value; moments by name and phase."""
    for when in ("moments_before", "moments_after"):
        fields[when] = tuple(Moment(name, epoch, of) for name, of in fields.get(when, ()))
    return Transition(index, phase, epoch, is_start, **{"reset": "all", **fields})


PRUNES = {"batches": BATCHES}


@pytest.mark.parametrize(("phases", "epoch", "current", "expected"), [
    (DSD, 0, None, value(0, DENSE, 0)),
    (DSD, 1, 0, None),
    (DSD, 1, None, value(0, DENSE, 1, False)),
    (DSD, 2, 0, value(1, SPARSE, 2, **PRUNES, moments_before=[("before pruning", 1)],
                      moments_after=[("after pruning", 1)])),
    (DSD, 2, None, value(1, SPARSE, 2, **PRUNES, moments_before=[("before pruning", 1)],
                         moments_after=[("after pruning", 1)])),
    (DSD, 3, 1, None),
    (DSD, 3, None, value(1, SPARSE, 3, False)),
    (DSD, 4, 1, value(2, LOW, 4, moments_before=[("end of sparse", 1)])),
    (DSD, 4, None, value(2, LOW, 4, lost_masks_of=SPARSE, moments_before=[("end of sparse", 1)])),
    (DSD, 9, 2, None),
    (DSD, 9, None, value(2, LOW, 9, False)),
    (DSD, 0, 2, value(0, DENSE, 0)),
    ((SPARSE, LOW), 0, None, value(0, SPARSE, 0, **PRUNES, moments_before=[("before pruning", 0)],
                                   moments_after=[("after pruning", 0)])),
    ((SPARSE, QUARTER), 2, 0, value(1, QUARTER, 2, **PRUNES, moments_after=[("after pruning", 1)],
                                    moments_before=[("before pruning", 1)])),
    ((SPARSE, QUARTER), 2, None, value(
        1, QUARTER, 2, **PRUNES, lost_masks_of=SPARSE, moments_after=[("after pruning", 1)],
        moments_before=[("before pruning", 1)])),
    ((DENSE, LOW), 2, 0, value(1, LOW, 2)),
    ((DENSE, LOW), 2, None, value(1, LOW, 2)),
    ((SPARSE, LOW, QUARTER), 3, 1, value(
        2, QUARTER, 3, **PRUNES, moments_after=[("after pruning", 2)],
        moments_before=[("last re-dense epoch", 1), ("before pruning", 2)])),
    ((SPARSE, LOW, DENSE), 3, 1, value(2, DENSE, 3)),
    ((SPARSE, LOW, SPARSE), 4, None, value(2, SPARSE, 4, False)),
    ((DENSE, LOW, QUARTER), 3, 1, value(
        2, QUARTER, 3, **PRUNES, moments_after=[("after pruning", 2)],
        moments_before=[("before pruning", 2)])),
])  # fmt: skip
def test_a_transition_is_a_value(phases, epoch, current, expected):
    if expected is not None:
        start = sum(phase.epochs for phase in phases[: expected.index])
        resumed = {"is_resumed": current is None, "num_epochs": epoch - start}
        expected = dataclasses.replace(expected, **resumed)
    assert make(phases, epoch, current) == expected


def test_options_are_in_the_value():
    found = make(DSD, 2, 0, reset="none", batches=None)
    assert (found.reset, found.batches) == ("none", None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.index = 0


@pytest.mark.parametrize(("losses", "restored"), [([1, 2], 0), ([2, 1], None), ([3, 1, 2], 1)])
def test_the_best_epoch_of_the_phase_that_ends_is_restored(losses, restored):
    phases = [dsd.DensePhase(len(losses), until=UNTIL), SPARSE]
    epochs = [{"loss": loss} for loss in losses]
    for current in (0, None):
        found = make(phases, len(losses), current, epochs)
        assert (found.restored_epoch, found.index, found.warnings) == (restored, 1, ())
    within = make([*phases, DENSE], len(losses) + 1, None, [*epochs, {"loss": 0}])
    assert (within.restored_epoch, within.is_start) == (None, False)


def test_a_phase_that_was_not_measured_warns_in_the_value():
    until = dsd.Plateau("accuracy", patience=1)
    phases = [dsd.DensePhase(2, until=until), SPARSE]
    (message,) = make(phases, 2, 0, [{}, {"loss": 1.0}]).warnings
    assert "'accuracy' was in the logs of none of its 2 epochs" in message
    assert make(phases, 2, 0, [{}, {"accuracy": 1.0}]).warnings == ()
    assert make([*phases, DENSE], 3, None, [{}, {}, {}]).warnings == ()


def test_making_it_changes_nothing():
    model = FakeModel()
    controller = Controller(dsd.DSDSchedule(0, 1, 1).timeline, Trainer(model, model.adapter))
    controller.start(None)
    before = model.state()
    assert controller.transition(0) == controller.transition(0) != None  # noqa: E711
    assert all(map(np.array_equal, before, model.state()))
    assert model.kernels[0].mask is None and model.train_function is None


class Texts(Observer):
    """Keeps the description of each phase change."""

    def __init__(self):
        self.texts = []

    def on_phase(self, index, phase, epoch, changed):
        self.texts.append(changed)


def run(phases, model=None, **options):
    """Runs phases, and returns for each the weights at its start and before, and its text."""
    model, seen, ends, begins = model or FakeModel(), Texts(), [], []
    schedule = dsd.DSDSchedule(phases=list(phases), observers=[seen], **options)
    enter = schedule.on_epoch_begin

    def begin(epoch):
        ends.append(snapshot(model))
        enter(epoch)
        begins.append(snapshot(model))

    schedule.on_epoch_begin = begin
    logs = fit(model, schedule, schedule.timeline.epochs)
    return logs, ends, begins, seen.texts


def snapshot(model):
    kernels = [
        (k.values.copy(), k.mask, k.momentum.copy(), k.average.copy()) for k in model.kernels
    ]
    return kernels, model.bias_momentum.copy()


def smallest(values, share):
    order = np.argsort(np.abs(values).ravel(), kind="stable")
    pruned = np.zeros(values.size, bool)
    pruned[order[: round(values.size * share)]] = True
    return pruned.reshape(values.shape)


ONE, HALF = dsd.DensePhase(1), dsd.SparsePhase(1)


@pytest.mark.parametrize("reset", ["pruned", "all", "none"])
@pytest.mark.parametrize(
    "phases",
    [(ONE, HALF, ONE), (HALF, ONE), (ONE, ONE, HALF, ONE, HALF, ONE)],
    ids=["DSD", "dense=0", "DDSDSD"],
)
def test_pruned_weights_and_their_state_are_zero(phases, reset):
    _, ends, begins, _ = run(phases, reset=reset)
    for phase, (before, bias_before), (now, bias_now) in zip(phases, ends, begins, strict=True):
        was_masked = before[0][1] is not None
        changed = phase is HALF or was_masked
        for (old, mask, slots, averages), (values, active, momentum, average) in zip(
            before, now, strict=True
        ):
            if phase is HALF:
                pruned = smallest(old, 0.5)
                assert np.array_equal(active, ~pruned)
            else:
                pruned = ~mask if was_masked else np.zeros(old.shape, bool)
                assert active is None
            assert np.array_equal(values, np.where(pruned, 0.0, old))
            assert np.array_equal(average, np.where(pruned, 0.0, averages))
            if changed and reset == "all":
                assert not momentum.any()
            elif reset == "none":
                assert np.array_equal(momentum, slots)
            else:
                assert np.array_equal(momentum, np.where(pruned, 0.0, slots))
        assert np.array_equal(bias_now, bias_before) != (
            changed and reset == "all" and bias_before.any()
        )


def test_weights_stay_zero_while_the_phase_lasts_and_move_after_it():
    model, seen = FakeModel(), []
    fit(model, dsd.DSDSchedule(1, 2, 1), 4, after=lambda epoch: seen.append(snapshot(model)[0]))
    masks = [mask for _, mask, *_ in seen[1]]
    for epoch, kernels in enumerate(seen):
        for (values, mask, _, average), first in zip(kernels, masks, strict=True):
            assert (mask is not None) == (epoch in (1, 2))
            zeros = values[~first] == 0
            assert zeros.all() if epoch in (1, 2) else not zeros.any()
            assert not average[~first].any() if epoch in (1, 2) else average[~first].all()


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.25), (0.25, 0.5), (0.5, 0.5)],
                         ids=["gentler", "harder", "same"])  # fmt: skip
def test_a_sparse_phase_after_another(first, second):
    phases = [dsd.SparsePhase(1, sparsity=first), dsd.SparsePhase(1, sparsity=second), ONE]
    logs, ends, begins, texts = run(phases)
    assert [each["dsd_sparsity"] for each in logs[:2]] == [
        pytest.approx(first, abs=0.02), pytest.approx(second, abs=0.02)]  # fmt: skip
    kinds = set()
    for (old, mask, slots, _), (values, active, momentum, _) in zip(
        ends[1][0], begins[1][0], strict=True
    ):
        pruned = smallest(old, second)
        assert np.array_equal(active, ~pruned)
        assert np.array_equal(values, np.where(pruned, 0.0, old))
        regrown = ~mask & active
        assert regrown.any() == (second < first)
        assert not values[regrown].any()
        changed = pruned | regrown if first != second else np.zeros_like(pruned)
        assert np.array_equal(momentum, np.where(changed, 0.0, slots))
        if first != second:
            kinds |= {"pruned"} | ({"regrown"} if regrown.any() else set())
    kinds = " and ".join(sorted(kinds))
    assert texts[1].partition("), ")[2] == (
        f"optimizer state reset for {kinds} weights, learning rate 0.1" if kinds else
        "learning rate 0.1")  # fmt: skip


def test_a_mask_that_prunes_nothing_changes_nothing():
    _, ends, begins, texts = run([dsd.SparsePhase(1, sparsity=0.0), ONE])
    assert all(map(np.array_equal, ends[0][0][0], begins[0][0][0][:1]))
    assert begins[0][0][0][1].all()
    assert texts == [
        "0.0% sparsity (0 of 44 weights in 2 tensors), learning rate 0.1",
        "0 weights regrow from zero, learning rate 0.1",
    ]


PRUNED = "50.0% sparsity (22 of 44 weights in 2 tensors)"
RESET = "optimizer state reset for {} weights"


@pytest.mark.parametrize(("phases", "options", "expected"), [
    ((ONE, HALF, LOW), {}, [
        "all weights train, learning rate 0.1",
        f"{PRUNED}, {RESET.format('pruned')}, learning rate 0.1",
        f"22 weights regrow from zero, {RESET.format('regrown')}, learning rate 0.01",
    ]),
    ((HALF, LOW), {"reset": "all"}, [
        f"{PRUNED}, {RESET.format('all')}, learning rate 0.1",
        f"22 weights regrow from zero, {RESET.format('all')}, learning rate 0.01",
    ]),
    ((HALF, LOW), {"reset": "none"}, [
        f"{PRUNED}, optimizer state kept, learning rate 0.1",
        "22 weights regrow from zero, optimizer state kept, learning rate 0.01",
    ]),
    ((ONE, LOW), {"reset": "all"}, [
        "all weights train, learning rate 0.1", "all weights train, learning rate 0.01",
    ]),
    ((dsd.SparsePhase(1, sparsity=0.25), HALF), {}, [
        f"25.0% sparsity (11 of 44 weights in 2 tensors), {RESET.format('pruned')}, "
        f"learning rate 0.1",
        f"{PRUNED}, {RESET.format('pruned')}, learning rate 0.1",
    ]),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
def test_the_message_of_each_transition(phases, options, expected):
    assert run(phases, **options)[3] == expected


@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
def test_batch_norm_is_estimated_after_pruning_and_before_observers_see_it():
    model, seen = FakeModel(), []
    model.norms = [FakeNorm(), FakeNorm()]
    model.norms[1].momentum = 0.5

    class Look(Observer):
        def on_moment(self, moment, weights):
            seen.append((moment.name, float(model.norms[0].moving_mean.numpy())))

    forward = model.adapter.forward

    def look(inputs):
        assert model.kernels[0].mask is not None
        assert [norm.momentum for norm in model.norms] == [0.0, 0.0]
        forward(inputs)

    model.adapter.forward = look
    batches = [(np.array([1.0, 3.0]), None), [np.array([5.0, 5.0])], np.array([99.0])]
    texts = Texts()
    schedule = dsd.DSDSchedule(
        phases=[ONE, dsd.SparsePhase(2)], batch_norm_data=batches, batch_norm_batches=2,
        observers=[Look(), texts],
    )  # fmt: skip
    fit(model, schedule, 3)
    assert seen == [("before pruning", 5.0), ("after pruning", 3.5)]
    assert [norm.momentum for norm in model.norms] == [0.99, 0.5]
    assert [float(norm.moving_variance.numpy()) for norm in model.norms] == [0.5, 0.5]
    assert texts.texts[1] == (
        f"{PRUNED}, BatchNormalization statistics of 2 layers estimated from 2 batches, "
        f"{RESET.format('pruned')}, learning rate 0.1"
    )
    fit(model, schedule, 3, initial_epoch=2)
    assert len(seen) == 2  # not where a run resumes within the phase


def test_batch_norm_statistics_survive_what_goes_wrong():
    model = FakeModel()
    model.norms = [FakeNorm()]

    def broken(inputs):
        model.norms[0](inputs)
        raise RuntimeError("shape")

    for data, error in (([], "to hold batches. Received: none"), ([np.ones(2)], "shape")):
        schedule = dsd.DSDSchedule(0, 1, 1, batch_norm_data=data)
        if data:
            model.adapter.forward = broken
        with pytest.raises((ValueError, RuntimeError), match=error) as caught:
            fit(model, schedule, 2)
        assert not data or "batch_norm_data" in caught.value.__notes__[0]
        assert model.norms[0].momentum == 0.99
        assert (model.norms[0].moving_mean.numpy(), model.norms[0].moving_variance.numpy()) == (
            5,
            7,
        )


def test_without_batch_norm_nothing_is_estimated():
    texts = Texts()
    schedule = dsd.DSDSchedule(0, 1, 1, batch_norm_data=[np.ones(2)], observers=[texts])
    fit(FakeModel(), schedule, 2)
    assert "BatchNormalization statistics of 0 layers estimated from 0 batches" in texts.texts[0]


def test_global_ranking_prunes_tensors_together():
    model = FakeModel(scope="global")
    values = np.concatenate([k.values.ravel() for k in model.kernels])
    threshold = np.sort(np.abs(values))[21]
    _, _, begins, _ = run([HALF, ONE], model)
    for (_, active, *_), old in zip(begins[0][0], FakeModel().kernels, strict=True):
        assert np.array_equal(active, np.abs(old.values) > threshold)


def masked_weight(sparsity):
    """A kernel that is pruned and masked, whose `apply_mask` is counted."""
    kernel = FakeModel().kernels[0]
    kernel.momentum += 1
    prune([kernel], Pruning(sparsity), OptimizerReset("none"), str)
    kernel.applied, apply_mask = [], kernel.apply_mask
    kernel.apply_mask = lambda mask: kernel.applied.append(mask) or apply_mask(mask)
    return kernel


def test_a_mask_that_is_active_is_not_applied_again():
    kernel, reset = masked_weight(0.5), OptimizerReset("pruned")
    assert prune([kernel], Pruning(0.5), reset, str).num_pruned == 12
    assert kernel.applied == [] and reset.description == ""


def test_a_mask_that_prunes_zeros_alone_resets_nothing():
    kernel, reset = masked_weight(0.25), OptimizerReset("pruned")
    kernel.values[smallest(kernel.values, 0.5)] = 0
    before = kernel.momentum.copy()
    assert prune([kernel], Pruning(0.5), reset, str).num_pruned == 12 and len(kernel.applied) == 1
    assert np.array_equal(kernel.momentum, before) and reset.description == ""


def test_an_active_mask_is_not_taken_for_a_lost_one():
    kernel = masked_weight(0.75)
    apply_lost_masks([kernel], Pruning(0.5))
    assert kernel.applied == [] and (~kernel.mask).sum() == 18


def test_batches_that_are_read_by_index_end_at_their_length():
    class Indexed:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return index, None

    assert list(Batches(Indexed(), 5).inputs()) == [0, 1]


def test_equal_learning_rates_of_several_optimizers_are_named_once():
    assert learning_rate_text([0.1, 0.1, 0.2], False, 0.5) == "learning rate 0.05, 0.1"
