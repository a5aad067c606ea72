"""Learning rates inside a phase over the fake adapter: each step, resumed runs, other schedules."""

import functools
import warnings

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.engine import phase_rates
from tests.unit.engine.fake_adapter import FakeModel, fit

D, S = dsd.DensePhase, dsd.SparsePhase
RATE, STEPS, EPOCHS = 0.1, 4, 6


def halving(step):
    return 0.5**step


def cosine(step, num_steps, start=1.0, end=0.0):
    return end + (start - end) * (1 + np.cos(np.pi * min(step / num_steps, 1))) / 2


# Phases, and the factor of each of 24 steps in 6 epochs: what the documentation says.
TIMELINES = {
    "epochs": (
        [D(2, lr="cosine"), S(2, lr=dsd.Decay("linear", start=0.5, end=0.1)), D(2, lr=0.1)],
        [*(cosine(i, 8) for i in range(8)), *(0.5 - 0.4 * i / 8 for i in range(8)), *[0.1] * 8],
    ),
    "steps": (
        [D(steps=5, lr="steps"), S(steps=6, lr=halving), D(steps=13, lr="linear")],
        [1, 1, 0.1, 0.1, 0.01, *(0.5**i for i in range(6)), *(1 - i / 13 for i in range(13))],
    ),
    "both": (
        [D(1), S(steps=6, lr="linear"), D(3, lr=dsd.Decay("cosine", start=0.1, end=0.01))],
        [*[1] * 4, *(1 - i / 6 for i in range(6)), *(cosine(i, 14, 0.1, 0.01) for i in range(14))],
    ),
    "an extended last phase": (
        [S(1, lr=0.5), D(2, lr="linear")],
        [*[0.5] * 4, *(1 - i / 20 for i in range(20))],
    ),
    "an extended last phase in steps": (
        [S(steps=6, lr=0.5), D(steps=4, lr="linear")],
        [*[0.5] * 6, *(1 - i / 18 for i in range(18))],
    ),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:Training ended with pruned weights")


def train(phases, **options):
    """Trains, and returns the model, the logs, and a copy at each batch's end."""
    model, copies = FakeModel(), {}

    def after_batch(epoch, batch):
        copies[epoch, batch] = model.copy()

    options = {"steps": STEPS, **options}
    schedule = dsd.DSDSchedule(phases=phases)
    return model, fit(model, schedule, EPOCHS, after_batch=after_batch, **options), copies


@pytest.mark.parametrize("num_factors", [2, 3, 1024])
@pytest.mark.parametrize("name", TIMELINES)
def test_every_step_has_the_learning_rate_of_its_phase(name, num_factors, monkeypatch):
    """However few factors are passed to the device at a time."""
    monkeypatch.setattr(phase_rates, "NUM_FACTORS", num_factors)
    phases, factors = TIMELINES[name]
    model, logs, _ = train(phases)
    assert model.used == pytest.approx(RATE * np.array(factors), abs=1e-12)
    assert (model.rate, model.factors.value) == (RATE, 1.0)
    shown = [each["dsd_learning_rate"] for each in logs]
    assert shown == pytest.approx([RATE * each for each in factors[STEPS - 1 :: STEPS]], abs=1e-12)


@pytest.mark.parametrize("num_factors", [3, 1024])
@pytest.mark.parametrize("name", TIMELINES)
def test_a_run_resumes_at_any_step_to_the_bit(name, num_factors, monkeypatch):
    monkeypatch.setattr(phase_rates, "NUM_FACTORS", num_factors)
    phases, _ = TIMELINES[name]
    complete, logs, copies = train(phases)
    for (epoch, batch), copy in copies.items():
        first = (epoch, batch) if batch < STEPS else (epoch + 1, 0)
        if first == (EPOCHS, 0):
            continue
        fresh = FakeModel()
        load = functools.partial(fresh.load, copy)
        rest = fit(
            fresh, dsd.DSDSchedule(phases=phases), EPOCHS, initial_epoch=first[0],
            initial_batch=first[1], steps=STEPS, restore=load,
        )  # fmt: skip
        assert all(map(np.array_equal, fresh.state(), complete.state())), (epoch, batch)
        assert rest == logs[first[0] :]


def test_several_batches_at_a_time():
    """The steps of an execution count by themselves; factors never run out within one."""
    phases, factors = TIMELINES["epochs"]
    for at_once in (2, 3):
        model = FakeModel()
        model.adapter.batches_per_execution = at_once
        fit(model, dsd.DSDSchedule(phases=phases), EPOCHS, steps=STEPS)
        assert model.used == pytest.approx(RATE * np.array(factors), abs=1e-12)


def test_accumulated_gradients_share_the_factor_of_their_step():
    model = FakeModel()
    model.adapter.per_step = 2
    fit(model, dsd.DSDSchedule(phases=[D(2, lr="linear"), S(1)]), 3, steps=STEPS)
    assert model.used[:8] == pytest.approx(np.repeat([0.1, 0.075, 0.05, 0.025], 2))


def test_an_unknown_number_of_batches():
    """The first epoch has the factor of its start; the length of the last one is known then."""
    model, _, _ = train([D(3, lr="linear"), S(3, lr=halving)], steps_known=False)
    assert model.used[:4] == [RATE] * 4
    assert model.used[4:12] == pytest.approx([RATE * (1 - i / 12) for i in range(4, 12)])
    assert model.used[12:] == pytest.approx([RATE * 0.5**i for i in range(12)])


def test_a_phase_that_ends_early():
    """The remainder of the shape is left out."""
    until = dsd.Plateau("loss", patience=1)
    phases = [D(3, lr="linear", until=until), S(1), D(2, lr="linear")]
    model, _, _ = train(phases, log=lambda epoch: {"loss": 1.0})
    assert model.used[:8] == pytest.approx([RATE * (1 - i / 12) for i in range(8)])
    assert model.used[12:] == pytest.approx([RATE * (1 - i / 12) for i in range(12)])


@pytest.mark.parametrize("end", [0.0, 0.25])
@pytest.mark.parametrize("last", [{"epochs": 2}, {"steps": 8}])
def test_a_loop_that_outlasts_its_phases_stays_at_the_end_of_the_shape(last, end):
    model, said = FakeModel(), []
    phases = [S(1), D(**last, lr=dsd.Decay("cosine", end=end))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = dsd.DSDLoop(model, object(), dsd.DSDSchedule(phases=phases), steps_per_epoch=STEPS)
        with loop:
            for epoch in range(5):
                loop.begin_epoch(epoch)
                for _ in range(STEPS):
                    loop.begin_step()
                    model.train_step(masked=False)
                    loop.apply_masks()
                said.append(loop.end_epoch()["dsd_learning_rate"])
    assert said[3:] == [RATE * end] * 2 and min(model.used[4:12]) > RATE * end
    texts = [str(each.message) for each in caught]
    assert [text[:40] for text in texts] == ["Epoch 4 ended at a learning rate of 0: t"] * (
        end == 0
    )


def test_messages(capsys):
    phases = [D(1, lr="cosine"), S(1, lr=dsd.Decay("linear", start=0.5, end=0.1)), D(1, lr=halving)]
    fit(FakeModel(), dsd.DSDSchedule(phases=phases), 3, verbose=1)
    lines = [line.partition("learning rate ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["0.1 to 0 (cosine)", "0.05 to 0.01 (linear)", "0.1 times halving"]


def test_two_schedules_are_refused_before_anything_changes():
    model = FakeModel()
    model.adapter.scheduled = lambda step: 0.1
    before = model.state()
    with pytest.raises(ValueError, match=r"phases\[1\] with lr=1 to 0 \(cosine\).*model='net'"):
        fit(model, dsd.DSDSchedule(phases=[D(1), S(1, lr="cosine")]), 2)
    assert all(map(np.array_equal, model.state(), before)) and model.train_function is None
    fit(model, dsd.DSDSchedule(1, 1, 1), 3)  # factors of phases do not count as a schedule


@pytest.mark.parametrize(("function", "error", "said"), [
    (lambda step: "fast", TypeError, r"`lr\(0\)` to be a number"),
    (lambda step: -1.0, ValueError, r"`lr\(0\)` to be finite and at least 0"),
])  # fmt: skip
def test_a_function_that_returns_no_factor_is_refused(function, error, said):
    model = FakeModel()
    with pytest.raises(error, match=said):
        fit(model, dsd.DSDSchedule(phases=[D(1), S(1, lr=function)]), 2)
    assert model.used == []


def test_a_callback_that_sets_the_learning_rate_in_such_a_phase_warns_once():
    model = FakeModel()

    def halve(epoch):
        model.rate /= 2

    said = r"optimizer.learning_rate was set.*1 to 0 \(linear\)\): 0.1 -> 0.05"
    with pytest.warns(UserWarning, match=said) as found:
        fit(model, dsd.DSDSchedule(phases=[D(3, lr="linear"), S(1)]), 4, after=halve)
    assert sum("optimizer.learning_rate was set" in str(each.message) for each in found) == 1
    model = FakeModel()
    fit(model, dsd.DSDSchedule(phases=[D(1), S(2), D(1, lr="linear")]), 4, after=halve)


@pytest.mark.parametrize("lr", [0.5, "linear"])
def test_a_learning_rate_that_the_user_sets_is_multiplied(lr):
    model = FakeModel()
    model.rate = 0.4
    fit(model, dsd.DSDSchedule(phases=[D(1, lr=lr), S(1, lr=lr)]), 2)
    factors = [0.5, 0.5] if lr == 0.5 else [1, 0.5]
    assert model.used == pytest.approx([0.4 * each for each in factors * 2])


RUN_DOWN = {
    "to zero": (lambda step: max(0.1 * (1 - step / 8), 0), 2),
    "to a ten thousandth": (lambda step: 0.1 * 10 ** (-step / 4), 3),
    "to the end of all": (lambda step: max(0.1 * (1 - step / 24), 0), None),
    "to a hundredth": (lambda step: 0.1 * 10 ** (-step / 12), None),
    "with restarts": (lambda step: 0.1 * (1 - step % 8 / 8), None),
    "after a warm-up": (lambda step: 0.1 * min(step / 8, 1), None),
}  # fmt: skip


@pytest.mark.parametrize("name", RUN_DOWN)
def test_a_schedule_that_runs_down_before_a_later_phase_warns_as_training_starts(name):
    schedule, phase = RUN_DOWN[name]
    model, messages = FakeModel(), []
    model.adapter.scheduled = schedule
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_dsd.engine.controller.warn", messages.append)
        fit(model, dsd.DSDSchedule(2, 2, 2), 6, steps=STEPS)
    assert len(messages) == (phase is not None)
    if phase is not None:
        assert f"run down before DSD phase {phase} of 3" in messages[0]


@pytest.mark.parametrize("order", ["log", "after"])
def test_a_learning_rate_that_a_callback_has_run_down_warns_at_the_boundary(order):
    """Callback before the schedule, or after it."""
    model = FakeModel()

    def callback(epoch):
        model.rate = 1e-5
        return {}

    with pytest.warns(UserWarning, match=r"phase 2 of 3 \(sparse\): 1e-05, after 0.1 before"):
        fit(model, dsd.DSDSchedule(1, 1, 1), 3, **{order: callback})


def twice_a_batch(model):
    """Returns the model, which makes two updates a batch, as a GAN may."""
    once = model.train_step

    def twice(masked):
        once(masked)
        once(masked)

    model.train_step = twice
    return model


@pytest.mark.parametrize("way", ["at once", "in two fits", "with the folder of a killed one"])
def test_several_updates_a_batch(way, tmp_path):
    """The fraction of the phase is that of its batches, in a run that resumes too."""
    model, copies = twice_a_batch(FakeModel()), []

    def schedule():
        return dsd.DSDSchedule(phases=[D(4, lr="linear"), S(1)], backup_dir=tmp_path)

    epochs = 5 if way == "at once" else 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_dsd.engine.controller.warn", lambda message: None)
        fit(model, schedule(), epochs, steps=STEPS, after=lambda _: copies.append(model.copy()))
        used = model.used
        if way == "in two fits":
            fit(model, schedule(), 5, initial_epoch=2, steps=STEPS)
        elif way != "at once":
            model = twice_a_batch(FakeModel())
            load = functools.partial(model.load, copies[-1])
            fit(model, schedule(), 5, initial_epoch=2, steps=STEPS, restore=load)
            used += model.used
    assert used[:32] == pytest.approx(np.repeat([RATE * (1 - i / 16) for i in range(16)], 2))
    assert used[32:] == [RATE] * 8
