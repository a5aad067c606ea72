"""Layers with state that is not trained: vocabularies and statistics stay, and are listed."""

import importlib

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.adapters import registry
from keras_dsd.algorithm.selection import PREPARES
from tests.helpers.paths import Watch, keras

layers = keras.layers
HAS_TEXT = keras.backend.backend() == "tensorflow"  # elsewhere tables and strings are not
WORDS = np.array(["a", "b", "c", "d"])
RANDOM = np.random.default_rng(0)
DATA = {
    "number": RANDOM.normal(3.0, 2.0, size=(64, 2)).astype("float32"),
    "whole": RANDOM.integers(4, size=(64, 1)).astype("int64"),
}
if HAS_TEXT:  # Keras 3 takes strings as tensors alone
    ROWS = [[" ".join(row)] for row in RANDOM.choice(WORDS, size=(64, 3))]
    DATA["text"] = importlib.import_module("tensorflow").constant(ROWS)
LABELS = RANDOM.integers(10, size=64)
NUMERIC = {"normalization", "discretization", "category_encoding"}
TEXTUAL = {"text_vectorization", "word", "integer_lookup", "hashing"}


def adapted(layer, data):
    layer.adapt(data)
    return layer


def binned(bin_boundaries=None):
    if bin_boundaries is not None:
        return layers.Discretization(bin_boundaries, output_mode="multi_hot")
    layer = layers.Discretization(num_bins=3, output_mode="multi_hot")
    return adapted(layer, DATA["number"])


def make(**bins):
    """A model with all of them; tf_keras does not save what Discretization adapted to."""
    number = layers.Input((2,), name="number")
    whole = layers.Input((1,), name="whole", dtype="int64")
    inputs, numbers = {"number": number, "whole": whole}, DATA["number"]
    features = [
        adapted(layers.Normalization(), numbers)(number),
        binned(**bins)(number),
        layers.CategoryEncoding(4, output_mode="multi_hot")(whole),
    ]  # fmt: skip
    if HAS_TEXT:
        text = inputs["text"] = layers.Input((1,), name="text", dtype="string")
        words = adapted(layers.TextVectorization(output_sequence_length=3), DATA["text"])
        word = adapted(layers.StringLookup(output_mode="one_hot", name="word"), DATA["text"][:9])
        number = adapted(layers.IntegerLookup(output_mode="multi_hot"), DATA["whole"])
        features += [
            layers.Flatten()(layers.Embedding(8, 5, name="embedding")(words(text))),
            word(text), number(whole), layers.Hashing(3, output_mode="one_hot")(text),
        ]  # fmt: skip
    x = layers.Dense(6, activation="relu", name="hidden")(layers.Concatenate()(features))
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


def knowledge(model):
    """Vocabularies and statistics of the layers."""
    found = []
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            found.append([np.array(each).tolist() for each in (layer.mean, layer.variance)])
        elif isinstance(layer, layers.Discretization):
            found.append(list(map(float, layer.bin_boundaries)))
        elif hasattr(layer, "get_vocabulary"):
            found.append(list(map(str, layer.get_vocabulary())))
    assert len(found) == 2 + 3 * HAS_TEXT
    return found


@pytest.fixture
def built(compiled):
    return lambda **bins: compiled(make(**bins), run_eagerly=True)


@pytest.mark.only_on("tf_keras", "tensorflow", "torch")  # on JAX Keras warns of its integers
def test_they_are_listed_and_stay(built):
    plain = built()
    before, config = knowledge(plain), plain.get_config()
    model = dsd.apply(plain, 0.4)
    skipped = {each.path: each for each in dsd.report(model).skipped}
    listed = {path for path, each in skipped.items() if each.reason == PREPARES}
    assert listed == NUMERIC | (TEXTUAL if HAS_TEXT else set())
    assert sum(skipped[path].size for path in listed) == 0
    weights = dsd.weights(model)
    ends = ["embedding/embeddings"] * HAS_TEXT + ["hidden/kernel", "head/kernel"]
    assert [weight.path for weight in weights] == ends
    watch = Watch(lambda _: [int(np.sum(weight.numpy() == 0)) for weight in weights])
    model.fit(DATA, LABELS, epochs=3, verbose=0, callbacks=[dsd.DSDSchedule(1, 1, 1), watch])
    pruned = [round(int(np.prod(weight.shape)) * 0.4) for weight in weights]
    assert watch.of_epoch(1) == [pruned] * 2
    outputs = model.predict(DATA, verbose=0)
    stripped = dsd.strip(model)
    assert knowledge(stripped) == before and stripped.get_config() == config
    assert np.array_equal(stripped.predict(DATA, verbose=0), outputs)


@pytest.mark.parametrize("name", [
    "model.keras", "model.weights.h5", pytest.param("saved_model", marks=pytest.mark.slow),
])  # fmt: skip
@pytest.mark.only_on("tf_keras", "tensorflow")
def test_a_model_from_apply_goes_through_files(name, built, tmp_path):
    bins = {"bin_boundaries": [2.0, 4.0]}
    plain, path = built(**bins), tmp_path / name
    before, model = knowledge(plain), dsd.apply(plain, 0.4)
    _ = [weight.assign(weight.numpy() + 1) for weight in dsd.weights(model)]
    outputs = model.predict(DATA, verbose=0)
    if name == "model.weights.h5":
        model.save_weights(path)
        again = dsd.apply(built(**bins), 0.4)
        again.load_weights(path)
    elif name == "saved_model" and keras.__name__ == "keras":
        model.export(path, verbose=False)
        again = keras.layers.TFSMLayer(path, call_endpoint="serve")
        assert np.allclose(again(DATA), outputs, atol=1e-6)
        return
    else:
        model.save(path)
        again = keras.models.load_model(path, compile=False)
    assert np.allclose(again.predict(DATA, verbose=0), outputs, atol=1e-6)
    if keras.__name__ == "tf_keras" and name != "saved_model":
        again = dsd.strip(again)
        assert knowledge(again) == before
        assert np.allclose(again.predict(DATA, verbose=0), outputs, atol=1e-6)


def test_a_renewed_model_knows_what_the_model_knew(built):
    plain = built()
    made = registry.adapter_of(plain).training_state.renewed(plain)
    assert knowledge(made) == knowledge(plain)
    hidden = [each.get_layer("hidden").get_weights()[0] for each in (plain, made)]
    assert not np.array_equal(*hidden)


@pytest.mark.slow
@pytest.mark.only_on("tf_keras", "tensorflow")
def test_the_best_weights_are_restored(built, tmp_path):
    plain = built()
    before, model = knowledge(plain), dsd.apply(plain, 0.4)
    until = dsd.Plateau("loss", patience=1, min_delta=100.0, restore_best=True)
    phases = [dsd.DensePhase(3, until=until), dsd.SparsePhase(1), dsd.DensePhase(1)]
    schedule = dsd.DSDSchedule(phases=phases, backup_dir=tmp_path)
    model.fit(DATA, LABELS, epochs=5, verbose=0, callbacks=[schedule])
    assert list(tmp_path.glob("dsd_best_*.npz"))
    assert knowledge(dsd.strip(model)) == before


@pytest.mark.slow
@pytest.mark.only_on("tf_keras", "tensorflow")
def test_compare_and_sensitivity(compiled):
    text, parts = DATA["text"], {"train": 32, "validation": 48, "test": 64}
    data = {name: (text[end - 16 : end], LABELS[end - 16 : end]) for name, end in parts.items()}

    def build():
        words = layers.TextVectorization(output_sequence_length=3)
        words.set_vocabulary(list("abcd"))  # as `adapt` does, in less time
        body = [layers.Embedding(8, 4), layers.Flatten(), layers.Dense(10)]
        model = keras.Sequential([layers.Input((1,), dtype="string"), words, *body])
        return compiled(model, run_eagerly=True)

    phases = [dsd.SparsePhase(1), dsd.DensePhase(1)]
    found = dsd.compare(build, data, phases=phases, seeds=2, arms=["dense", "dsd"],
                        max_shared_rows=1, progress=False)  # fmt: skip
    assert len(found.runs) == 6
    model = dsd.apply(build(), 0.4)
    outputs = model.predict(text, verbose=0)
    dsd.sensitivity(model, lambda model: 1.0, levels=[0.5], progress=False)
    assert np.array_equal(model.predict(text, verbose=0), outputs)
