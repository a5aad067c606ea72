"""Phases, timelines and the schedule's arguments."""

import dataclasses

import pytest

import keras_dsd as dsd
from keras_dsd.algorithm.timeline import Timeline

THREE = [dsd.DensePhase(2), dsd.SparsePhase(3), dsd.DensePhase(1, lr=0.1)]


def test_intervals_are_half_open():
    timeline = Timeline(THREE)
    assert timeline.epochs == 6
    indices = [len(timeline.starts([{}] * epoch)) - 1 for epoch in range(8)]
    assert indices == [0, 0, 1, 1, 1, 2, 2, 2]
    assert timeline.starts([{}] * 5) == [0, 2, 5]


def test_a_timeline_reads_as_a_line():
    assert str(Timeline([*THREE, dsd.SparsePhase(1, sparsity=0.25)])) == (
        "dense for 2 epochs, then sparse for 3 epochs, then dense for 1 epoch at 0.1 times the "
        "learning rate, then sparse for 1 epoch at sparsity 0.25"
    )


def test_the_three_numbers_are_three_phases():
    assert dsd.DSDSchedule(2, 3, 1).timeline.phases == tuple(THREE)
    assert dsd.DSDSchedule(0, 3, 1).timeline.phases == tuple(THREE[1:])
    assert dsd.DSDSchedule(2, 3, 1, redense_lr=0.5).timeline.phases[2].lr == 0.5
    assert dsd.DSDSchedule(phases=THREE).timeline.phases == tuple(THREE)


def test_phases_are_values():
    phase = dsd.DensePhase(2)
    assert phase == dsd.DensePhase(2, lr=1.0) and hash(phase) == hash(dsd.DensePhase(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        phase.epochs = 3


BAD_EPOCHS = [
    (0, ValueError, "=0"), (-1, ValueError, "=-1"), (1.5, TypeError, r"=1\.5 of type float"),
    (2.0, TypeError, r"=2\.0 of type float"), ("2", TypeError, "='2' of type str"),
    (True, TypeError, "=True of type bool"), (float("nan"), TypeError, "=nan"),
]  # fmt: skip


@pytest.mark.parametrize(("epochs", "error", "shown"), BAD_EPOCHS)
@pytest.mark.parametrize("phase", [dsd.DensePhase, dsd.SparsePhase])
def test_epochs_of_a_phase(phase, epochs, error, shown):
    with pytest.raises(error, match=f"`epochs`.*epochs{shown}"):
        phase(epochs)
    with pytest.raises(TypeError, match="`epochs`.*epochs=None"):
        phase(None)


@pytest.mark.parametrize(("epochs", "error", "shown"), BAD_EPOCHS)
@pytest.mark.parametrize("name", ["sparse", "redense", "dense"])
def test_epochs_of_the_schedule(name, epochs, error, shown):
    arguments = {"dense": 1, "sparse": 1, "redense": 1, name: epochs}
    if name == "dense" and epochs == 0 and not isinstance(epochs, bool):
        assert len(dsd.DSDSchedule(**arguments).timeline.phases) == 2
        return
    with pytest.raises(error, match=f"`{name}`.*{name}{shown}"):
        dsd.DSDSchedule(**arguments)


@pytest.mark.parametrize(("lr", "error"), [
    (0, ValueError), (-0.1, ValueError), (float("nan"), ValueError), (float("inf"), ValueError),
    ("0.1", ValueError), (None, TypeError), (True, TypeError),
])  # fmt: skip
def test_learning_rate_factors(lr, error):
    for make in (dsd.DensePhase, dsd.SparsePhase):
        with pytest.raises(error, match=f"`lr`.*lr={lr!r}"):
            make(1, lr=lr)
    with pytest.raises(error, match=f"`redense_lr`.*redense_lr={lr!r}"):
        dsd.DSDSchedule(1, 1, 1, redense_lr=lr)


@pytest.mark.parametrize(("sparsity", "error"), [
    (1, ValueError), (-0.1, ValueError), (float("nan"), ValueError), ("0.3", TypeError),
    (True, TypeError),
])  # fmt: skip
def test_sparsity_of_a_phase(sparsity, error):
    with pytest.raises(error, match=f"`sparsity`.*sparsity={sparsity!r}"):
        dsd.SparsePhase(1, sparsity=sparsity)


@pytest.mark.parametrize("phase", [dsd.DensePhase, dsd.SparsePhase])
def test_until_is_a_plateau(phase):
    assert phase(1, until=None) == phase(1)
    assert str(phase(4, until=dsd.Plateau("loss"))).endswith(
        "for at most 4 epochs (until loss has not improved for 3 epochs)"
    )
    with pytest.raises(TypeError, match="or a Plateau.*until='loss' of type str"):
        phase(1, until="loss")


def history(*values):
    return [{} if value is None else {"loss": value} for value in values]


EARLY = Timeline([
    dsd.DensePhase(4, until=dsd.Plateau("loss", patience=1)), dsd.SparsePhase(2),
    dsd.DensePhase(3, until=dsd.Plateau("loss", patience=2)),
])  # fmt: skip


@pytest.mark.parametrize(("values", "starts"), [
    ((), [0]), ((3, 2), [0]), ((3, 2, 2), [0, 3]), ((3, 2, 1, 0), [0, 4]), ((3, 4), [0, 2]),
    ((3, None, None), [0]), ((3, None, 4), [0, 3]), ((3, 4, 9, 9), [0, 2, 4]),
    ((3, float("nan")), [0, 2]), ((3, 4, 9, 9, 5, 5, 5, 5), [0, 2, 4]),
])  # fmt: skip
def test_a_plateau_ends_a_phase(values, starts):
    assert EARLY.starts(history(*values)) == starts


@pytest.mark.parametrize(("values", "remaining_epochs", "is_over"), [
    ((3, 4, 9, 9, 5, 4, 3), "redense", False), ((3, 4, 9, 9, 5, 4, 3), "stop", True),
    ((3, 4, 9, 9, 5, 4), "stop", False), ((3, 4, 9, 9, 5, 5, 5), "redense", True),
    ((3, 4, 9, 9, 5, 4, 3, 2, 2, 2), "redense", True), ((3, 4), "stop", False),
])  # fmt: skip
def test_when_a_run_is_over(values, remaining_epochs, is_over):
    assert EARLY.is_over(history(*values), remaining_epochs) is is_over


def test_without_until_only_stop_ends_a_run():
    assert Timeline(THREE).is_over([{}] * 6, "stop")
    assert not Timeline(THREE).is_over([{}] * 9, "redense")


def test_remaining_epochs_and_backup_dir_are_checked():
    with pytest.raises(ValueError, match="'redense' or 'stop'.*remaining_epochs='dense'"):
        dsd.DSDSchedule(1, 1, 1, remaining_epochs="dense")
    with pytest.raises(ValueError, match="'pruned', 'all' or 'none'.*reset=True"):
        dsd.DSDSchedule(1, 1, 1, reset=True)
    with pytest.raises(TypeError, match="path of a folder.*backup_dir=3"):
        dsd.DSDSchedule(1, 1, 1, backup_dir=3)


def test_phase_lists():
    with pytest.raises(ValueError, match=r"at least one phase. Received: phases=\[\]"):
        dsd.DSDSchedule(phases=[])
    with pytest.raises(TypeError, match=r"phases\[1\]=3 of type int"):
        dsd.DSDSchedule(phases=[dsd.DensePhase(1), 3])
    for phases in (3, "dense", dsd.DensePhase(1)):
        with pytest.raises(TypeError, match="to be a list of DensePhase and SparsePhase"):
            dsd.DSDSchedule(phases=phases)
    with pytest.raises(TypeError, match="either `phases` or"):
        dsd.DSDSchedule(1, 1, 1, phases=THREE)


@pytest.mark.parametrize("missing", ["dense", "sparse", "redense"])
def test_missing_numbers(missing):
    arguments = {"dense": 1, "sparse": 1, "redense": 1}
    del arguments[missing]
    with pytest.raises(TypeError, match=f"Received: {missing}=None"):
        dsd.DSDSchedule(**arguments)


def test_a_timeline_plots_itself(tmp_path):
    pytest.importorskip("matplotlib")
    plateau = dsd.Plateau("val_loss")
    figure = Timeline([*THREE, dsd.SparsePhase(4, sparsity=0.25, until=plateau)]).plot()
    (axes,) = figure.axes
    # matplotlib before 3.9 made a span a polygon.
    boxes = [patch.get_path().get_extents(patch.get_patch_transform()) for patch in axes.patches]
    spans = [(box.x0, box.width) for box in boxes]
    assert spans == [(0, 2), (2, 3), (5, 1), (6, 4)]
    titles = [text.get_text() for text in axes.texts]
    assert titles == ["dense", "sparse", "re-dense", "sparse 25%\nuntil val_loss"]
    assert [list(line.get_ydata()) for line in axes.lines] == [
        [1.0] * 2,
        [1.0] * 2,
        [0.1] * 2,
        [1.0] * 2,
    ]
    assert axes.get_xlim() == (0, 10) and axes.get_xlabel() == "epoch"
    figure.savefig(tmp_path / "timeline.png")


def test_the_figure_shows_a_ramp_in_a_separate_panel(tmp_path):
    pytest.importorskip("matplotlib")
    phases = [dsd.DensePhase(2), dsd.SparsePhase(4, ramp=2), dsd.DensePhase(steps=30, lr=0.1)]
    figure = Timeline(phases).plot(steps_per_epoch=10)
    learning_rate, sparsity = figure.axes
    assert len(learning_rate.lines) == 3 and not learning_rate.get_xlabel()
    (line,) = [patch for patch in sparsity.patches if hasattr(patch, "get_data")]
    assert list(line.get_data().values) == [0, 1 - 0.5**3, 1, 1, 1, 0]
    assert list(line.get_data().edges) == [0, 20, 30, 40, 50, 60, 90]
    assert sparsity.get_xlim() == (0, 90) and sparsity.get_xlabel() == "step"
    assert sparsity.get_ylabel() == "sparsity\n(of target)" and not sparsity.texts
    figure.savefig(tmp_path / "timeline.png")


def test_a_dense_phase_is_redense_where_weights_regrow():
    phases = [dsd.DensePhase(1), dsd.DensePhase(1), dsd.SparsePhase(1), dsd.DensePhase(1)]
    timeline = dsd.DSDSchedule(phases=phases).timeline
    assert [timeline.is_sparse(i) for i in range(-1, 5)] == [False] * 3 + [True] + [False] * 2
    assert [timeline.is_redense(i) for i in range(-1, 5)] == [False] * 4 + [True, False]


STEPS = Timeline([dsd.DensePhase(steps=5), dsd.SparsePhase(2), dsd.DensePhase(steps=4)])


def steps(*ends):
    return [{"dsd_steps": end} for end in ends]


@pytest.mark.parametrize(("ends", "step", "starts"), [
    ((), 4, [0]), ((), 5, [0, 0]), ((4,), None, [0]), ((4,), 5, [0, 1]), ((5,), None, [0, 1]),
    ((5, 9), None, [0, 1]), ((4, 8), 12, [0, 1]), ((4, 8, 12), None, [0, 1, 3]),
    ((5, 9, 12), None, [0, 1, 3]), ((9, 12), None, [0, 0, 2]), ((9, 12), 13, [0, 0, 2]),
])  # fmt: skip
def test_phases_in_steps_start_within_epochs(ends, step, starts):
    """The step after the last one of an epoch is the next epoch's first."""
    assert STEPS.starts(steps(*ends), step) == starts


def test_an_epoch_ends_in_the_phase_of_its_last_step():
    indices = [len(STEPS.points_at_end(steps(5, 9, 12, 16), epoch)) - 1 for epoch in range(4)]
    assert indices == [0, 1, 1, 2]
    assert len(STEPS.points_at_end(steps(6), 0)) == 2


@pytest.mark.parametrize(("ends", "step", "is_over"), [
    ((5, 9, 12), None, False), ((5, 9, 12), 15, False), ((5, 9, 12), 16, True),
    ((5, 9, 12, 16), None, True), ((5, 9), 99, False), ((), 0, False),
])  # fmt: skip
def test_when_a_run_in_steps_is_over(ends, step, is_over):
    assert STEPS.is_over(steps(*ends), "stop", step) is is_over
    assert STEPS.is_complete(steps(*ends), step) is is_over
    assert not STEPS.is_over(steps(*ends), "redense", step)


def test_a_timeline_in_steps_reads_as_a_line_and_adds_up():
    assert str(STEPS) == "dense for 5 steps, then sparse for 2 epochs, then dense for 4 steps"
    assert str(dsd.SparsePhase(steps=1)) == "sparse for 1 step"
    assert (STEPS.epochs, STEPS.steps) == (2, 9)
    assert (Timeline(THREE).epochs, Timeline(THREE).steps) == (6, 0)


@pytest.mark.parametrize(("value", "error", "shown"), BAD_EPOCHS)
@pytest.mark.parametrize("phase", [dsd.DensePhase, dsd.SparsePhase])
def test_steps_of_a_phase(phase, value, error, shown):
    with pytest.raises(error, match=f"`steps`.*steps{shown}"):
        phase(steps=value)


@pytest.mark.parametrize("phase", [dsd.DensePhase, dsd.SparsePhase])
def test_a_phase_has_one_length(phase):
    for arguments in ({}, {"epochs": 2, "steps": 3}):
        with pytest.raises(TypeError, match="either `epochs` or `steps`"):
            phase(**arguments)
    until = dsd.Plateau("loss")
    with pytest.raises(ValueError, match=r"until=Plateau.* and steps=3. Count the phase in epochs"):
        phase(steps=3, until=until)
    assert phase(2).steps is None and phase(steps=2).epochs is None


def test_a_figure_of_phases_in_steps():
    plot = STEPS.plot(steps_per_epoch=3)
    (axes,) = plot.axes
    assert axes.get_xlabel() == "step" and axes.get_xlim() == (0, 15)
    ends = [line.get_xdata()[1] for line in axes.lines]
    assert ends == [5, 11, 15]
    alone = Timeline([dsd.DensePhase(steps=3), dsd.SparsePhase(steps=4)]).plot()
    assert alone.axes[0].get_xlim() == (0, 7)
    with pytest.raises(ValueError, match="steps_per_epoch=None. Give the number of steps"):
        STEPS.plot()
    with pytest.raises(ValueError, match="`steps_per_epoch` to be at least 1"):
        STEPS.plot(steps_per_epoch=0)
    assert Timeline(THREE).plot(steps_per_epoch=9).axes[0].get_xlim() == (0, 6)
