"""Nothing of a model changes but its weights: apply returns the same object, in every phase."""

import gc
import io
import os
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.paths import left_behind
from tests.helpers.watching import pruned, run, zeros


def look_of(model):
    """All that a user can see of a model, but its weights' values."""
    lines = io.StringIO()
    model.summary(print_fn=lambda line: lines.write(line + "\n"))
    return {
        "config": model.get_config(),
        "weights": [(w.path, w.shape, str(w.dtype), w.trainable) for w in model.weights],
        "variables": [v.path for v in model.variables],
        "optimizer": [v.path for v in model.optimizer.variables],
        "summary": lines.getvalue(),
        "attributes": set(vars(model)) - {"history", "_jax_state", "_eval_epoch_iterator"},
        "layers": [(type(layer), id(layer)) for layer in model._flatten_layers()],
        "constraints": [v.constraint for v in model.trainable_variables],
    }


def test_nothing_changes_in_any_phase(digits, compiled, mlp):
    model = compiled(mlp())
    model.optimizer.build(model.trainable_variables)
    model.fit(*digits, verbose=0)
    before = look_of(model)
    assert dsd.apply(model, 0.4) is model
    looks = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            looks.append(look_of(self.model))

    run(model, *digits, callbacks=[Look()])
    hidden = {"make_train_function"}
    for look in looks:
        assert look.pop("attributes") - before["attributes"] == hidden
        assert look == {key: value for key, value in before.items() if key != "attributes"}
    assert look_of(model) == before
    assert dsd.strip(model) is model
    assert look_of(model) == before
    with pytest.raises(ValueError, match=r"was passed through apply\(\)"):
        dsd.weights(model)


@pytest.mark.slow
def test_a_file_of_any_phase_is_a_plain_file(digits, compiled, mlp, tmp_path):
    """It loads where keras_dsd is not there, at the unscaled rate, with the zeros in it."""
    model = compiled(dsd.apply(mlp(), 0.4), keras.optimizers.Adam(0.002))
    path = str(tmp_path / "{epoch}.keras")
    run(model, *digits, callbacks=[keras.callbacks.ModelCheckpoint(path)])
    code = (
        "import sys, keras, numpy as np; from pathlib import Path\n"
        "for epoch in (1, 2, 3):\n"
        f"    model = keras.models.load_model(Path({str(tmp_path)!r}) / f'{{epoch}}.keras')\n"
        "    count = [int(np.sum(np.array(l.kernel) == 0)) for l in model.layers[1:]]\n"
        "    print(count, float(np.array(model.optimizer.learning_rate)))\n"
        "print('keras_dsd' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    *rows, ours = done.stdout.splitlines()
    rate = str(float(np.float32(0.002)))
    assert [row[row.index("]") + 2 :] for row in rows] == [rate] * 3
    assert rows[1].startswith(str(pruned(model))) and not rows[2].startswith(str(pruned(model)))
    assert ours == "False"


def test_a_model_in_which_a_part_went_through_apply(digits, compiled):
    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.flat = keras.layers.Flatten()
            self.hidden = dsd.apply(keras.layers.Dense(16, "relu"), 0.4)
            self.out = keras.layers.Dense(10, name="out")

        def call(self, x):
            return self.out(self.hidden(self.flat(x)))

    model = compiled(Outer())
    model(digits[0][:1])
    assert [w.path.rpartition("/")[2] for w in dsd.weights(model)] == ["kernel"]
    run(model, *digits)
    reasons = {s.path.split("/")[-2]: s.reason for s in dsd.report(model).skipped}
    assert reasons["out"] == "outside the layer that was wrapped"
    with pytest.raises(ValueError, match=r"was not passed through apply\(\).*Call strip\(\)"):
        dsd.apply(model)
    dsd.strip(model)
    assert len(dsd.weights(dsd.apply(model))) == 2


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flat = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(16, "relu")
        self.out = keras.layers.Dense(10, name="out")

    def call(self, x):
        return self.out(self.hidden(self.flat(x)))


def test_a_model_that_is_built_by_fit(digits, compiled):
    model = compiled(dsd.apply(Subclassed(), {"out": 0.5, ".": 0.25}))
    assert dsd.weights(model) == []
    run(model, *digits)
    assert [w.sparsity for w in dsd.weights(model)] == [0.25, 0.5]


@pytest.mark.once_per_keras
def test_patterns_that_match_nothing_are_refused_once_the_model_is_built(digits, compiled):
    model = compiled(dsd.apply(Subclassed(), {"out": 0.5, "conv": 0.25}))
    with pytest.raises(ValueError, match="pattern='conv', which matches none of"):
        model.fit(*digits, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])


@pytest.mark.once_per_keras
def test_a_callable_is_asked_once_for_each_weight(digits, compiled, mlp):
    asked = []
    model = compiled(dsd.apply(mlp(), lambda weight: asked.append(weight.path) or 0.4))
    run(model, *digits)
    dsd.report(model)
    assert asked == ["sequential/dense/kernel", "sequential/dense_1/kernel"]


def test_what_is_stored_per_model_is_freed_with_it(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.4))
    with pytest.warns(UserWarning, match="pruned weights"):
        model.fit(*digits, verbose=0, callbacks=[dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])])
    assert zeros(model) == pruned(model)
    gone = weakref.ref(model)
    del model
    keras.utils.clear_session()
    gc.collect()
    assert gone() is None


def test_strip_after_an_exception_ends_the_run(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.4), keras.optimizers.Adam(0.002))

    class Fail(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        model.fit(*digits, epochs=2, verbose=0, callbacks=[
            dsd.DSDSchedule(phases=[dsd.DensePhase(2, lr=0.1)]), Fail()])  # fmt: skip
    assert "make_train_function" in vars(model)
    dsd.strip(model)
    assert not left_behind(model)


def test_what_can_not_be_trained_is_refused_before_anything_changes(monkeypatch, compiled, mlp):
    model = dsd.apply(mlp())
    schedule = dsd.DSDSchedule(0, 1, 1)
    schedule.set_model(model)
    with pytest.raises(ValueError, match="optimizer=None on model='sequential'.*Compile the model"):
        schedule.on_train_begin()
    compiled(model)
    monkeypatch.setattr(keras.config, "is_nnx_enabled", lambda: True, raising=False)
    with pytest.raises(ValueError, match="without NNX.*KERAS_NNX_ENABLED=false"):
        schedule.on_train_begin()
    assert not {"make_train_function", "reset_metrics"} & set(vars(model))


@pytest.mark.slow
@pytest.mark.once_per_keras
def test_a_backend_that_does_not_train_is_refused():
    code = (
        "import keras, keras_dsd as dsd\n"
        "dsd.apply(keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "ValueError: Expected a backend that trains" in done.stderr
    assert "backend='numpy'" in done.stderr


IMPORTS = """
import sys
import numpy as np
import keras
import keras_dsd as dsd
layers = keras.layers
model = keras.Sequential([layers.Input((4,)), layers.Dense(3), layers.Dense(2)])
model = dsd.apply(model)
model.compile("adam", "mse")
x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
model.fit(x, y, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1)])
dsd.report(model)
dsd.strip(model)
print(*{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.slow
def test_no_other_framework_is_imported():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = set(done.stdout.split())
    assert not loaded & {"tf_keras", "tensorflow_model_optimization"}
    assert ("tensorflow" in loaded) == (keras.backend.backend() == "tensorflow")
