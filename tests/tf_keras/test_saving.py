"""Files and checkpoints of wrapped models, taken in every phase, and TF-MOT's own tools."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper

import keras_dsd as dsd

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")

SCHEDULE = lambda: dsd.DSDSchedule(1, 2, 1)  # noqa: E731
FORMATS = ["model.keras", "model.h5", "saved_model"]


def summary(model):
    return [(w.path, w.shape, w.sparsity, w.numpy().tolist()) for w in dsd.weights(model)]


def network(kind):
    layers = tf_keras.layers
    body = {"LSTM": layers.LSTM(6), "Conv1D": layers.Conv1D(6, 6)}[kind]
    return tf_keras.Sequential([
        layers.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Reshape((6, 24)), body,
        layers.Flatten(), layers.Dense(10),
    ])  # fmt: skip


@pytest.mark.parametrize(("format_", "kind"), [
    ("model.keras", "LSTM"), ("model.h5", "Conv1D"), ("saved_model", "Conv1D"),
    # TensorFlow traces an LSTM again for each signature of each file.
    pytest.param("saved_model", "LSTM", marks=[pytest.mark.slow, pytest.mark.exhaustive]),
])  # fmt: skip
def test_a_run_resumes_from_a_file_of_any_phase(format_, kind, digits, compiled, tmp_path):
    model = dsd.apply(network(kind), {"kernel": 0.3, ".": 0}, exclude=["dense"])
    model = compiled(model, run_eagerly=True)
    x, y = digits[0][:64], digits[1][:64]
    saved = {}

    class Save(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                where = tmp_path / f"{len(saved)}" / format_
                where.parent.mkdir()
                self.model.save(where)
                saved[where] = summary(self.model)

    model.fit(x, y, epochs=4, verbose=0, callbacks=[SCHEDULE(), Save()])
    assert len(saved) == 4
    for where, expected in saved.items():
        loaded = tf_keras.models.load_model(where)
        assert summary(loaded) == expected
        if format_ != "saved_model":  # Keras does not restore the optimizer from there
            assert loaded.optimizer.iterations.numpy() > 0
    in_sparse = tf_keras.models.load_model(list(saved)[1])
    history = in_sparse.fit(x, y, epochs=4, initial_epoch=2, verbose=0, callbacks=[SCHEDULE()])
    assert history.history["dsd_sparsity"][0] == pytest.approx(0.3, abs=0.01)
    reasons = {s.path: s.reason for s in dsd.report(in_sparse).skipped}
    assert reasons["dense/kernel"] == "excluded"
    names = [w.name for w in model.weights]
    assert [w.name for w in in_sparse.weights] == names
    assert [w.name for w in dsd.strip(in_sparse).weights] == names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("formats", "imports"),
    [(FORMATS, "tf_keras, keras_dsd"), (FORMATS[:1], "keras_dsd, tf_keras")],
    ids=["each format", "keras_dsd first"],
)
def test_a_fresh_process_loads_strips_and_predicts_the_same(
    formats, imports, digits, compiled, tmp_path, mlp
):
    model = compiled(dsd.apply(mlp()))
    model.fit(*digits, epochs=4, verbose=0, callbacks=[SCHEDULE()])
    for each in formats:
        model.save(tmp_path / each)
    np.savez(tmp_path / "data.npz", x=digits[0], y=model.predict(digits[0], verbose=0))
    program = f"""
import sys, numpy as np, {imports}
import keras_dsd as dsd
assert "tensorflow_model_optimization" not in sys.modules
data = np.load({str(tmp_path / "data.npz")!r})
for path in {[str(tmp_path / each) for each in formats]}:
    model = tf_keras.models.load_model(path)
    assert [w.path for w in dsd.weights(model)] == ["dense/kernel", "dense_1/kernel"]
    stripped = dsd.strip(model)
    features = tf_keras.Model(stripped.inputs, stripped.layers[0].output)
    assert features.predict(data["x"], verbose=0).shape == (320, 64)
    assert np.array_equal(stripped.predict(data["x"], verbose=0), data["y"])
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ})


@pytest.mark.filterwarnings("ignore:fit has trained model=")
def test_checkpoint_of_a_phase_resumes_in_another_model(digits, compiled, mlp, tmp_path):
    def fresh():
        model = compiled(dsd.apply(mlp(), 0.4))
        return model, tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    model, checkpoint = fresh()
    paths = []
    save = tf_keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: paths.append(checkpoint.save(str(tmp_path / "c")))
    )
    model.fit(*digits, epochs=4, shuffle=False, verbose=0, callbacks=[SCHEDULE(), save])
    for done in (1, 2, 3):
        other, restored = fresh()
        other.fit(*digits, epochs=1, verbose=0)
        restored.restore(paths[done - 1]).assert_consumed()
        other.fit(*digits, epochs=4, initial_epoch=done, shuffle=False, verbose=0,
                  callbacks=[SCHEDULE()])  # fmt: skip
        for a, b in zip(other.get_weights(), model.get_weights(), strict=True):
            assert np.array_equal(a, b)


def test_weights_only_checkpoints_are_sparse_at_every_batch(digits, compiled, mlp, tmp_path):
    model = compiled(dsd.apply(mlp(), 0.4))
    path = str(tmp_path / "{epoch}-{batch}.weights.h5")
    save = tf_keras.callbacks.ModelCheckpoint(path, save_weights_only=True, save_freq=3)
    model.fit(*digits, epochs=4, verbose=0, callbacks=[SCHEDULE(), save])
    found = 0
    for file in tmp_path.iterdir():
        if file.name[0] in "23":  # epochs are counted from 1 here: 2 and 3 are sparse
            other = dsd.apply(mlp(), 0.4)
            other.load_weights(file)
            for weight in dsd.weights(other):
                assert np.sum(weight.numpy() == 0) == round(weight.numpy().size * 0.4)
                found += 1
    assert found >= 10


def without_shapes(config):
    """Leaves out the shapes that layers were built with, which old tf_keras forgets in wrappers."""
    if isinstance(config, dict):
        return {k: without_shapes(v) for k, v in config.items() if k != "build_config"}
    return [without_shapes(v) for v in config] if isinstance(config, list) else config


def test_settings_survive_the_config(mlp):
    model = dsd.apply(mlp(), {"dense/": 0.25, "dense_1": 0.5})
    again = tf_keras.Sequential.from_config(model.get_config())
    assert without_shapes(again.get_config()) == without_shapes(model.get_config())
    assert [(w.path, w.sparsity) for w in dsd.weights(again)] == [
        ("dense/kernel", 0.25), ("dense_1/kernel", 0.5),
    ]  # fmt: skip


def test_a_callable_is_kept_as_what_it_returned(mlp, tmp_path):
    model = dsd.apply(mlp(), lambda weight: 0.5 if weight.shape[0] > 20 else 0.1)
    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    assert [w.sparsity for w in dsd.weights(loaded)] == [0.5, 0.1]


def test_a_callable_of_an_unbuilt_layer_is_not_written():
    layer = dsd.apply(tf_keras.layers.Dense(3), lambda weight: 0.5)
    with pytest.raises(ValueError, match="built before it is saved"):
        layer.get_config()


def test_tfmot_finds_strips_and_loads_our_wrapper(digits, compiled, mlp, tmp_path):
    model = compiled(dsd.apply(mlp()))
    model.fit(*digits, epochs=4, verbose=0, callbacks=[SCHEDULE()])
    found = pruning_wrapper.collect_prunable_layers(model)
    assert [layer.layer.name for layer in found] == ["dense", "dense_1"]
    assert [(k.shape, m.shape, t.shape) for layer in found for k, m, t in layer.pruning_vars] == [
        ((64, 16), (64, 16), ()), ((16, 10), (16, 10), ()),
    ]  # fmt: skip
    stripped = tfmot.sparsity.keras.strip_pruning(model)
    assert [type(layer) for layer in stripped.layers] == [type(layer) for layer in mlp().layers]
    assert np.array_equal(stripped.predict(digits[0]), model.predict(digits[0]))
    model.save(tmp_path / "model.h5")
    with tfmot.sparsity.keras.prune_scope():
        assert summary(tf_keras.models.load_model(tmp_path / "model.h5")) == summary(model)


def test_tfmot_summaries_show_the_measured_sparsity(digits, compiled, mlp, tmp_path):
    model = compiled(dsd.apply(mlp(), 0.5))
    summaries = tfmot.sparsity.keras.PruningSummaries(str(tmp_path))
    model.fit(*digits, epochs=4, verbose=0, callbacks=[SCHEDULE(), summaries])
    values = {}
    for file in (tmp_path / "metrics").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                values.setdefault(value.tag, []).append(float(tf.make_ndarray(value.tensor)))
    sparsities = {tag: v for tag, v in values.items() if tag.endswith("/sparsity")}
    assert len(sparsities) == 2
    for series in sparsities.values():
        assert series == pytest.approx([0, 0.5, 0.5, 0], abs=1e-6)
    thresholds = [v for tag, v in values.items() if tag.endswith("/threshold")]
    assert all(t[1] > 0 and t[3] == 0 for t in thresholds)


def test_tfmots_own_callback_beside_ours_does_no_harm(digits, compiled, mlp):
    model = compiled(dsd.apply(mlp(), 0.5))
    update = tfmot.sparsity.keras.UpdatePruningStep()
    history = model.fit(*digits, epochs=4, verbose=0, callbacks=[update, SCHEDULE()]).history
    assert history["dsd_sparsity"][1:3] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert history["dsd_sparsity"][3] < 0.4


def test_masks_equal_those_of_tfmot_where_no_two_magnitudes_are_equal(digits, compiled, mlp):
    plain = mlp()
    pruned = tfmot.sparsity.keras.prune_low_magnitude(
        tf_keras.models.clone_model(plain),
        tfmot.sparsity.keras.ConstantSparsity(0.3, 0, frequency=1),
    )
    for theirs, ours in zip(pruned.layers, plain.layers, strict=True):
        theirs.set_weights(ours.get_weights())
    compiled(pruned, tf_keras.optimizers.SGD(0.0))
    pruned.fit(*digits, epochs=1, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
    theirs = [mask.numpy() != 0 for layer in pruned.layers
              for _, mask, _ in getattr(layer, "pruning_vars", ())]  # fmt: skip
    model = compiled(dsd.apply(plain, 0.3), tf_keras.optimizers.SGD(0.0))
    with pytest.warns(UserWarning, match="pruned weights"):
        model.fit(*digits, verbose=0, callbacks=[dsd.DSDSchedule(phases=[dsd.SparsePhase(1)])])
    ours = [weight.mask for weight in dsd.weights(model)]
    assert len(ours) == len(theirs) == 2
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_exported_operations_equal_those_of_an_untouched_model(digits, compiled, mlp, tmp_path):
    operations = []
    for arm in ("plain", "dsd"):
        tf_keras.backend.clear_session()
        tf_keras.utils.set_random_seed(1)
        model = compiled(mlp())
        if arm == "dsd":
            model = dsd.apply(model)
            model.fit(*digits, epochs=4, verbose=0, callbacks=[SCHEDULE()])
            model = dsd.strip(model)
        else:
            model.fit(*digits, epochs=4, verbose=0)
        model.export(str(tmp_path / arm))
        loaded = tf.saved_model.load(str(tmp_path / arm))
        graph = loaded.signatures["serving_default"].graph
        operations.append([(o.name, o.type) for o in graph.get_operations()])
        functions = graph.as_graph_def().library.function
        operations.append(sorted(node.op for f in functions for node in f.node_def))
        np.testing.assert_allclose(
            loaded.serve(digits[0]), model.predict(digits[0], verbose=0), atol=1e-5
        )
    assert operations[0] == operations[2]
    assert operations[1] == operations[3]
