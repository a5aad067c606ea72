"""Checkpoints taken within an epoch, where steps keep more than weights: exact, or refused."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.unit.engine.fake_adapter import FakeModel, fit

D, S = dsd.DensePhase, dsd.SparsePhase
# Phases, and for each of 5 epochs whether a run from within it is exact or refused. Sums of an
# epoch are lost within it; averages within any; regrown weights are written at its end.
PHASES = {
    "ema": ([D(1), S(1), D(3, ema=0.8)], "eerrr"),
    "decay": ([D(1), S(1), D(3, regrow_decay=0.3)], "eeree"),
    "fraction": ([D(1), S(2), D(2, regrow_fraction=0.5)], "eeree"),
    "movement": ([D(2), S(2, criterion="movement"), D(1)], "ereee"),
    "ramp": ([D(1), S(3, criterion="movement", ramp=2), D(1)], "rreee"),
    "steps, ema": ([D(steps=3), S(steps=5), D(steps=12, ema=0.8)], "eerrr"),
    "steps, decay": ([D(steps=3), S(steps=5), D(steps=12, regrow_decay=0.3)], "eeree"),
    "steps, movement": ([D(2), S(steps=5, criterion="movement"), D(1)], "ereee"),
    "mixed": (
        [D(steps=4), D(1), S(2, criterion="taylor"), D(steps=5, regrow_fraction=0.5, ema=0.8)],
        "ererr",
    ),
}
STEPS = 4


def copies_of_a_run(phases, folder, killed_after=None):
    """Copies of the model by epoch and batch, up to a batch after which the run is killed."""
    model, schedule, copies = FakeModel(), dsd.DSDSchedule(phases=phases, backup_dir=folder), {}

    def after_batch(epoch, batch):
        copies[epoch, batch] = model.copy(with_masks=False)
        if (epoch, batch) == killed_after:
            raise KeyboardInterrupt

    try:
        fit(model, schedule, 5, steps=STEPS, after_batch=after_batch)
    except KeyboardInterrupt:
        pass
    return model, copies


def resumed(phases, folder, epoch, batch, first):
    """A model after a run from within an epoch, with the error that refused it; and as saved."""
    _, copies = copies_of_a_run(phases, folder, (epoch, batch))
    model, saved = FakeModel(), copies[epoch, batch]
    again = dsd.DSDSchedule(phases=phases, backup_dir=folder)
    try:
        fit(
            model, again, 5, steps=STEPS, initial_epoch=epoch, initial_batch=first,
            restore=lambda: model.load(saved, with_masks=False),
        )  # fmt: skip
    except ValueError as error:
        return model, saved, str(error)
    return model, saved, None


@pytest.mark.filterwarnings("ignore:Training ended")
@pytest.mark.parametrize("name", PHASES)
def test_a_run_from_within_an_epoch_is_exact_or_refused(name, tmp_path):
    phases, outcomes = PHASES[name]
    whole, _ = copies_of_a_run(phases, None)
    for epoch, outcome in enumerate(outcomes):
        for batch in range(1, STEPS):
            folder = tmp_path / f"{epoch} {batch}"
            model, saved, error = resumed(phases, folder, epoch, batch, batch)
            assert (error is None) == (outcome == "e"), (epoch, batch, error)
            if error is not None:
                assert "checkpoint of the end of an epoch" in error and f"epoch={epoch}," in error
            expected = whole if error is None else saved
            assert all(map(np.array_equal, model.state(), expected.state())), (epoch, batch)


@pytest.mark.filterwarnings("ignore:Training ended")
@pytest.mark.parametrize(("name", "kind"), [("ema", "averages"), ("decay", "regrown weights")])
def test_so_it_is_where_the_epoch_starts_again(name, kind, tmp_path):
    phases, outcomes = PHASES[name]
    for epoch, outcome in enumerate(outcomes):
        model, saved, error = resumed(phases, tmp_path / str(epoch), epoch, 2, 0)
        assert (error is None) == (outcome == "e"), (epoch, error)
        if error is not None:
            assert f"hold its {kind}" in error.replace("moving ", "")
            assert all(map(np.array_equal, model.state(), saved.state()))


def test_a_model_that_was_trained_before_starts_its_run():
    model = FakeModel()
    fit(model, dsd.DSDSchedule(1, 1, 1), 3)
    fit(model, dsd.DSDSchedule(phases=[D(3, ema=0.8)]), 3)


def test_sums_start_with_a_phase_that_starts_within_an_epoch():
    phases = [D(steps=2), D(1), S(1, criterion="movement"), D(1)]
    model, sums = FakeModel(), []

    def after_batch(epoch, batch):
        if (epoch, batch) == (0, STEPS):
            sums.extend(model.adapter.step_state.sums())

    found, before = np.zeros(model.kernels[0].shape, np.float32), model.adapter.step_state
    add, kernel = before.before_update, model.kernels[0]

    def before_update(each, gradient):
        if each is kernel and 3 <= model.iterations <= 4:  # the rest of the first epoch
            found[...] += -gradient * kernel.values
        add(each, gradient)

    before.before_update = before_update
    fit(model, dsd.DSDSchedule(phases=phases), 3, steps=STEPS, after_batch=after_batch)
    assert np.array_equal(sums[0], found) and found.any()
