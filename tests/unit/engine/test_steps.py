"""Phases counted in steps: where they start, what the logs say, and runs that resume anywhere."""

import functools
import itertools
import shutil

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.algorithm.position import Position
from keras_dsd.engine.observers import Observer
from tests.unit.engine.fake_adapter import FakeModel, FakeNorm, fit

D, S = dsd.DensePhase, dsd.SparsePhase
TIMELINES = {
    "within an epoch": [D(steps=3), S(steps=6), D(1)],
    "at an epoch's end": [D(steps=4), S(steps=4), D(1)],
    "several in an epoch": [(D, S)[n % 2 == 0](steps=n) for n in (1, 2, 1, 4, 3, 2, 1)],
    "epochs, then steps": [D(1), S(steps=6), D(1, lr=0.1)],
    "steps, then epochs": [D(steps=6), S(1), D(steps=2)],
    "learning rates": [D(steps=3, lr="cosine"), S(steps=6, lr="linear"), D(1)],
    "a ramp": [D(steps=2), S(3, ramp=2), D(1)],
    "at random": [D(steps=3), S(steps=6, criterion="random"), D(steps=2)],
    "sparse first": [S(steps=5, sparsity=0.25), D(1), D(1)],
}
EQUAL, UNEQUAL = [4, 4, 4, 4], [1, 5, 2, 7]
EPOCHS = 4
pytestmark = pytest.mark.filterwarnings("ignore:Training ended with pruned weights")


def transcribed(phases, num_batches, per_execution=1, per_step=1):
    """Returns the phase of each batch, and of each epoch's end: what the documentation says."""
    of_batches, of_epochs, index, number = [], [], 0, 0
    start = 0  # of the phase: a step where steps are counted, else an epoch
    for epoch, num in enumerate(num_batches):
        for batch in range(0, num, per_execution):
            while index + 1 < len(phases):
                phase, following = phases[index], phases[index + 1]
                now = epoch if phase.steps is None else number // per_step
                end = start + (phase.steps or phase.epochs)
                if now < end:
                    break
                index += 1
                if following.steps is None:
                    start = epoch
                else:
                    start = number // per_step if phase.steps is None else end
            executed = min(per_execution, num - batch)
            of_batches += [index] * executed
            number += executed
        of_epochs.append(index)
    return of_batches, of_epochs


def train(phases, num_batches=EQUAL, prepare=None, keep=None, schedule=None, **options):
    """Trains, and returns the model, the logs, whether each batch was masked, and copies."""
    model, masked, copies = FakeModel(), [], {}
    if prepare:
        prepare(model)

    def after_batch(epoch, batch):
        masked.extend(
            [model.kernels[0].mask is not None] * (model.adapter.num_batches - len(masked))
        )
        copies[epoch, batch] = model.copy()
        if keep:
            keep(epoch, batch)

    schedule = dsd.DSDSchedule(phases=phases, **schedule or {})
    logs = fit(model, schedule, len(num_batches), after_batch=after_batch, steps=num_batches,
               **options)  # fmt: skip
    return model, logs, masked, copies


def resume(copy, phases, epoch, batch, num_batches=EQUAL, prepare=None, schedule=None, **options):
    """Resumes a run from a copy, as a program that is started again does with BackupAndRestore."""
    if batch == num_batches[epoch]:
        epoch, batch = epoch + 1, 0
    model = FakeModel()
    if prepare:
        prepare(model)
    schedule = dsd.DSDSchedule(phases=phases, **schedule or {})
    options = {"restore": functools.partial(model.load, copy), **options}
    logs = fit(model, schedule, len(num_batches), steps=num_batches, initial_epoch=epoch,
               initial_batch=batch, **options)  # fmt: skip
    return model, logs


def same_state(one, two):
    return all(map(np.array_equal, one.state(), two.state()))


def is_masked(phases, of_batches):
    return [isinstance(phases[index], S) for index in of_batches]


@pytest.mark.parametrize("num_batches", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("name", TIMELINES)
def test_phases_start_where_the_documentation_says(name, num_batches):
    phases = TIMELINES[name]
    model, logs, masked, _ = train(phases, num_batches, steps_known=False)
    of_batches, of_epochs = transcribed(phases, num_batches)
    assert masked == is_masked(phases, of_batches)
    assert [each["dsd_phase"] for each in logs] == of_epochs
    assert [each["dsd_steps"] for each in logs] == [*itertools.accumulate(num_batches)]
    assert model.num_made <= 2  # compiled steps, whatever the number of phases


def test_through_the_first_phase_training_is_plain():
    model, plain = FakeModel(), FakeModel()
    fit(plain, dsd.DSDSchedule(phases=[D(9)]), 1, steps=9)
    seen = []
    fit(model, dsd.DSDSchedule(phases=[D(steps=9), S(steps=1), D(1)]), 1, steps=11,
        after_batch=lambda epoch, batch: seen.append(model.state()))  # fmt: skip
    assert all(map(np.array_equal, seen[8], plain.state()))


@pytest.mark.parametrize("with_masks", [True, False], ids=["masks", "no masks"])
@pytest.mark.parametrize("reset", ["pruned", "all", "none"])
@pytest.mark.parametrize("name", TIMELINES)
def test_a_run_resumes_at_any_step(name, reset, with_masks):
    phases, options = TIMELINES[name], {"schedule": {"reset": reset}}
    whole, logs, _, copies = train(phases, **options)
    for epoch, batch in [*copies][:-1]:
        copy = copies[epoch, batch].copy(with_masks)
        model, rest = resume(copy, phases, epoch, batch, **options)
        assert same_state(model, whole), (epoch, batch)
        assert rest == logs[epoch + batch // 4 :]


@pytest.mark.parametrize("name", TIMELINES)
def test_a_run_of_unequal_epochs_resumes_with_its_record(name, tmp_path):
    """Keras does not know how many batches an epoch has: what earlier ones had is in the folder."""
    phases, folder = TIMELINES[name], tmp_path / "run"

    def keep(epoch, batch=0):
        shutil.copytree(folder, tmp_path / f"{epoch}-{batch}")

    options = {"num_batches": UNEQUAL, "steps_known": False}
    schedule = {"backup_dir": folder}
    whole, logs, _, copies = train(
        phases, keep=keep, after=lambda epoch: keep(epoch + 1), schedule=schedule, **options
    )
    for (epoch, batch), copy in [*copies.items()][:-1]:
        name = f"{epoch}-{batch}" if batch < UNEQUAL[epoch] else f"{epoch + 1}-0"
        for each in (tmp_path / name, folder):  # as it was then, and with the rest of the run
            schedule = {"backup_dir": shutil.copytree(each, tmp_path / "now")}
            model, rest = resume(copy, phases, epoch, batch, schedule=schedule, **options)
            assert same_state(model, whole), (epoch, batch, each)
            assert rest == logs[-len(rest) :]
            shutil.rmtree(tmp_path / "now")


def test_phases_in_steps_alone_need_no_record():
    phases = TIMELINES["several in an epoch"]
    options = {"num_batches": UNEQUAL, "steps_known": False}
    whole, _, _, copies = train(phases, **options)
    for (epoch, batch), copy in [*copies.items()][:-1]:
        assert same_state(resume(copy, phases, epoch, batch, **options)[0], whole), (epoch, batch)


def test_mixed_phases_of_unknown_epochs_are_refused_without_a_record():
    phases = TIMELINES["epochs, then steps"]
    options = {"num_batches": UNEQUAL, "steps_known": False}
    _, _, _, copies = train(phases, **options)
    with pytest.raises(ValueError, match="a known number of steps of the previous 2 epochs"):
        resume(copies[2, 1], phases, 2, 1, **options)


@pytest.mark.parametrize("name", TIMELINES)
def test_a_file_without_the_optimizer_resumes_by_the_number_of_epochs(name):
    phases = TIMELINES[name]
    _, logs, _, copies = train(phases)
    for epoch in range(1, EPOCHS):
        model = copies[epoch - 1, 4].copy()
        model.iterations = 0
        rest = fit(model, dsd.DSDSchedule(phases=phases), EPOCHS, initial_epoch=epoch, steps=4)
        keys = "dsd_phase", "dsd_steps", "dsd_sparsity"
        assert [[e[k] for k in keys] for e in rest] == [[e[k] for k in keys] for e in logs[epoch:]]
    model.iterations = 0
    with pytest.raises(ValueError, match="optimizer that has made 0 updates"):
        fit(model.copy(), dsd.DSDSchedule(phases=phases), 4, initial_epoch=2, steps_known=False)


@pytest.mark.filterwarnings("ignore:Training ended in DSD phase")
@pytest.mark.parametrize("is_compiled_anew", [False, True])
@pytest.mark.parametrize("name", TIMELINES)
def test_a_fit_for_each_epoch(name, is_compiled_anew):
    phases = TIMELINES[name]
    whole, logs, _, _ = train(phases, UNEQUAL)
    model, rest = FakeModel(), []
    for epoch in range(EPOCHS):
        rest += fit(model, dsd.DSDSchedule(phases=phases), epoch + 1, initial_epoch=epoch,
                    steps=UNEQUAL, steps_known=False)  # fmt: skip
        if is_compiled_anew:
            model.iterations = 0
    for one, two in zip(rest, logs, strict=True):
        assert {**one, "dsd_epochs_left": 0} == {**two, "dsd_epochs_left": 0}
    assert is_compiled_anew or same_state(model, whole)


def test_an_interrupted_epoch_is_resumed_in_the_same_process():
    """The optimizer has counted the steps of the epoch that an exception stopped."""
    phases, model = [D(steps=6), S(steps=6), D(1)], FakeModel()

    def stop(epoch, batch):
        if (epoch, batch) == (1, 3):  # after seven steps: in the sparse phase
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, dsd.DSDSchedule(phases=phases), 4, steps=4, after_batch=stop)
    masked = []
    logs = fit(model, dsd.DSDSchedule(phases=phases), 4, steps=4, initial_epoch=1,
               after_batch=lambda *_: masked.append(model.kernels[0].mask is not None))  # fmt: skip
    assert masked == [True] * 5 + [False] * 7  # Keras repeats the epoch's first batches
    assert [each["dsd_steps"] for each in logs] == [11, 15, 19]


# Kinds of batches: executions of several, accumulated gradients, custom updates.


@pytest.mark.parametrize("num_batches", [[6, 6, 6], [5, 7, 6]], ids=["equal", "unequal"])
@pytest.mark.parametrize("per_execution", [2, 3])
@pytest.mark.filterwarnings("ignore:A phase of . steps ends up to")
def test_a_phase_ends_with_the_execution_that_makes_its_last_step(per_execution, num_batches):
    phases = [D(steps=3), S(steps=7), D(1)]

    def prepare(model):
        model.adapter.batches_per_execution = per_execution
        model.norms = [FakeNorm()]

    options = {"num_batches": num_batches, "prepare": prepare}
    options["schedule"] = {"batch_norm_data": [np.ones(2), np.arange(2.0)]}
    whole, logs, masked, copies = train(phases, **options)
    of_batches, of_epochs = transcribed(phases, num_batches, per_execution)
    assert masked == is_masked(phases, of_batches)
    assert [each["dsd_phase"] for each in logs] == of_epochs
    for (epoch, batch), copy in [*copies.items()][:-1]:
        model, rest = resume(copy, phases, epoch, batch, **options)
        assert same_state(model, whole), (epoch, batch)
        assert rest == logs[-len(rest) :]
        # the masks of a phase that starts here are made here, and the statistics with them
        if sum(num_batches[:epoch]) + batch == of_batches.index(1):
            assert model.norms[0].moving_mean.numpy() == 0.75


def test_steps_that_do_not_fit_into_executions_are_warned_of_or_refused():
    def prepare(model):
        model.adapter.batches_per_execution = 4

    with pytest.warns(UserWarning, match="A phase of 6 steps ends up to 3 steps late") as caught:
        train([D(steps=6), S(steps=7), D(1)], [8, 8], prepare)
    assert "steps_per_execution=4" in str(caught[0].message)
    with pytest.raises(ValueError, match=r"steps=3, with 4 steps in each execution"):
        train([D(steps=3), S(steps=8), D(1)], [8, 8], prepare)
    train([D(steps=4), S(steps=8), D(1)], [8, 8], prepare)


def test_accumulated_gradients_make_one_step():
    phases, num_batches = [D(steps=2), S(steps=3), D(1)], [5, 8, 6]

    def prepare(model):
        model.adapter.per_step = 2

    options = {"num_batches": num_batches, "prepare": prepare}
    whole, logs, masked, copies = train(phases, **options)
    assert masked == is_masked(phases, transcribed(phases, num_batches, per_step=2)[0])
    assert [each["dsd_steps"] for each in logs] == [2, 6, 9]
    for (epoch, batch), copy in [*copies.items()][:-1]:
        if sum(num_batches[:epoch]) + batch != 5:  # in the middle of a step: see below
            assert same_state(resume(copy, phases, epoch, batch, **options)[0], whole)


@pytest.mark.parametrize(("updates_of", "masked"), [
    (lambda batch: 2, [0] * 2 + [1] * 3 + [0] * 3),  # two updates a batch
    (lambda batch: batch % 2 == 0, [0] * 7 + [1] * 12 + [0] * 5),  # one every other batch
    (lambda batch: batch != 2, [0] * 5 + [1] * 6 + [0] * 3),  # one was skipped: loss overflow
], ids=["two", "every other", "skipped"])  # fmt: skip
def test_the_optimizer_s_own_count_decides(updates_of, masked):
    phases, num_batches = [D(steps=4), S(steps=6), D(1)], [len(masked)]

    def prepare(model):
        model.adapter.updates_of = updates_of

    _, logs, found, _ = train(phases, num_batches, prepare)
    assert found == masked
    assert logs[0]["dsd_steps"] == sum(map(updates_of, range(len(masked))))


def test_batches_are_counted_where_no_optimizer_counts():
    phases = TIMELINES["within an epoch"]

    def prepare(model):
        model.adapter.counts = False

    whole, logs, masked, copies = train(phases, prepare=prepare)
    assert masked == is_masked(phases, transcribed(phases, EQUAL)[0])
    assert [each["dsd_steps"] for each in logs] == [4, 8, 12, 16]
    model, _ = resume(copies[1, 4], phases, 1, 4, prepare=prepare)
    assert same_state(model, whole)


def test_the_optimizer_is_read_a_few_times_whatever_the_number_of_batches():
    model = FakeModel()
    schedule = dsd.DSDSchedule(phases=[D(steps=300), S(steps=300), D(1)])
    fit(model, schedule, 2, steps=500)
    # set_model, the first epoch's start, its second batch, two phases, two epochs' ends
    assert model.adapter.num_readings == 7
    without = FakeModel()
    fit(without, dsd.DSDSchedule(1, 1, 1), 3)
    assert without.adapter.num_readings == 0


def test_a_recompiled_model_continues_the_count():
    model, masked = FakeModel(), []

    def after_batch(epoch, batch):
        masked.append(model.kernels[0].mask is not None)
        if batch == 2:
            model.iterations = 0

    logs = fit(model, dsd.DSDSchedule(phases=[D(steps=5), S(steps=6), D(1)]), 4, steps=4,
               after_batch=after_batch)  # fmt: skip
    assert [each["dsd_steps"] for each in logs] == [2, 4, 6, 8] or masked


# Where a run starts, and where it ends.


def test_a_run_starts_where_the_optimizer_s_count_says():
    """As a LearningRateSchedule does; compiled again, it starts with the first phase."""
    model = FakeModel()
    model.iterations = 5
    with pytest.warns(UserWarning, match="has made 5 steps, so the run resumes after them, in pha"):
        logs = fit(model, dsd.DSDSchedule(phases=TIMELINES["within an epoch"]), 2, steps=4)
    assert [each["dsd_phase"] for each in logs] == [1, 2]
    assert [each["dsd_steps"] for each in logs] == [9, 13]
    model.iterations = 1
    with pytest.warns(UserWarning, match="phase 1 of 3. .* give DSDSchedule initial_step=0"):
        logs = fit(model, dsd.DSDSchedule(phases=TIMELINES["within an epoch"]), 3, steps=4)
    assert [each["dsd_steps"] for each in logs] == [5, 9, 13]


@pytest.mark.parametrize("name", TIMELINES)
def test_a_trained_model_starts_with_the_first_phase(name):
    """With initial_step=0, whatever its optimizer has counted, and a resumed run finds its step."""
    phases, schedule = TIMELINES[name], {"initial_step": 0}
    of_batches, _ = transcribed(phases, EQUAL)

    def trained(model):
        model.iterations = 1000

    whole, logs, masked, copies = train(phases, prepare=trained, schedule=schedule)
    assert masked == is_masked(phases, of_batches)
    assert whole.iterations == 1000 + sum(EQUAL)
    for epoch, batch in [*copies][:-1]:
        model, rest = resume(copies[epoch, batch], phases, epoch, batch, prepare=trained,
                             schedule=schedule)  # fmt: skip
        assert same_state(model, whole), (epoch, batch)
        assert rest == logs[epoch + batch // 4 :]


def test_initial_step_resumes_without_a_warning():
    model = FakeModel()
    model.iterations = 1005
    phases = TIMELINES["within an epoch"]
    logs = fit(model, dsd.DSDSchedule(phases=phases, initial_step=5), 2, steps=4)
    assert [each["dsd_phase"] for each in logs] == [1, 2]
    assert [each["dsd_steps"] for each in logs] == [9, 13]


def test_a_loop_takes_initial_step():
    model, phases = FakeModel(), [D(steps=2), S(steps=3), D(1)]
    model.iterations = 1000
    _, masked, _ = loop_through(model, phases, [4, 4], initial_step=0)
    assert masked == [False] * 2 + [True] * 3 + [False] * 3


def test_initial_step_is_of_phases_in_steps():
    with pytest.raises(ValueError, match="initial_step=0"):
        dsd.DSDSchedule(1, 1, 1, initial_step=0)
    with pytest.raises(ValueError, match="initial_step=-1"):
        dsd.DSDSchedule(phases=[D(steps=1)], initial_step=-1)
    with pytest.raises(TypeError, match="initial_step='2'"):
        dsd.DSDSchedule(phases=[D(steps=1)], initial_step="2")


def test_a_first_phase_in_epochs_starts_a_run_whatever_the_optimizer_has_counted():
    model, masked = FakeModel(), []
    model.iterations = 1000
    logs = fit(model, dsd.DSDSchedule(phases=TIMELINES["epochs, then steps"]), 3, steps=4,
               after_batch=lambda *_: masked.append(model.kernels[0].mask is not None))  # fmt: skip
    assert [each["dsd_steps"] for each in logs] == [4, 8, 12]
    assert masked == [False] * 4 + [True] * 6 + [False] * 2


def test_the_record_tells_what_the_optimizer_had_counted_before(tmp_path):
    phases, model, copies = TIMELINES["epochs, then steps"], FakeModel(), []
    model.iterations = 7
    options = {"phases": phases, "backup_dir": tmp_path}
    fit(model, dsd.DSDSchedule(**options), 4, steps=4,
        after_batch=lambda *_: copies.append(model.copy()))  # fmt: skip
    for step in (5, 6, 9, 11):
        rest, _ = resume(copies[step - 1], phases, step // 4, step % 4,
                         schedule={"backup_dir": tmp_path})  # fmt: skip
        assert same_state(rest, model), step


@pytest.mark.parametrize("steps", [9, 12])
def test_a_last_phase_in_steps_ends_training_if_requested(steps):
    """Also within an epoch that never ends, as that of a stream."""
    phases = [D(steps=3), S(steps=3), D(steps=steps - 6, lr=0.1)]
    model, schedule = FakeModel(), dsd.DSDSchedule(phases=phases, remaining_epochs="stop")
    logs = fit(model, schedule, 9, steps=4)
    assert (model.iterations, model.stop_training) == (steps, True)
    assert [each["dsd_phase"] for each in logs] == [1, 2, 2]
    assert [each["dsd_epochs_left"] for each in logs] == [1, (steps - 8 + 3) // 4, 0]
    endless, schedule = FakeModel(), dsd.DSDSchedule(phases=phases, remaining_epochs="stop")
    (logs,) = fit(endless, schedule, 1, steps=10**9, steps_known=False)
    assert (logs["dsd_phase"], logs["dsd_steps"], logs["dsd_epochs_left"]) == (2, steps, 0)
    assert same_state(endless, model)


def test_a_last_phase_in_steps_has_the_rest_of_the_epochs_otherwise():
    phases = [D(steps=3), S(steps=3), D(steps=1)]
    model = FakeModel()
    logs = fit(model, dsd.DSDSchedule(phases=phases), 3, steps=4)
    assert model.iterations == 12 and not model.stop_training
    assert [each["dsd_epochs_left"] for each in logs] == [1, 1, 0]


def test_a_fit_that_ends_early_warns():
    with pytest.warns(UserWarning, match="ended in DSD phase 1 of 3") as caught:
        fit(FakeModel(), dsd.DSDSchedule(phases=[D(steps=9), S(steps=9), D(1)]), 2, steps=4)
    assert len(caught) == 1
    model = FakeModel()

    def stop(epoch):
        model.stop_training = True

    fit(model, dsd.DSDSchedule(phases=[D(steps=9), S(steps=9), D(1)]), 2, steps=4, after=stop)
    complete = fit(FakeModel(), dsd.DSDSchedule(phases=[D(steps=3), S(steps=3), D(1)]), 2, steps=4)
    assert complete[-1]["dsd_phase"] == 2


@pytest.mark.parametrize("steps_known", [True, False])
def test_remaining_epochs_of_a_phase_in_steps_are_at_the_length_of_the_last(steps_known):
    phases = [D(steps=9), S(2), D(steps=6)]
    _, logs, _, _ = train(phases, [4, 4, 4, 4, 4, 4], steps_known=steps_known)
    assert [each["dsd_phase"] for each in logs] == [0, 0, 1, 1, 2, 2]
    assert [each["dsd_epochs_left"] for each in logs] == [2, 1, 1, 0, 1, 0]


# Phases with `until`, observers, messages.


def test_a_phase_with_until_may_start_within_an_epoch(tmp_path):
    """The rest of that epoch is its first; its best weights are those of an epoch's end."""
    until = dsd.Plateau("loss", patience=2, restore_best=True)
    phases = [D(steps=6), S(6, until=until), D(steps=3), D(1)]
    losses = [0.0, 3.0, 2.0, 5.0, 5.0, 1.0]
    model = FakeModel()
    options = {"steps": 4, "log": lambda epoch: {"loss": losses[epoch]}}
    schedule, masked = dsd.DSDSchedule(phases=phases, backup_dir=tmp_path / "run"), []
    copies = {}

    def after_batch(epoch, batch):
        masked.append(model.kernels[0].mask is not None)
        if batch < 4:
            copies[epoch, batch] = model.copy()
            if epoch:
                shutil.copytree(tmp_path / "run", tmp_path / f"{epoch}-{batch}")

    logs = fit(model, schedule, 6, after_batch=after_batch, **options)
    assert [each["dsd_phase"] for each in logs] == [0, 1, 1, 1, 1, 3]
    assert masked == [False] * 6 + [True] * 14 + [False] * 4
    for (epoch, batch), copy in copies.items():
        if epoch:
            record = {"backup_dir": tmp_path / f"{epoch}-{batch}"}
            again, rest = resume(copy, phases, epoch, batch, [4] * 6, schedule=record,
                                 log=options["log"])  # fmt: skip
            assert same_state(again, model), (epoch, batch)
            assert rest == logs[epoch:]


def test_best_weights_are_restored_once_before_a_phase_within_an_epoch(monkeypatch):
    until = dsd.Plateau("loss", restore_best=True)
    phases, model, restored = [D(2, until=until), S(steps=2), D(1)], FakeModel(), []
    monkeypatch.setattr(
        model.adapter, "set_weights", lambda values: restored.append(model.iterations)
    )
    fit(model, dsd.DSDSchedule(phases=phases), 3, steps=4, log=lambda epoch: {"loss": epoch})
    assert restored == [8]


class Seen(Observer):
    """Keeps what it is notified of."""

    def __init__(self):
        self.phases, self.moments = [], []

    def on_phase(self, index, phase, epoch, changed):
        self.phases.append((index, epoch))

    def on_moment(self, moment, weights):
        self.moments.append((moment.name, moment.epoch))


def test_observers_and_messages_of_phases_within_an_epoch(capsys):
    seen = Seen()
    schedule = dsd.DSDSchedule(phases=[D(steps=3), S(steps=3), D(2)], observers=[seen])
    fit(FakeModel(), schedule, 3, steps=4, verbose=1)
    assert seen.phases == [(0, 0), (1, 0), (2, 1)]
    assert seen.moments == [
        ("before pruning", 0), ("after pruning", 0), ("end of sparse", 1),
        ("first re-dense epoch", 2), ("last re-dense epoch", 3),
    ]  # fmt: skip
    lines = [line.partition("):")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "Epoch 1, after 0 steps: DSD phase 1/3 (dense, 3 steps",
        "",  # ends the line of the progress bar
        "Epoch 1, after 3 steps: DSD phase 2/3 (sparse, 3 steps",
        "",
        "Epoch 2, after 6 steps: DSD phase 3/3 (re-dense, 2 epochs",
    ]


def test_phases_that_one_batch_jumps_over_are_entered_and_left():
    """A user's own training step may make more updates than phases have."""
    seen = Seen()
    schedule = {"observers": [seen]}

    def prepare(model):
        model.adapter.updates_of = lambda batch: 5 if batch == 2 else 1

    _, logs, masked, _ = train([D(steps=4), S(steps=2), D(1)], [6], prepare, schedule=schedule)
    assert not any(masked) and logs[0]["dsd_phase"] == 2
    assert [index for index, _ in seen.phases] == [0, 1, 2]
    assert [name for name, _ in seen.moments[:3]] == [
        "before pruning", "after pruning", "end of sparse",
    ]  # fmt: skip


@pytest.mark.parametrize(("phases", "steps_known", "expected"), [
    ([D(steps=3), S(steps=7), D(1)], True,
     [(0, 0, 3), (0, 1, 3), (0, 2, 3), (1, 0, 7), (1, 1, 7), (1, 2, 7), (1, 3, 7), (1, 4, 7),
      (1, 5, 7), (1, 6, 7), (2, 0, 2), (2, 1, 2)]),
    ([D(2), S(steps=3), D(1)], True,
     [*((0, step, 8) for step in range(8)), (1, 0, 3), (1, 1, 3), (1, 2, 3), (2, 0, 1)]),
    ([D(2), S(steps=3), D(1)], False,
     [*((0, step, None) for step in range(4)), *((0, step, 8) for step in range(4, 8)), (1, 0, 3),
      (1, 1, 3), (1, 2, 3), (2, 0, 1)]),
])  # fmt: skip
def test_the_position_within_a_phase(phases, steps_known, expected):
    model, schedule, found = FakeModel(), dsd.DSDSchedule(phases=phases), []

    def look(batch):
        begin(batch)
        found.append(schedule._controller.position)

    begin = schedule.on_train_batch_begin
    schedule.on_train_batch_begin = look
    fit(model, schedule, 3, steps=4, steps_known=steps_known)
    assert found == [Position(*each) for each in expected]


# DSDLoop.


def loop_through(model, phases, num_batches, is_counted=True, **options):
    masked, found, started = [], [], []
    with dsd.DSDLoop(model, object(), dsd.DSDSchedule(phases=phases, **options)) as loop:
        for epoch, number in enumerate(num_batches):
            loop.begin_epoch(epoch)
            for _ in range(number):
                is_due = loop.starts_phase
                started.append(loop.begin_step() if is_counted else None)
                assert not is_counted or started[-1] == is_due
                model.train_step(masked=False)
                loop.apply_masks()
                masked.append(model.kernels[0].mask is not None)
                if loop.is_over:
                    break
            found.append(loop.end_epoch())
            if loop.is_over:
                break
    return found, masked, started


@pytest.mark.parametrize("num_batches", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("name", TIMELINES)
def test_a_loop_trains_as_fit_does(name, num_batches):
    phases = TIMELINES[name]
    fitted, logs, masked, _ = train(phases, num_batches, steps_known=False)
    model = FakeModel()
    found, looped, _ = loop_through(model, phases, num_batches)
    assert looped == masked and same_state(model, fitted)
    for one, two in zip(found, logs, strict=True):
        assert {**one, "dsd_epochs_left": 0} == {**two, "dsd_epochs_left": 0}


def test_a_loop_ends_with_the_last_step_if_requested():
    model = FakeModel()
    phases = [D(steps=2), S(steps=3), D(steps=2)]
    found, masked, started = loop_through(model, phases, [10**9], remaining_epochs="stop")
    assert masked == [False] * 2 + [True] * 3 + [False] * 2
    assert started == [False, False, True, False, False, True, False]
    assert found[0]["dsd_steps"] == model.iterations == 7


def test_a_loop_that_does_not_count_is_refused():
    model = FakeModel()
    with pytest.raises(ValueError, match=r"Expected begin_step\(\) before each update"):
        loop_through(model, [D(steps=2), S(steps=3), D(1)], [4], is_counted=False)
    model = FakeModel()
    loop = dsd.DSDLoop(model, object(), dsd.DSDSchedule(phases=[D(steps=2), S(steps=3), D(1)]))
    with pytest.raises(ValueError, match=r"begin_epoch\(\) before begin_step\(\)"):
        loop.begin_step()
    loop.begin_epoch(0)
    with pytest.raises(ValueError, match="an epoch without a call of it"):
        loop.end_epoch()
    loop.begin_step()
    loop.end_epoch()
    loop.begin_epoch(1)
    with pytest.raises(ValueError, match="an epoch without a call of it"):
        loop.apply_masks()
    model.adapter.tracing = True
    with pytest.raises(ValueError, match=r"begin_step\(\) outside of tf.function"):
        loop.begin_step()
