"""DSDLoop called manually: its methods in and out of order, exceptions, masks, learning rate."""

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.engine.observers import Observer
from tests.unit.engine.fake_adapter import FakeModel, fit

OPTIMIZER = object()
ENDS_SPARSE = pytest.mark.filterwarnings("ignore:Training ended with pruned weights")


def loop_of(model, *args, **options):
    return dsd.DSDLoop(model, OPTIMIZER, dsd.DSDSchedule(*args, **options))


def train(loop, model, epochs, logs=None):
    found = []
    for epoch in epochs:
        loop.begin_epoch(epoch)
        for _ in range(2):
            model.train_step(masked=False)
            loop.apply_masks()
        found.append(loop.end_epoch(None if logs is None else logs(epoch)))
    return found


@pytest.mark.parametrize("reset", ["pruned", "all", "none"])
def test_it_trains_as_fit_does(reset):
    fitted, model = FakeModel(), FakeModel()
    logs = fit(fitted, dsd.DSDSchedule(1, 2, 1, reset=reset), 4)
    with loop_of(model, 1, 2, 1, reset=reset) as loop:
        found = train(loop, model, range(4))
    assert [{**each, "dsd_epochs_left": 0} for each in found] == [
        {**each, "dsd_epochs_left": 0} for each in logs
    ]
    for one, two in zip(fitted.kernels, model.kernels, strict=True):
        assert np.array_equal(one.values, two.values) and np.array_equal(one.average, two.average)
        assert np.array_equal(one.momentum, two.momentum)
    assert np.array_equal(fitted.bias, model.bias)
    assert model.num_made == 0 and model.factors.value == 1.0 and model.train_function is None


@pytest.mark.filterwarnings("ignore:Training ended with pruned weights")
def test_a_loop_in_pieces_ends_as_one_in_one_piece():
    until = dsd.Plateau("loss", patience=2, restore_best=True)
    phases = [dsd.DensePhase(3, until=until), dsd.SparsePhase(2), dsd.DensePhase(4, until=until)]
    losses = [1.0, 2.0, 3.0, 9.0, 8.0, 5.0, 4.0, 4.5, 4.2]
    ended = []
    for pieces in ([range(9)], [range(2), range(2, 6), range(6, 9)]):
        model = FakeModel()
        for epochs in pieces:
            with loop_of(model, phases=phases) as loop:
                train(loop, model, epochs, lambda epoch: {"loss": losses[epoch]})
        ended.append(model.state())
    assert all(map(np.array_equal, *ended))


def test_weights_and_averages_are_zero_after_each_call(model):
    with loop_of(model, 0, 1, 1) as loop:
        loop.begin_epoch(0)
        for _ in range(3):
            model.train_step(masked=False)
            assert all(kernel.values.all() for kernel in model.kernels)
            loop.apply_masks()
            for kernel in model.kernels:
                assert not kernel.values[~kernel.mask].any()
                assert not kernel.average[~kernel.mask].any()
        loop.end_epoch()
        train(loop, model, [1])


@ENDS_SPARSE
def test_methods_out_of_order_are_refused(model):
    loop = loop_of(model, 0, 1, 1)
    early = {"apply_masks": loop.apply_masks, "masks": loop.masks, "end_epoch": loop.end_epoch}

    def all_refused():
        for name, method in early.items():
            with pytest.raises(ValueError, match=rf"begin_epoch\(\) before {name}\(\)"):
                method()

    loop.end()  # nothing is open
    all_refused()
    loop.begin_epoch(0)
    with pytest.raises(ValueError, match=r"end_epoch\(\) before the next.*epoch=1 within"):
        loop.begin_epoch(1)
    loop.end_epoch()
    all_refused()
    loop.begin_epoch(1)
    loop.end()  # within an epoch
    all_refused()
    train(loop, model, [1])
    loop.end()


@pytest.mark.parametrize(("epoch", "error"), [(-1, ValueError), (0.5, TypeError), ("0", TypeError)])
def test_an_epoch_is_a_whole_number_before_a_run_starts(model, epoch, error):
    seen = []

    class Note(Observer):
        def on_begin(self, timeline):
            seen.append(timeline)

    with pytest.raises(error, match="Expected `epoch` to be"):
        loop_of(model, 1, 1, 1, observers=[Note()]).begin_epoch(epoch)
    assert not seen


def test_logs_that_are_not_a_dict_leave_the_epoch_open(model):
    loop = loop_of(model, phases=[dsd.DensePhase(2, until=dsd.Plateau("loss"))])
    loop.begin_epoch(0)
    for logs, message in ((0.5, "logs=0.5 of type float"), ({"loss": "x"}, "'loss'")):
        with pytest.raises(TypeError, match=message):
            loop.end_epoch(logs)
    assert loop.end_epoch({"loss": 1.0})["dsd_phase"] == 0


def test_masks(model):
    with loop_of(model, 1, 1, 1) as loop:
        loop.begin_epoch(0)
        assert loop.masks() == [None, None]
        loop.end_epoch()
        loop.begin_epoch(1)
        assert all(map(np.array_equal, loop.masks(), [k.mask for k in model.kernels]))
        (mask,) = loop.masks(model.kernels[1:])
        assert np.array_equal(mask, model.kernels[1].mask)
        assert loop.masks([]) == []
        with pytest.raises(TypeError, match="`variables` to be a list.*variables=3 of type int"):
            loop.masks(3)
        loop.apply_masks()
        loop.end_epoch()
        train(loop, model, [2])


def test_masks_are_not_applied_while_a_step_is_traced(model):
    with loop_of(model, 0, 1, 1) as loop:
        loop.begin_epoch(0)
        model.train_step(masked=False)
        model.adapter.tracing = True
        with pytest.raises(ValueError, match=r"apply_masks\(\) outside of tf.function"):
            loop.apply_masks()
        assert all(kernel.values.all() for kernel in model.kernels)
        model.adapter.tracing = False
        loop.apply_masks()
        loop.end_epoch()
        train(loop, model, [1])


@ENDS_SPARSE
def test_who_forgets_the_masks_is_warned(model):
    with loop_of(model, 0, 1, 1) as loop:
        loop.begin_epoch(0)
        model.train_step(masked=False)
        with pytest.warns(
            UserWarning, match=r"The masks were violated: 0 .* DSDLoop.apply_masks\(\)"
        ):
            loop.end_epoch()


def test_the_learning_rate_is_scaled_within_an_epoch(model):
    with loop_of(model, phases=[dsd.DensePhase(1), dsd.DensePhase(2, lr=0.5)]) as loop:
        seen = []
        for epoch in range(3):
            loop.begin_epoch(epoch)
            within = model.learning_rate
            model.train_step(masked=False)
            loop.end_epoch()
            seen.append((within, model.learning_rate))
    assert seen == [(0.1, 0.1), (0.05, 0.1), (0.05, 0.1)]


@pytest.mark.parametrize(("name", "value", "said"), [
    ("observes", False, r"rates by 0.5, but no optimizer.*traced before"),
    ("unscaled_optimizers", ["Mine"], r"rates by 0.5, but Mine updates.*optimizer=Mine"),
])  # fmt: skip
def test_a_learning_rate_that_is_not_scaled_is_warned_of_once(name, value, said, model):
    setattr(model.adapter, name, value)
    with loop_of(model, phases=[dsd.DensePhase(1), dsd.DensePhase(2, lr=0.5)]) as loop:
        train(loop, model, [0])
        with pytest.warns(UserWarning, match=said):
            train(loop, model, [1])
        train(loop, model, [2])


def test_a_schedule_is_required(model):
    with pytest.raises(TypeError, match="`schedule` to be a DSDSchedule.*schedule=3 of type int"):
        dsd.DSDLoop(model, OPTIMIZER, 3)


@pytest.mark.parametrize("optimizer", [None, [], (), [OPTIMIZER, None]])
def test_an_optimizer_is_required(model, optimizer):
    with pytest.raises(TypeError, match="`optimizer` to be an optimizer or a list.*optimizer="):
        dsd.DSDLoop(model, optimizer, dsd.DSDSchedule(1, 1, 1))


def test_the_adapter_refuses_before_anything_changes(model):
    model.adapter.error = ValueError("not built")
    loop = loop_of(model, 0, 1, 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="not built"):
            loop.begin_epoch(0)
    assert all(kernel.mask is None for kernel in model.kernels)


class DiskError(Exception):
    pass


@ENDS_SPARSE
def test_an_exception_in_a_with_block_ends_the_epoch_and_leaves_the_run_open(model):
    ended = []

    class Note(Observer):
        def on_end(self):
            ended.append(True)

    loop = loop_of(model, phases=[dsd.SparsePhase(2, lr=0.5), dsd.DensePhase(1)],
                   observers=[Note()])  # fmt: skip
    with pytest.raises(DiskError), loop:
        loop.begin_epoch(0)
        assert model.learning_rate == 0.05
        raise DiskError
    assert model.learning_rate == 0.1 and not ended
    assert model.kernels[0].mask is not None
    with pytest.raises(ValueError, match="end_epoch"):
        loop.begin_epoch(1)
    model.train_step(masked=False)
    loop.apply_masks()
    loop.end_epoch()
    train(loop, model, range(1, 3))
    loop.end()
    assert ended == [True]


@ENDS_SPARSE
def test_an_exception_in_begin_epoch_leaves_no_epoch_open(model):
    loop = loop_of(model, 0, 1, 1)
    model.kernels[0].values[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        loop.begin_epoch(0)
    model.kernels[0].values[0, 0] = 1.0
    train(loop, model, range(2))
    loop.end()


def test_it_ends_a_fit_that_an_exception_stopped(model):
    def fail(epoch):
        raise DiskError

    with pytest.raises(DiskError):
        fit(model, dsd.DSDSchedule(1, 1, 1), 3, log=fail)
    assert "make_train_function" in vars(model)
    with loop_of(model, 1, 1, 1) as loop:
        loop.begin_epoch(0)
        assert "make_train_function" not in vars(model)
        loop.end_epoch()
        train(loop, model, range(1, 3))


def test_is_over_before_within_and_after_a_run(model):
    until = dsd.Plateau("quality", mode="max", patience=1)
    phases = [dsd.DensePhase(5, until=until), dsd.SparsePhase(5, until=until), dsd.DensePhase(1)]
    quality, found = [1.0, 0.5, 2.0, 1.0, 1.0], []
    with loop_of(model, phases=phases, remaining_epochs="stop") as loop:
        while not loop.is_over:
            epoch = len(found)
            found += train(loop, model, [epoch], lambda epoch: {"quality": quality[epoch]})
    assert [each["dsd_phase"] for each in found] == [0, 0, 1, 1, 2]
    assert [each["dsd_epochs_left"] for each in found] == [4, 3, 4, 3, 0]
    assert loop.is_over


@ENDS_SPARSE
def test_a_loop_that_ends_resumes(model):
    whole = model.copy()
    with loop_of(whole, 1, 2, 1) as loop:
        train(loop, whole, range(4))
    for part in (range(2), range(2, 3), range(3, 4)):
        with loop_of(model, 1, 2, 1) as loop:
            train(loop, model, part)
    assert all(map(np.array_equal, model.state(), whole.state()))


def test_observers_are_notified(model):
    seen = []

    class Note(Observer):
        def on_moment(self, moment, weights):
            seen.append(moment.name)

    with loop_of(model, 1, 1, 1, observers=[Note()]) as loop:
        train(loop, model, range(3))
    assert seen == [
        "before pruning", "after pruning", "end of sparse", "first re-dense epoch",
        "last re-dense epoch",
    ]  # fmt: skip


def test_nothing_is_printed(model, capsys):
    with loop_of(model, 1, 1, 1) as loop:
        train(loop, model, range(3))
    assert capsys.readouterr().out == ""


def test_a_run_starts_and_ends_once(model):
    seen = []

    class Note(Observer):
        def on_begin(self, timeline):
            seen.append("begin")

        def on_end(self):
            seen.append("end")

    loop = loop_of(model, 1, 1, 1, observers=[Note()])
    loop.end()
    train(loop, model, range(3))
    for _ in range(2):
        loop.end()
    assert seen == ["begin", "end"]
