"""A run from start to stop: checks, logs, warnings, messages, remaining epochs, observers."""

import inspect
import subprocess
import sys
import warnings

import numpy as np
import pytest
from absl import logging

import keras_dsd as dsd
from keras_dsd.engine import controller as controllers
from keras_dsd.engine.controller import Controller
from keras_dsd.engine.observers import Moment, Observer
from keras_dsd.engine.trainer import Trainer
from tests.unit.engine import fake_adapter
from tests.unit.engine.fake_adapter import FakeModel, fit

D1, D2, S1, S2 = dsd.DensePhase(1), dsd.DensePhase(2), dsd.SparsePhase(1), dsd.SparsePhase(2)
UNTIL = dsd.Plateau("loss", patience=1)


def make(model, phases=(D1, S1, D1), **options):
    return Controller(
        dsd.DSDSchedule(phases=list(phases)).timeline, Trainer(model, model.adapter), **options
    )


def train(controller, model, epochs, logs=None):
    """Runs epochs of an open run, and returns what their logs are to carry."""
    found = []
    for epoch in epochs:
        controller.begin_epoch(epoch)
        model.train_function()
        found.append(controller.end_epoch({} if logs is None else logs(epoch)))
    return found


def is_plain(model):
    """True if nothing of a run is left on the model."""
    return (
        "make_train_function" not in vars(model)
        and model.train_function is None
        and model.factors.value == 1.0
    )


class Seen(Observer):
    """Keeps every call."""

    def __init__(self):
        self.calls, self.logs = [], []

    def on_begin(self, timeline):
        self.calls.append(("begin", len(timeline.phases)))

    def on_phase(self, index, phase, epoch, changed):
        self.calls.append(("phase", index, phase, epoch, changed[:12]))

    def on_moment(self, moment, weights):
        assert isinstance(moment, Moment) and len(weights) == 2
        self.calls.append((moment.name, moment.epoch, moment.phase))

    def on_epoch_end(self, epoch, logs, weights):
        assert len(weights) == 2
        self.calls.append(("epoch", epoch))
        self.logs.append(dict(logs))

    def on_end(self):
        self.calls.append(("end",))


def test_no_framework_is_imported():
    program = (
        "import sys; from tests.unit.engine import fake_adapter; import keras_dsd as dsd; "
        "from keras_dsd.adapters import registry; import types; "
        "registry.adapter_of = lambda model: types.SimpleNamespace("
        "training_adapter=lambda model, optimizer=None: model.adapter); "
        "fake_adapter.fit(fake_adapter.FakeModel(), dsd.DSDSchedule(1, 1, 1), 3, verbose=1); "
        "found = {'keras', 'tf_keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules); "
        "assert not found, found"
    )
    root = inspect.getfile(fake_adapter).partition("/tests/unit/")[0]
    subprocess.run([sys.executable, "-c", program], cwd=root, check=True, capture_output=True)


def test_start_takes_any_number_of_epochs_and_an_unknown_one(model):
    for epochs in (1, 3, 4, None):
        controller = make(model)
        assert not controller.is_open
        controller.start(epochs)
        assert controller.is_open and not controller.is_in_epoch
        controller.stop()
        assert not controller.is_open and is_plain(model)


def test_start_raises_what_the_adapter_refuses_before_observers_know(model):
    seen, model.adapter.error = Seen(), ValueError("no optimizer")
    controller = make(model, observers=[seen])
    with pytest.raises(ValueError, match="no optimizer"):
        controller.start(3)
    assert seen.calls == [] and is_plain(model) and not controller.is_open


def test_an_observer_that_refuses_leaves_the_model_plain(model):
    class Refuse(Observer):
        def on_begin(self, timeline):
            raise ValueError("other phases")

    with pytest.raises(ValueError, match="other phases"):
        make(model, observers=[Refuse()]).start(3)
    assert is_plain(model)


@pytest.mark.parametrize(("epoch", "error"), [(-1, ValueError), (0.5, TypeError)])
def test_an_epoch_is_a_whole_number(model, epoch, error):
    controller = make(model)
    controller.start(3)
    with pytest.raises(error, match="Expected `epoch` to be"):
        controller.begin_epoch(epoch)


def test_logs(model):
    controller = make(model, [D2, S2, D1])
    controller.start(7)
    found = train(controller, model, range(7))
    assert [each["dsd_phase"] for each in found] == [0, 0, 1, 1, 2, 2, 2]
    assert [each["dsd_sparsity"] for each in found] == [0, 0, 0.5, 0.5, 0, 0, 0]
    assert [each["dsd_epochs_left"] for each in found] == [1, 0, 1, 0, 2, 1, 0]
    with pytest.raises(TypeError, match="Expected `logs` to be a dict.*logs=0.5 of type float"):
        controller.end_epoch(0.5)


def test_no_epochs_are_left_after_the_last_one_of_an_unknown_number(model):
    controller = make(model)
    controller.start(None)
    found = train(controller, model, range(5))
    assert [each["dsd_epochs_left"] for each in found] == [0] * 5


def test_only_zeros_that_a_mask_prunes_are_measured(model):
    controller = make(model, [S1, D1])
    controller.start(2)
    controller.begin_epoch(0)
    kernel = model.kernels[0]
    kernel.values[kernel.mask] = 0  # underflows
    assert controller.end_epoch({})["dsd_sparsity"] == 0.5
    controller.begin_epoch(1)
    assert controller.end_epoch({})["dsd_sparsity"] == (24 + 10) / 44


@pytest.mark.parametrize(("remaining_epochs", "phases", "left"), [
    ("redense", [0] * 3 + [1] * 2 + [2] * 7, [4, 3, 2, 2, 1, 6, 5, 4, 3, 2, 1, 0]),
    ("stop", [0] * 3 + [1] * 2 + [2] * 4, [4, 3, 2, 2, 1, 3, 2, 1, 0]),
])  # fmt: skip
def test_phases_end_early_and_the_last_one_gets_the_remaining_epochs(
    remaining_epochs, phases, left
):
    losses = [3.0, 2.0, 2.0, 1.0, 1.0, *[1.0] * 7]
    listed = [dsd.DensePhase(5, until=UNTIL), dsd.SparsePhase(3, until=UNTIL), dsd.DensePhase(4)]
    schedule = dsd.DSDSchedule(phases=listed, remaining_epochs=remaining_epochs)
    logs = fit(FakeModel(), schedule, 12, log=lambda epoch: {"loss": losses[epoch]})
    assert [each["dsd_phase"] for each in logs] == phases
    assert [each["dsd_epochs_left"] for each in logs] == left


@pytest.mark.parametrize("remaining_epochs", ["redense", "stop"])
def test_a_last_phase_that_has_converged_ends_training(remaining_epochs, model):
    listed = [S1, dsd.DensePhase(5, until=UNTIL)]
    schedule = dsd.DSDSchedule(phases=listed, remaining_epochs=remaining_epochs)
    logs = fit(model, schedule, 9, log=lambda epoch: {"loss": [5, 2, 1, 1][epoch]})
    assert len(logs) == 4 and model.stop_training


def test_a_name_that_is_never_measured_is_warned_of(model):
    listed = [dsd.DensePhase(2, until=UNTIL), dsd.SparsePhase(1, until=UNTIL), D1]
    with pytest.warns(UserWarning) as caught:
        fit(model, dsd.DSDSchedule(phases=listed), 4, log=lambda epoch: {"acc": 1.0})
    found = [str(each.message).partition("'loss' was")[2].partition(" For ")[0] for each in caught]
    assert found == [f" in the logs of none of its {n} epochs." for n in (2, 1)]


def test_observers_are_notified_in_order(model):
    seen = Seen()
    listed = [D1, S1, dsd.DensePhase(2), S1, D1]
    fit(model, dsd.DSDSchedule(phases=listed, observers=[seen]), 6, log=lambda e: {"loss": 1.0})
    assert seen.calls == [
        ("begin", 5),
        ("phase", 0, listed[0], 0, "all weights "), ("epoch", 0),
        ("before pruning", 1, 1), ("after pruning", 1, 1),
        ("phase", 1, listed[1], 1, "50.0% sparsi"), ("epoch", 1),
        ("end of sparse", 2, 1),
        ("phase", 2, listed[2], 2, "22 weights r"),
        ("first re-dense epoch", 3, 2), ("epoch", 2), ("epoch", 3),
        ("last re-dense epoch", 4, 2), ("before pruning", 4, 3), ("after pruning", 4, 3),
        ("phase", 3, listed[3], 4, "50.0% sparsi"), ("epoch", 4),
        ("end of sparse", 5, 3),
        ("phase", 4, listed[4], 5, "22 weights r"),
        ("first re-dense epoch", 6, 4), ("epoch", 5),
        ("last re-dense epoch", 6, 4), ("end",),
    ]  # fmt: skip
    assert seen.logs[1] == {
        "loss": 1.0, "dsd_phase": 1, "dsd_sparsity": 0.5, "dsd_epochs_left": 0,
        "dsd_learning_rate": 0.1,
    }  # fmt: skip


def test_observers_see_weights_and_masks_of_each_moment(model):
    found = {}

    class Look(Observer):
        def on_moment(self, moment, weights):
            found[moment.name] = [(w.numpy(), w.mask) for w in weights]
            if moment.name == "last re-dense epoch":
                found["rate"] = model.learning_rate

    fit(model, dsd.DSDSchedule(1, 1, 1, observers=[Look()]), 3)
    for index in range(2):
        before, after, end, first, last = (
            found[name][index]
            for name in ("before pruning", "after pruning", "end of sparse",
                         "first re-dense epoch", "last re-dense epoch")
        )  # fmt: skip
        assert before[1] is None and before[0].all()
        assert np.array_equal(after[0], before[0] * after[1])
        assert np.array_equal(end[1], after[1]) and not end[0][~end[1]].any()
        assert first[1] is None and first[0][~end[1]].all()
        assert np.array_equal(last[0], model.kernels[index].values)
    assert found["rate"] == 0.1  # the run is closed by then


def test_several_observers_are_notified_in_their_order(model):
    order = []

    class Note(Observer):
        def __init__(self, name):
            self.name = name

        def on_end(self):
            order.append(self.name)

    fit(model, dsd.DSDSchedule(1, 1, 1, observers=[Note("one"), Note("two")]), 3)
    assert order == ["one", "two"]


def stop_after(model, last):
    def stop(epoch):
        model.stop_training = epoch == last

    return stop


def test_a_run_that_ends_sparse_warns_at_the_line_that_trains(model):
    with pytest.warns(UserWarning, match="Training ended with pruned weights.*initial_epoch") as c:
        fit(model, dsd.DSDSchedule(1, 2, 1), 4, after=stop_after(model, 1))
    assert [each.filename for each in c] == [inspect.getfile(fake_adapter)]
    assert all((k.values == 0).mean() == 0.5 and k.mask is not None for k in model.kernels)
    assert is_plain(model)


def test_every_run_warns_not_only_the_first(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            fit(model, dsd.DSDSchedule(phases=[S1]), 1)
    assert len(caught) == 2


def test_a_run_that_ends_early_says_what_did_not_run(model, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        fit(model, dsd.DSDSchedule(2, 2, 2), 6, after=stop_after(model, 0))
    assert "Training ended in DSD phase 1 of 3: the later phases did not run" in caplog.text


def test_too_few_epochs_are_warned_of_as_they_end(model, caplog):
    with pytest.warns(UserWarning, match="DSD phase 1 of 3: .*Resume with `initial_epoch=2`"):
        fit(model, dsd.DSDSchedule(2, 2, 2), 2)
    assert is_plain(model)
    fit(model, dsd.DSDSchedule(1, 1, 3), 3)  # short, yet in its last phase
    assert caplog.text == ""


def test_a_run_that_ends_in_its_last_phase_is_quiet(model, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        fit(model, dsd.DSDSchedule(1, 1, 3), 6, after=stop_after(model, 2))
    assert caplog.text == ""


def test_a_run_that_stops_before_its_first_epoch_is_quiet(model, caplog):
    seen = Seen()
    with caplog.at_level("WARNING", logger="absl"):
        controller = make(model, observers=[seen])
        controller.start(3)
        controller.stop()
    assert caplog.text == "" and seen.calls == [("begin", 3), ("end",)]


def test_pruned_weights_that_others_restored_are_noticed(model):
    sparse = {}

    def restore(epoch):
        if epoch == 1:
            sparse["weights"] = model.get_weights()
        if epoch == 2:
            model.set_weights(sparse["weights"])

    with pytest.warns(UserWarning, match="or its weights were restored"):
        fit(model, dsd.DSDSchedule(1, 1, 1), 3, after=restore)
    fit(model, dsd.DSDSchedule(1, 1, 1), 3)  # and regrown ones, of which none is zero, are not


def test_one_tensor_without_zeros_is_enough_to_be_dense(model):
    sparse = {}

    def restore(epoch):
        if epoch == 1:
            sparse["values"] = model.kernels[0].numpy()
        if epoch == 2:
            model.kernels[0].assign(sparse["values"])

    fit(model, dsd.DSDSchedule(1, 1, 1), 3, after=restore)


def test_a_mask_that_something_else_violates_is_warned_of(model):
    controller = make(model, [S1, D1])
    controller.start(2)
    controller.begin_epoch(0)
    model.kernels[1].values += 0.01
    with pytest.warns(UserWarning, match="violated: 12 weights are zero .* 22 are pruned"):
        controller.end_epoch({})


def test_replaced_weights_are_masked_again_as_the_next_epoch_starts(model):
    controller = make(model, [D1, dsd.SparsePhase(3), D1])
    controller.start(5)
    train(controller, model, range(2))
    dense, pruned = [kernel.values + 1 for kernel in model.kernels], model.kernels[0].mask
    model.set_weights([*dense, model.bias])  # as a callback does that comes after DSDSchedule
    with pytest.warns(
        UserWarning, match="Weights were replaced during the sparse phase: 22 pruned"
    ):
        controller.begin_epoch(2)
    assert np.array_equal(model.kernels[0].values, np.where(pruned, dense[0], 0))
    model.set_weights([*dense, model.bias])  # and as one that comes before it
    with pytest.warns(UserWarning, match="The masks were violated: 0 .* Weights were replaced"):
        controller.end_epoch({})
    controller.begin_epoch(3)  # of which nothing more is said
    assert np.array_equal(model.kernels[0].values, np.where(pruned, dense[0], 0))
    controller.end_epoch({})
    train(controller, model, [4])
    controller.stop()


def test_a_mask_that_something_else_removed_is_warned_of(model):
    controller = make(model, [S1, D1])
    controller.start(2)
    controller.begin_epoch(0)
    model.kernels[1].mask = None
    with pytest.warns(UserWarning, match="The masks were violated"):
        controller.end_epoch({})


def test_nan_is_not_a_violation(model):
    controller = make(model, [S1, D1])
    controller.start(2)
    controller.begin_epoch(0)
    model.kernels[1].values[:] = np.nan
    controller.end_epoch({})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("epoch", [1, 2])
def test_weights_that_are_not_finite_stop_a_transition_with_nothing_changed(epoch, bad, model):
    controller = make(model, [D1, S1, D1], reset="all")
    controller.start(3)
    train(controller, model, range(epoch))
    model.kernels[1].values[3, 4] = bad
    before, masks = model.state(), [kernel.mask for kernel in model.kernels]
    for _ in range(2):  # it is refused again and again
        with pytest.raises(ValueError, match="net/b/kernel with 1 of 20 values NaN or infinite"):
            controller.begin_epoch(epoch)
        assert all(
            np.array_equal(a, b, equal_nan=True) for a, b in zip(before, model.state(), strict=True)
        )
        assert all(map(np.array_equal, masks, [kernel.mask for kernel in model.kernels]))
        assert not controller.is_in_epoch
    model.kernels[1].values[3, 4] = 1.0
    train(controller, model, range(epoch, 3))
    controller.stop()


def test_a_model_without_weights_is_refused_where_a_sparse_phase_starts(model):
    controller = make(model)
    model.kernels = []
    controller.start(3)
    controller.begin_epoch(0)  # a dense phase needs none
    assert controller.end_epoch({})["dsd_sparsity"] == 0
    with pytest.raises(ValueError, match="a model that has not been built. Call model"):
        controller.begin_epoch(1)


def test_a_model_of_which_all_is_frozen_is_refused_before_anything_changes(model):
    controller = make(model)
    model.kernels, model.adapter.frozen = [], [f"{name}/kernel" for name in "abcd"]
    controller.start(3)
    controller.begin_epoch(0)
    controller.end_epoch({})
    before = model.state()
    with pytest.raises(ValueError, match=(
        "model='net', whose selected weights are all frozen: 'a/kernel', 'b/kernel', 'c/kernel', "
        r"\.\.\.\. Set trainable = True .*discriminator.trainable = True before"
    )):  # fmt: skip
        controller.begin_epoch(1)
    assert all(map(np.array_equal, model.state(), before)) and model.factors.value == 1.0


def messages_of(capsys, caplog, verbose, interactive=True):
    model = FakeModel()
    model.adapter.interactive = interactive
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    caplog.clear()
    try:
        with caplog.at_level("INFO", logger="absl"):
            fit(model, dsd.DSDSchedule(2, 1, 1), 4, verbose=verbose)
    finally:
        logging.set_verbosity(verbosity)
    logged = [record.getMessage() for record in caplog.records]
    return capsys.readouterr().out.splitlines(), logged


def test_messages_are_shown_where_keras_prints_and_logged_otherwise(capsys, caplog):
    shown, logged = messages_of(capsys, caplog, 2)
    assert logged == [] and len(shown) == 3
    assert shown == [
        "Epoch 1: DSD phase 1/3 (dense, 2 epochs): all weights train, learning rate 0.1",
        "Epoch 3: DSD phase 2/3 (sparse, 1 epoch): 50.0% sparsity (22 of 44 weights in 2 tensors), "
        "optimizer state reset for pruned weights, learning rate 0.1",
        "Epoch 4: DSD phase 3/3 (re-dense, 1 epoch): 22 weights regrow from zero, optimizer state "
        "reset for regrown weights, learning rate 0.01",
    ]
    for verbose, interactive in ((0, True), (2, False)):
        out, logged = messages_of(capsys, caplog, verbose, interactive)
        assert out == [] and logged == shown


def test_restored_weights_are_logged(caplog, model):
    phases = [dsd.DensePhase(2, until=dsd.Plateau("loss", restore_best=True)), D1]
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.INFO)
    try:
        with caplog.at_level("INFO", logger="absl"):
            fit(model, dsd.DSDSchedule(phases=phases), 3, log=lambda epoch: {"loss": epoch})
    finally:
        logging.set_verbosity(verbosity)
    assert "DSD restored the weights of epoch 1, the best epoch of its phase" in caplog.text


def test_a_learning_rate_that_is_computed_is_named_as_that(capsys, model):
    model.adapter.scheduled = True
    fit(model, dsd.DSDSchedule(1, 1, 1), 3, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith(", scheduled learning rate")
    assert lines[2].endswith(", 0.1 times the scheduled learning rate")


@pytest.mark.parametrize("verbose", [0, 1])
def test_a_bar_shows_what_takes_long(verbose, model, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(controllers, "_SECONDS_WITHOUT_BAR", 0.0)
    model.norms = [fake_adapter.FakeNorm()]
    fit(model, dsd.DSDSchedule(0, 1, 1, batch_norm_data=[np.ones(2)] * 3), 2, verbose=verbose)
    bar = capfd.readouterr().err
    for words in ("net/b/kernel", "2/2", "batches for BatchNormalization", "3/100"):
        assert (words in bar) == bool(verbose), bar


def test_the_history_of_a_controller_outlives_a_run(model):
    """A custom loop that ends and starts again resumes from what it measured."""
    phases = [dsd.DensePhase(4, until=UNTIL), dsd.SparsePhase(2), D1]
    controller = make(model, phases, remaining_epochs="stop")
    assert not controller.is_over
    controller.start(None)
    train(controller, model, range(2), lambda epoch: {"loss": 1.0})
    controller.stop()
    controller.start(None)
    found = train(controller, model, range(2, 5), lambda epoch: {"loss": 1.0})
    assert [each["dsd_phase"] for each in found] == [1, 1, 2]
    assert controller.is_over
    controller.stop()
    assert controller.is_over


def test_a_run_may_go_back_to_an_earlier_epoch(model):
    controller = make(model)
    controller.start(None)
    train(controller, model, range(3))
    found = train(controller, model, range(3))
    assert [each["dsd_phase"] for each in found] == [0, 1, 2]
    assert [each["dsd_sparsity"] for each in found] == [0, 0.5, 0]


def test_processes_compare_their_arguments_before_a_run():
    def arguments(**options):
        model = FakeModel()
        fit(model, dsd.DSDSchedule(1, 1, 1, **options), 3)
        return model.adapter.arguments

    assert arguments() == arguments()
    others = {"observers": [dsd.WeightHistory()]}, {"reset": "all"}, {"redense_lr": 0.5}
    assert len({arguments(), *(arguments(**each) for each in others)}) == 4


def test_nothing_changes_where_processes_have_other_arguments():
    def differ(arguments):
        raise ValueError("others in process 1")

    model, history = FakeModel(), dsd.WeightHistory()
    model.adapter.check_same, before = differ, model.state()
    with pytest.raises(ValueError, match="others in process 1"):
        fit(model, dsd.DSDSchedule(1, 1, 1, observers=[history]), 3)
    assert all(map(np.array_equal, model.state(), before))
    assert "make_train_function" not in vars(model) and not history.snapshots


def test_observers_are_notified_who_writes(tmp_path):
    for is_chief in (True, False):
        model, history = FakeModel(), dsd.WeightHistory(tmp_path / f"{is_chief}.json")
        model.adapter.is_chief = is_chief
        fit(model, dsd.DSDSchedule(1, 1, 1, observers=[history]), 3)
        assert len(history.snapshots) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["True.json"]
