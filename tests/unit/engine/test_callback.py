"""DSDSchedule's hooks called as Keras calls them: their order, exceptions, several runs."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.unit.engine.fake_adapter import FakeModel, fit


def is_plain(model):
    return (
        "make_train_function" not in vars(model)
        and model.train_function is None
        and model.factors.value == 1.0
    )


def test_hooks_out_of_order_are_refused(model):
    schedule = dsd.DSDSchedule(1, 1, 1)
    schedule.set_model(model)
    hooks = (
        lambda: schedule.on_epoch_begin(0), lambda: schedule.on_epoch_end(0, {}),
        schedule.on_train_end,
    )  # fmt: skip
    for hook in hooks:
        with pytest.raises(ValueError, match=r"on_train_begin\(\) before.*Received: model="):
            hook()
    fit(model, schedule, 3)
    for hook in hooks:
        with pytest.raises(ValueError, match="on_train_begin"):
            hook()
    model.adapter.error = ValueError("refused")
    for hook in (schedule.on_train_begin, *hooks):  # a run that was refused is none
        with pytest.raises(ValueError, match=r"on_train_begin|refused"):
            hook()


def test_hooks_take_no_logs_and_no_parameters(model):
    schedule = dsd.DSDSchedule(1, 1, 1)
    schedule.set_model(model)
    schedule.set_params(None)
    schedule.on_train_begin()
    for epoch in range(3):
        schedule.on_epoch_begin(epoch)
        model.train_function()
        schedule.on_epoch_end(epoch)
    schedule.on_train_end()
    assert is_plain(model)


def test_logs_are_added_to_and_training_stops_when_it_is_over(model):
    schedule = dsd.DSDSchedule(1, 1, 1, remaining_epochs="stop")
    logs = fit(model, schedule, 9, log=lambda epoch: {"loss": 0.5})
    assert logs == [
        {
            "loss": 0.5,
            "dsd_phase": phase,
            "dsd_sparsity": sparsity,
            "dsd_epochs_left": 0,
            "dsd_learning_rate": pytest.approx(rate),
        }
        for phase, (sparsity, rate) in enumerate([(0, 0.1), (0.5, 0.1), (0, 0.01)])
    ]
    assert model.stop_training
    assert len(fit(model, dsd.DSDSchedule(1, 1, 1), 5)) == 5  # extra epochs extend the last phase


def test_two_runs_with_one_schedule(model):
    schedule = dsd.DSDSchedule(1, 1, 1)
    one, two = fit(model, schedule, 3), fit(model, schedule, 3)
    assert one == two and [each["dsd_sparsity"] for each in two] == [0, 0.5, 0]
    assert is_plain(model)


def test_the_options_of_a_schedule_reach_its_controller(tmp_path):
    schedule = dsd.DSDSchedule(
        phases=[dsd.DensePhase(1, until=dsd.Plateau("loss")), dsd.SparsePhase(1)],
        backup_dir=tmp_path / "run", reset="all", remaining_epochs="stop",
    )  # fmt: skip
    model = FakeModel()
    with pytest.warns(UserWarning, match="pruned weights"):
        fit(model, schedule, 2, log=lambda epoch: {"loss": 1.0})
    assert (tmp_path / "run" / "dsd_history.json").exists()
    assert model.stop_training


class DiskError(Exception):
    pass


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
def test_after_an_exception_inside_an_epoch_a_run_resumes_at_it(epoch):
    model, schedule = FakeModel(), dsd.DSDSchedule(1, 2, 1)

    def fail(now):
        if now == epoch:
            model.train_function()  # within the epoch: the step is in place
            raise DiskError

    with pytest.raises(DiskError):
        fit(model, schedule, 4, log=lambda now: fail(now) or {})
    masks = [kernel.mask for kernel in model.kernels]
    logs = fit(model, schedule, 4, initial_epoch=epoch)
    assert [each["dsd_phase"] for each in logs] == [0, 1, 1, 2][epoch:]
    if epoch in (1, 2):
        assert all(mask is not None for mask in masks)
    assert is_plain(model)


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize("is_fit", [False, True])
def test_what_trains_after_an_exception_is_plain(epoch, is_fit):
    model = FakeModel()

    def fail(now):
        if now == epoch:
            raise DiskError

    with pytest.raises(DiskError):
        fit(model, dsd.DSDSchedule(1, 1, 1), 3, log=lambda now: fail(now) or {})
    assert "make_train_function" in vars(model)
    if is_fit:
        model.history = object()  # Keras makes a History for each fit
    model.make_train_function()  # as fit and train_on_batch call it
    assert is_plain(model)


def test_a_recompiled_model_gets_new_steps(model):
    """A callback that unfreezes layers compiles the model, and asks for a step."""
    made = []

    def compile_anew(epoch):
        if epoch == 1:
            model.train_function = None
        if epoch in (1, 2):
            model.make_train_function(force=epoch == 2)
            assert model.train_function is not None
        made.append(model.num_made)

    fit(model, dsd.DSDSchedule(1, 3, 1), 5, after=compile_anew)
    assert made == [1, 3, 4, 4, 5]
    assert is_plain(model)


class Unfreeze(dsd.DSDSchedule):
    """Freezes or unfreezes the first kernel and compiles the model, as an epoch has started."""

    def __init__(self, *phases, at, is_frozen=False, calls=0):
        super().__init__(*phases)
        self.at, self.is_frozen, self.num_steps = at, is_frozen, calls

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        if epoch == self.at:
            for _ in range(self.num_steps):
                self.model.train_function()
            self.model.kernels[0].is_frozen = self.is_frozen
            self.model.make_train_function(force=True)


@pytest.mark.parametrize(("at", "calls", "sparsity"), [
    (0, 0, [0.5, 0.5]), (1, 0, [0.5, 0.5]), (1, 1, [10 / 44] * 2),
    (2, 0, [0.5, 10 / 44]),  # what is frozen does not count
])  # fmt: skip
def test_what_is_unfrozen_by_the_first_step_of_a_sparse_phase_is_pruned(at, calls, sparsity, model):
    first, second = model.kernels
    first.is_frozen, values = True, first.values.copy()
    logs = fit(model, Unfreeze(1, 2, 1, at=at, calls=calls), 4)
    assert [each["dsd_sparsity"] for each in logs] == [0, *sparsity, 0]
    assert first.mask is None and second.mask is None
    assert not np.array_equal(first.values, values)
    assert is_plain(model)


def test_a_second_sparse_phase_masks_what_was_unfrozen_since_the_first(model):
    first, _ = model.kernels
    first.is_frozen = True
    schedule = dsd.DSDSchedule(phases=[dsd.SparsePhase(2), dsd.DensePhase(1)] * 2)

    def unfreeze(epoch):
        first.is_frozen = epoch < 1

    logs = fit(model, schedule, 6, after=unfreeze)
    assert [each["dsd_sparsity"] for each in logs] == [0.5, 0.5, 0, 0.5, 0.5, 0]
    assert model.num_made == 3  # a step is made for the weights that it masks


def test_a_weight_that_is_frozen_under_its_mask_loses_it_with_the_phase(model):
    first, _ = model.kernels
    logs = fit(model, Unfreeze(1, 2, 1, at=2, is_frozen=True), 4)
    assert [each["dsd_sparsity"] for each in logs] == [0, 0.5, 0.5, 0]
    assert first.mask is None and np.count_nonzero(first.values == 0) == 12


def test_two_schedules_in_one_fit_are_refused(model):
    one, two = dsd.DSDSchedule(1, 1, 1), dsd.DSDSchedule(1, 2, 1)
    before, model.history = model.state(), object()
    for schedule in (one, two):
        schedule.set_params({"epochs": 4})
        schedule.set_model(model)
    one.on_train_begin()
    with pytest.raises(ValueError, match=r"one DSDSchedule in a fit.*model='net'. Put all phases"):
        two.on_train_begin()
    assert all(map(np.array_equal, before, model.state()))
    logs = fit(model, two, 4)  # the run that was left open does not stand in the way of the next
    assert [each["dsd_phase"] for each in logs] == [0, 1, 1, 2]


def test_a_second_fit_with_another_schedule_is_not_taken_for_a_second_one_in_it(model):
    one, two = dsd.DSDSchedule(1, 1, 1), dsd.DSDSchedule(0, 1, 1)

    def fail(epoch):
        raise DiskError

    with pytest.raises(DiskError):
        fit(model, one, 3, log=fail)
    assert [each["dsd_phase"] for each in fit(model, two, 2)] == [0, 1]


def test_hooks_called_manually_start_again_after_an_exception(model):
    """No `fit` has made another History since."""
    model.history = object()
    for _ in range(2):
        schedule = dsd.DSDSchedule(1, 1, 1)
        schedule.set_params({"epochs": 3})
        schedule.set_model(model)
        schedule.on_train_begin()
        schedule.on_epoch_begin(0)
        model.train_function()  # and something raises


def test_each_kind_of_phase_has_one_step(model):
    phases = [
        dsd.DensePhase(2), dsd.SparsePhase(1), dsd.DensePhase(2, lr=0.5), dsd.SparsePhase(1, lr=2),
        dsd.DensePhase(1, lr=0.1),
    ]  # fmt: skip
    fit(model, dsd.DSDSchedule(phases=phases), 7)
    assert model.num_made == 2  # dense and masked


def test_the_learning_rate_is_scaled_in_the_phase_and_stays_its_owners(model):
    rates, phases = [], [dsd.DensePhase(2, lr=0.5), dsd.DensePhase(1)]

    def set_rate(epoch):
        rates.append(model.learning_rate)
        model.rate = 0.2

    logs = fit(model, dsd.DSDSchedule(phases=phases), 3, after=set_rate)
    assert rates == [0.05, 0.1, 0.2] and (model.rate, model.factors.value) == (0.2, 1.0)
    assert [each["dsd_learning_rate"] for each in logs] == [0.05, 0.1, 0.2]


def test_a_learning_rate_that_nothing_reads_is_reported_by_name(model):
    model.adapter.unscaled_optimizers = ["MySGD"]
    fit(model, dsd.DSDSchedule(phases=[dsd.DensePhase(3)]), 3)  # nothing to scale
    with pytest.warns(UserWarning, match=r"by 0\.5, but MySGD updates.*optimizer=MySGD") as seen:
        fit(model, dsd.DSDSchedule(phases=[dsd.DensePhase(3, lr=0.5)]), 3)
    assert len(seen) == 1


def test_a_step_without_updates_is_reported_once(model):
    model.adapter.observes = False
    with pytest.warns(UserWarning, match=r"No optimizer was seen.*model='net'.*DSDLoop") as seen:
        fit(model, dsd.DSDSchedule(phases=[dsd.DensePhase(3, lr=0.5)]), 3)
    assert len(seen) == 1


def test_steps_that_a_scaled_loss_skips_tell_nothing_yet(model):
    """The first hook that is not skipped reports for the first one."""
    model.adapter.num_skipped, model.adapter.has_own_train_step = 3, True
    model.kernels[1].is_trained = False
    phases = [dsd.SparsePhase(2, lr=0.5), dsd.DensePhase(1)]
    with pytest.warns(UserWarning, match=r"trains 1 of the selected weights: 'net/b/k") as seen:
        logs = fit(model, dsd.DSDSchedule(phases=phases), 3)
    assert len(seen) == 1
    assert ["dsd_learning_rate" in each for each in logs] == [False, True, True]


@pytest.mark.parametrize("dense", [1, 0])
def test_weights_that_no_optimizer_trains_stay_dense(model, dense):
    """They are known from the dense phase, or from the first step of the sparse one."""
    model.adapter.has_own_train_step, teacher = True, model.kernels[1]
    teacher.is_trained, values = False, teacher.values.copy()
    with pytest.warns(UserWarning, match=r"trains 1 of the selected weights: 'net/b/k") as seen:
        logs = fit(model, dsd.DSDSchedule(dense, 2, 1), dense + 3)
    assert len(seen) == 1 and teacher.mask is None and teacher.is_dense
    assert np.array_equal(teacher.values, values)
    if dense:
        assert [each["dsd_sparsity"] for each in logs] == [0, 0.5, 0.5, 0]
    teacher.is_trained = True
    fit(model, dsd.DSDSchedule(1, 1, 1), 3)  # the next run asks again
    assert not teacher.is_dense


def test_a_phase_trains_by_its_learning_rate(model):
    other = model.copy()
    fit(model, dsd.DSDSchedule(phases=[dsd.DensePhase(2, lr=0.5)]), 2)
    other.factors.set([0.5])
    for _ in range(4):
        other.train_step(masked=False)
    assert all(map(np.array_equal, model.state(), other.state()))


def test_a_dense_phase_is_plain(model):
    other = model.copy()
    fit(model, dsd.DSDSchedule(phases=[dsd.DensePhase(3)]), 3)
    for _ in range(6):
        other.train_step(masked=False)
    assert all(map(np.array_equal, model.state(), other.state()))


def test_hooks_without_any_fit_start_again(model):
    for _ in range(2):
        schedule = dsd.DSDSchedule(1, 1, 1)
        schedule.set_model(model)
        schedule.on_train_begin()
