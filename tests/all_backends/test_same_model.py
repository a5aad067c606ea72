"""The model from `apply` is the user's: its names, files and layers; masks are outside of it."""

import h5py
import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers import paths
from tests.helpers.paths import PATH, keras, name_of

FEATURES = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
LABELS = {"age": FEATURES[:, :1], "sex": (FEATURES[:, 1] > 0).astype("int32")}


def network():
    """Returns a model with two named outputs and another model in it."""
    paths.fresh()
    layers = keras.layers
    body = [layers.Dense(8, "relu", name="first"), layers.BatchNormalization(name="norm")]
    body = keras.Sequential([layers.Input((6,)), *body], name="body")
    inputs = layers.Input((6,), name="features")
    x = layers.Dropout(0.5, name="drop")(body(inputs))
    outputs = {"age": layers.Dense(1, name="age")(x), "sex": layers.Dense(2, name="sex")(x)}
    return keras.Model(inputs, outputs, name="net")


def compiled(model):
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    losses = {"age": "mse", "sex": crossentropy}
    model.compile("sgd", loss=losses, metrics={"age": ["mae"]}, run_eagerly=True)
    return model


def fit(model, *callbacks, epochs=3, schedule=None):
    schedule = schedule or dsd.DSDSchedule(1, 1, 1)
    data = {"x": FEATURES, "y": LABELS, "validation_data": (FEATURES, LABELS)}
    called = [schedule, *callbacks]
    return model.fit(**data, epochs=epochs, batch_size=16, verbose=0, callbacks=called)


def outside(model, folder):
    """Returns what users, and what they write, know a model by; the summary comes last."""
    path, summary, paths_in_file = str(folder / "some.weights.h5"), [], []
    model.summary(print_fn=lambda line, **_: summary.append(line), expand_nested=True)
    model.save_weights(path, overwrite=True)
    with h5py.File(path) as file:
        file.visit(paths_in_file.append)
    paths_in_file = [each for each in paths_in_file if each.startswith("layers")]
    names = [layer.name for part in (model, model.get_layer("body")) for layer in part.layers]
    return names, list(model.output_names), paths_in_file, [*map(name_of, model.weights)], summary


def test_names_logs_and_files_of_weights_stay(tmp_path):
    model = network()
    before = outside(model, tmp_path)
    applied = compiled(dsd.apply(model, 0.5))
    assert applied is model and outside(applied, tmp_path) == before
    stop = keras.callbacks.EarlyStopping("val_age_loss", min_delta=1e9, mode="min")
    with pytest.warns(UserWarning, match="ended with pruned weights"):
        logs = fit(applied, stop).history
    assert len(logs["loss"]) == 2  # it saw its monitor
    plain = {"loss", "age_loss", "sex_loss", "age_mae"}
    assert set(logs) - {"learning_rate"} == plain | {f"val_{name}" for name in plain} | {
        "dsd_phase", "dsd_sparsity", "dsd_epochs_left", "dsd_learning_rate",
    }  # fmt: skip
    # Keras 3 sums up the optimizer too, once it is built.
    assert outside(applied, tmp_path)[:-1] == before[:-1]
    assert applied.get_layer("age").kernel.shape == (8, 1)
    assert dsd.strip(applied) is model and outside(model, tmp_path)[:-1] == before[:-1]


def test_files_of_weights_go_from_plain_models_to_applied_ones_and_back(tmp_path):
    ways = {"some.weights.h5": {}}
    if PATH == "tf_keras":
        ways |= {"some.h5": {"by_name": True}, "checkpoint": {}}
    plain, applied = network(), dsd.apply(network(), 0.5)
    for name, how in ways.items():
        for one, other in ((plain, applied), (applied, plain)):
            values = [np.random.default_rng(1).normal(size=w.shape) for w in one.weights]
            one.set_weights(values)
            one.save_weights(str(tmp_path / name), overwrite=True)
            other.set_weights([np.zeros(w.shape) for w in other.weights])
            other.load_weights(str(tmp_path / name), **how)
            assert all(map(np.array_equal, paths.arrays(one), paths.arrays(other)))


class Zeros(paths.Watch):
    def __init__(self):
        super().__init__(lambda model: {w.path: int(np.sum(w.numpy() == 0))
                                        for w in dsd.weights(model)})  # fmt: skip


def test_what_is_unfrozen_after_apply_trains_and_is_pruned():
    model = network()
    body = model.get_layer("body")
    body.trainable = False
    applied = dsd.apply(model, 0.5)
    assert not any("first" in weight.path for weight in dsd.weights(applied))
    assert any("not trainable" in s.reason for s in dsd.report(applied).skipped)
    body.trainable, zeros = True, Zeros()
    before = np.array(body.get_weights()[0])
    fit(compiled(applied), zeros)
    assert not np.array_equal(before, body.get_weights()[0])
    (path,) = (path for path in zeros.seen[-1] if "first" in path)
    assert [seen[path] for seen in zeros.of_epoch(1)] == [24] * 3


def test_what_is_frozen_after_apply_stays_as_it_is():
    model = network()
    norm, age = model.get_layer("body").get_layer("norm"), model.get_layer("age")
    applied = dsd.apply(model, 0.5)
    norm.trainable = age.trainable = False
    assert not any("age" in weight.path for weight in dsd.weights(applied))
    before = [np.array(value) for value in (*norm.get_weights(), *age.get_weights())]
    fit(compiled(applied))
    assert all(map(np.array_equal, before, [*norm.get_weights(), *age.get_weights()]))
    model.trainable = False
    assert applied.trainable_weights == []


def test_what_the_user_holds_is_what_trains():
    model = network()
    body, drop, age = map(model.get_layer, ("body", "drop", "age"))
    applied, before = dsd.apply(model, 0.5), np.array(age.kernel)
    assert applied.get_layer("body") is body and applied.get_layer("drop") is drop
    drop.rate = 0.0
    fit(compiled(applied))
    assert not np.array_equal(before, age.kernel)
    features = keras.Model(applied.input, applied.get_layer("drop").output)
    assert np.array_equal(features.predict(FEATURES, verbose=0), body.predict(FEATURES, verbose=0))
    assert dsd.strip(applied).get_layer("age") is age


@pytest.mark.parametrize(
    "how", [pytest.param("set_weights", marks=pytest.mark.slow), "load_weights"]
)
def test_weights_that_are_restored_in_the_sparse_phase_are_masked_again(how, tmp_path):
    path, zeros = str(tmp_path / "dense.weights.h5"), []

    class Restore(keras.callbacks.Callback):
        """Goes back to the end of the dense phase, as on a plateau."""

        def on_epoch_begin(self, epoch, logs=None):
            zeros.append([np.sum(w.numpy() == 0) for w in dsd.weights(self.model)])

        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.dense = paths.arrays(self.model)
                self.model.save_weights(path)
            if epoch == 1 and how == "set_weights":
                self.model.set_weights(self.dense)
            elif epoch == 1:
                self.model.load_weights(path)

    model = compiled(dsd.apply(network(), 0.5))
    with pytest.warns(UserWarning, match="Weights were replaced during the sparse phase"):
        logs = fit(model, Restore(), epochs=4, schedule=dsd.DSDSchedule(1, 2, 1)).history
    assert zeros == [[0, 0, 0], [24, 4, 8], [24, 4, 8], [24, 4, 8]]
    assert logs["dsd_sparsity"] == [0.0, 0.5, 0.5, 0.0]
