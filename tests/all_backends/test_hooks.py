"""Runs around the phases: epochs, early stops, exceptions, second fits, manual calls of hooks."""

import re

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import PATH, keras, left_behind, rate, seed

callbacks = keras.callbacks


def zeros(model):
    return [int(np.sum(w.numpy() == 0)) for w in dsd.weights(model)]


PRUNED = [round(64 * 16 * 0.3), round(16 * 10 * 0.3)]


def is_untouched(model):
    """True if nothing of a run is left on the model."""
    variables = [w.variable for w in dsd.weights(model)]
    return not left_behind(model) and all(v.constraint is None for v in variables)


def test_dense_zero_starts_from_a_trained_model_with_its_optimizer(digits, compiled, mlp):
    plain = compiled(mlp())
    plain.fit(*digits, epochs=2, verbose=0)
    momentum = plain.optimizer.variables[2].numpy()
    trained = [w.numpy() for w in plain.weights]
    model = dsd.apply(plain)
    assert model.optimizer is plain.optimizer
    assert all(
        a is b for a, b in zip(model.trainable_weights, plain.trainable_weights, strict=True)
    )
    seen = []
    look = callbacks.LambdaCallback(on_batch_begin=lambda *_, **__: seen.append(zeros(model)))
    history = model.fit(*digits, epochs=2, verbose=0, callbacks=[dsd.DSDSchedule(0, 1, 1), look])
    assert seen[0] == PRUNED
    assert history.history["dsd_phase"] == [0, 1]
    assert momentum.any() and model.optimizer.iterations.numpy() == 40
    assert not np.array_equal(trained[0], plain.weights[0].numpy())  # shared, so trained on


def test_a_fit_may_be_shorter_than_the_phases(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()))
    with pytest.warns(UserWarning, match="DSD phase 1 of 3: .*`initial_epoch=1`"):
        model.fit(*digits, epochs=1, verbose=0, callbacks=[dsd.DSDSchedule(2, 2, 2)])
    with pytest.warns(UserWarning, match="pruned weights"):
        model.fit(
            *digits, epochs=3, initial_epoch=1, verbose=0, callbacks=[dsd.DSDSchedule(2, 2, 2)]
        )
    assert zeros(model) == PRUNED
    history = model.fit(
        *digits, epochs=6, initial_epoch=3, verbose=0, callbacks=[dsd.DSDSchedule(2, 2, 2)]
    ).history
    assert history["dsd_phase"] == [1, 2, 2] and sum(zeros(model)) < sum(PRUNED)


class StopAfter(callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self.last = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 >= self.last


def test_a_second_fit_without_the_callback_is_plain(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()))
    with pytest.warns(UserWarning, match="pruned weights"):
        model.fit(*digits, verbose=0, callbacks=[dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])])
    assert zeros(model) == PRUNED
    model.fit(*digits, verbose=0)
    assert all(now < then for now, then in zip(zeros(model), PRUNED, strict=True))


@pytest.mark.once_per_keras
def test_validation_sees_the_phase_and_changes_nothing(digits, compiled, mlp):
    x, y = digits
    model = compiled(dsd.apply(mlp()), metrics=["accuracy"])
    history = model.fit(
        x, y, epochs=6, verbose=0, validation_data=(x[:64], y[:64]), validation_freq=2,
        callbacks=[dsd.DSDSchedule(2, 2, 2), callbacks.ReduceLROnPlateau("loss")],
    ).history  # fmt: skip
    assert len(history["val_loss"]) == 3
    assert history["dsd_learning_rate"][-2:] == pytest.approx([1e-3, 1e-3])
    assert history["dsd_sparsity"][2:4] == pytest.approx([0.3, 0.3], abs=1e-3)


def test_evaluate_and_predict_inside_fit_leave_it_as_it_is(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()))

    class Meddle(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                self.model.evaluate(*digits, verbose=0)
                self.model.predict(digits[0], verbose=0)

        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(*digits, verbose=0, callbacks=[schedule])

    schedule = dsd.DSDSchedule(1, 1, 1)
    plain = compiled(dsd.apply(mlp()))
    plain.set_weights(model.get_weights())
    for each, extra in ((model, [Meddle()]), (plain, [])):
        seed(4)
        callback = schedule if extra else dsd.DSDSchedule(1, 1, 1)
        each.fit(*digits, epochs=3, shuffle=False, verbose=0, callbacks=[callback, *extra])
    assert all(np.array_equal(a, b) for a, b in zip(
        model.get_weights(), plain.get_weights(), strict=True))  # fmt: skip


def test_early_stopping_in_the_sparse_phase_warns_and_keeps_the_zeros(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()))
    with pytest.warns(UserWarning, match="Training ended with pruned weights.*initial_epoch"):
        model.fit(*digits, epochs=6, verbose=0, callbacks=[dsd.DSDSchedule(2, 2, 2), StopAfter(3)])
    assert zeros(model) == PRUNED
    assert is_untouched(model)
    assert zeros_of(dsd.strip(model)) == PRUNED


def zeros_of(stripped):
    return [int(np.sum(layer.kernel.numpy() == 0)) for layer in stripped.layers[1:]]


@pytest.mark.once_per_keras
def test_early_stopping_in_redense_is_quiet_and_gives_the_rate_back(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()))
    model.fit(*digits, epochs=9, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 3), StopAfter(3)])
    assert is_untouched(model) and rate(model) == pytest.approx(0.01)
    assert dsd.weights(model)[0].mask is None


@pytest.mark.once_per_keras
def test_best_weights_restored_from_the_sparse_phase_are_reported_as_sparse(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()))

    class Worsen(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = [3, 1, 2, 2, 2][epoch]

    stop = callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    with pytest.warns(UserWarning, match="or its weights were restored"):
        model.fit(
            *digits, epochs=5, verbose=0, callbacks=[Worsen(), stop, dsd.DSDSchedule(1, 1, 3)]
        )
    assert zeros(model) == PRUNED


@pytest.mark.once_per_keras
def test_weights_restored_from_a_scaled_phase_leave_the_rate_alone(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()))

    class KeepAndRestore(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.weights = self.model.get_weights()

        def on_train_end(self, logs=None):
            self.model.set_weights(self.weights)

    for _ in range(2):
        logs = model.fit(*digits, epochs=3, verbose=0,
                         callbacks=[dsd.DSDSchedule(1, 1, 1), KeepAndRestore()],
                         ).history  # fmt: skip
        assert logs["dsd_learning_rate"] == pytest.approx([1e-2, 1e-2, 1e-3])
        assert rate(model) == pytest.approx(1e-2)


class Fail(callbacks.Callback):
    """Raises in the middle of an epoch."""

    def __init__(self, epoch, error):
        super().__init__()
        self.wanted, self.error = epoch, error

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.wanted and batch == 4:
            raise self.error


@pytest.mark.parametrize(("epoch", "error"), [
    pytest.param(0, RuntimeError("disk"), marks=pytest.mark.once_per_keras),
    (1, KeyboardInterrupt()), (2, RuntimeError("disk")),
], ids=["dense-error", "sparse-Ctrl-C", "redense-error"])  # fmt: skip
def test_after_an_exception_a_plain_fit_is_plain(epoch, error, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()))
    with pytest.raises(type(error)):
        model.fit(*digits, epochs=3, verbose=0,
                  callbacks=[dsd.DSDSchedule(1, 1, 1), Fail(epoch, error)])  # fmt: skip
    assert zeros(model) == (PRUNED if epoch == 1 else zeros(model))
    assert all(w.variable.constraint is None for w in dsd.weights(model))
    reference = compiled(mlp(), keras.optimizers.SGD.from_config({
        **model.optimizer.get_config(), "learning_rate": 0.01}))  # fmt: skip
    reference.build((None, 8, 8, 1))
    reference.optimizer.build(reference.trainable_variables)
    for ours, theirs in zip(reference.trainable_weights, model.trainable_weights, strict=True):
        ours.assign(np.array(theirs))
    for ours, theirs in zip(reference.optimizer.variables, model.optimizer.variables, strict=True):
        if ours is not reference.optimizer.learning_rate:
            ours.assign(np.array(theirs))
    for each in (model, reference):
        each.fit(*digits, shuffle=False, verbose=0)
    assert is_untouched(model) and rate(model) == pytest.approx(0.01)
    for a, b in zip(model.trainable_weights, reference.trainable_weights, strict=True):
        assert np.array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("epoch", [3])
def test_after_an_exception_the_same_schedule_resumes(epoch, digits, compiled, mlp):
    model = compiled(dsd.apply(mlp()))
    schedule = dsd.DSDSchedule(1, 2, 1)
    with pytest.raises(RuntimeError, match="disk"):
        model.fit(
            *digits, epochs=4, verbose=0, callbacks=[schedule, Fail(epoch, RuntimeError("disk"))]
        )
    masks = [w.mask for w in dsd.weights(model)]
    seen = []
    look = callbacks.LambdaCallback(
        on_batch_begin=lambda *_, **__: seen.append([w.mask for w in dsd.weights(model)])
    )
    history = model.fit(*digits, epochs=4, initial_epoch=epoch, verbose=0,
                        callbacks=[schedule, look]).history  # fmt: skip
    assert history["dsd_phase"] == [0, 1, 1, 2][epoch:]
    for before, now in zip(masks, seen[0], strict=True):
        assert (before is None) == (now is None) == (epoch in (0, 3))
        assert before is None or np.array_equal(before, now)
    assert is_untouched(model) and rate(model) == pytest.approx(0.01)


def test_hooks_called_manually_around_train_on_batch(digits, compiled, mlp):
    x, y = digits
    results = []
    for by_hand in (False, True):
        seed(5)
        model = compiled(dsd.apply(mlp()), "sgd")
        schedule = dsd.DSDSchedule(1, 1, 1)
        if by_hand:
            schedule.set_model(model)
            schedule.on_train_begin()
            for epoch in range(3):
                schedule.on_epoch_begin(epoch)
                for at in range(0, 320, 32):
                    model.train_on_batch(x[at : at + 32], y[at : at + 32])
                    if epoch == 1:
                        assert zeros(model) == PRUNED
                logs = {"loss": 0.0}
                schedule.on_epoch_end(epoch, logs)
                assert logs["dsd_phase"] == epoch
                assert logs["dsd_learning_rate"] == pytest.approx(0.001 if epoch == 2 else 0.01)
            schedule.on_train_end()
        else:
            model.fit(x, y, epochs=3, shuffle=False, verbose=0, callbacks=[schedule])
        assert is_untouched(model) and rate(model) == pytest.approx(0.01)
        results.append(model.get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_the_callback_without_apply(digits, compiled, mlp):
    model = compiled(mlp())
    with pytest.raises(ValueError, match=r"was passed through apply\(\).*keras_dsd.apply\(model"):
        model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])


@pytest.mark.once_per_keras
def test_the_progress_line_shows_phase_and_sparsity(digits, compiled, mlp, capsys):
    model = compiled(dsd.apply(mlp()))
    model.fit(*digits, epochs=3, verbose=2, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    lines = [line for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert len(lines) == 3
    assert all(re.search(r"dsd_phase: .* - dsd_sparsity: ", line) for line in lines)
    assert "dsd_phase: 1 - dsd_sparsity: 0.2998" in lines[1]


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
@pytest.mark.once_per_keras
def test_a_log_message_describes_the_start_of_a_phase(verbose, digits, compiled, mlp, capsys):
    model = compiled(dsd.apply(mlp()), "adam")
    model.fit(*digits, epochs=4, verbose=verbose, callbacks=[dsd.DSDSchedule(2, 1, 1)])
    lines = capsys.readouterr().out.splitlines()
    epochs = [line for line in lines if line.startswith("Epoch ")]
    assert epochs == [
        "Epoch 1: DSD phase 1/3 (dense, 2 epochs): all weights train, learning rate 0.001",
        "Epoch 1/4",
        "Epoch 2/4",
        "Epoch 3: DSD phase 2/3 (sparse, 1 epoch): 30.0% sparsity (355 of 1,184 weights in 2 "
        "tensors), optimizer state reset for pruned weights, learning rate 0.001",
        "Epoch 3/4",
        "Epoch 4: DSD phase 3/3 (re-dense, 1 epoch): 355 weights regrow from zero, optimizer "
        "state reset for regrown weights, learning rate 0.0001",
        "Epoch 4/4",
    ]


@pytest.mark.once_per_keras
def test_what_changes_is_logged_where_keras_logs_its_progress(digits, compiled, mlp, capsys):
    model = compiled(dsd.apply(mlp()))
    config = keras.utils if PATH == "tf_keras" else keras.config
    config.disable_interactive_logging()
    try:
        model.fit(*digits, epochs=3, verbose=2, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    finally:
        config.enable_interactive_logging()
    assert capsys.readouterr().out == ""


@pytest.mark.once_per_keras
def test_a_rate_that_is_computed_is_named_as_that(digits, compiled, mlp, capsys):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model = compiled(dsd.apply(mlp()), keras.optimizers.SGD(rate))
    model.fit(*digits, epochs=3, verbose=2, callbacks=[dsd.DSDSchedule(1, 1, 1)])
    lines = [line for line in capsys.readouterr().out.splitlines() if "DSD phase" in line]
    assert lines[1].endswith(", scheduled learning rate")
    assert lines[2].endswith(", 0.1 times the scheduled learning rate")


@pytest.mark.once_per_keras
def test_csv_and_history_carry_what_is_measured(digits, compiled, mlp, tmp_path):
    model = compiled(dsd.apply(mlp()))
    path = tmp_path / "log.csv"
    model.fit(*digits, epochs=3, verbose=0,
              callbacks=[dsd.DSDSchedule(1, 1, 1), callbacks.CSVLogger(path)])  # fmt: skip
    rows = [line.split(",") for line in path.read_text().splitlines()]
    columns = ["epoch", "dsd_epochs_left", "dsd_learning_rate", "dsd_phase", "dsd_sparsity", "loss"]
    assert rows[0][:6] == columns
    assert [row[3] for row in rows[1:]] == ["0", "1", "2"]
    assert float(rows[2][4]) == pytest.approx(355 / 1184)


@pytest.mark.once_per_keras
def test_two_schedules_in_one_fit_are_refused(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.5))
    before = model.get_weights()
    both = [dsd.DSDSchedule(1, 1, 1), dsd.DSDSchedule(1, 2, 1)]
    with pytest.raises(ValueError, match=r"one DSDSchedule in a fit.*phases=\["):
        model.fit(*digits, epochs=4, verbose=0, callbacks=both)
    for was, now in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(was, now)
    history = model.fit(*digits, epochs=4, verbose=0, callbacks=both[1:]).history
    assert history["dsd_phase"] == [0, 1, 1, 2]


@pytest.mark.once_per_keras
def test_a_warning_shows_the_line_that_called_fit(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.5))
    sparse = dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])
    with pytest.warns(UserWarning, match="ended with pruned weights") as caught:
        model.fit(*digits, verbose=0, callbacks=[sparse])
    assert [w.filename for w in caught if "pruned weights" in str(w.message)] == [__file__]


@pytest.mark.once_per_keras
def test_the_report_shows_masks_only_while_active(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.5))
    with pytest.warns(UserWarning, match="ended with pruned weights"):
        model.fit(*digits, verbose=0, callbacks=[dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])])
    assert all(weight.masked for weight in dsd.report(model).weights)
    model.fit(*digits, verbose=0)
    assert not any(weight.masked for weight in dsd.report(model).weights)
