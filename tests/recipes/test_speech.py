"""The speech recipe: its models, what it prunes of them, and its program, also on real speech."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import flagsaver

from tests.helpers.paths import PATH, arrays, fresh, keras, seed
from tests.helpers.programs_of_recipes import EXAMPLES, result_of, run, table_of

pytest.importorskip("soundfile", reason="needs soundfile: make recipes")
pytest.importorskip("jiwer", reason="needs jiwer: make recipes")

import soundfile
import speech

import keras_dsd as dsd
from recipes import speech_models, transcribing
from recipes.problems import MissingData

SPEECH = EXAMPLES / "speech.py"
NUM_BINS, WIDTH, LENGTHS = 9, 8, np.array([30, 19])
MODELS = {
    "deepspeech": (speech_models.deepspeech, {"stride": 3, "context": 2}),
    "deepspeech2": (speech_models.deepspeech2, {"stride": 2, "num_recurrent": 2}),
}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def build(name):
    fresh()
    seed(0)
    make, options = MODELS[name]
    return make(num_bins=NUM_BINS, width=WIDTH, **options)


def spectrograms(num_frames):
    """Two utterances, of 30 and of 19 frames, padded to `num_frames`."""
    random = np.random.default_rng(1)
    padded = np.zeros((2, num_frames, NUM_BINS), "float32")
    for row, length in zip(padded, LENGTHS, strict=True):
        row[:length] = random.normal(size=(length, NUM_BINS))
    return padded


def to_numpy(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor) if PATH == "keras" else tensor)


def test_padding_changes_nothing(name):
    model, stride = build(name), MODELS[name][1]["stride"]
    packed = np.column_stack([-(-LENGTHS // stride), [2, 3], [[1, 1, 9], [3, 4, 5]]])
    found, began_with = [], arrays(model)
    for padded_to in (30, 43):
        model.set_weights(began_with)  # averages move in training
        x = spectrograms(padded_to)
        for logits in (model(x, training=False), model(x, training=True)):
            assert logits.shape == (2, -(-padded_to // stride), len(transcribing.LETTERS) + 1)
            found.append(to_numpy(transcribing.ctc_loss(packed.astype("int32"), logits)))
        found += arrays(model)
    half = len(found) // 2
    for ours, theirs in zip(found[:half], found[half:], strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)


def test_an_utterance_is_heard_alone_as_in_a_batch(name):
    model = build(name)
    together = to_numpy(model(spectrograms(40), training=False))[1]
    alone = to_numpy(model(spectrograms(40)[1:, : LENGTHS[1]], training=False))[0]
    np.testing.assert_allclose(together[: len(alone)], alone, rtol=1e-4, atol=1e-5)


def test_loss_of_a_batch_is_the_mean_of_its_utterances(name):
    model = build(name)
    num_frames = -(-LENGTHS // MODELS[name][1]["stride"])
    packed = np.column_stack([num_frames, [2, 3], [[1, 1, 9], [3, 4, 5]]]).astype("int32")
    losses = to_numpy(transcribing.ctc_loss(packed, model(spectrograms(40), training=False)))
    model.compile(loss=transcribing.ctc_loss, run_eagerly=True)
    found = model.test_on_batch(spectrograms(40), packed)
    assert float(found) == pytest.approx(losses.mean(), rel=1e-5)


def test_what_is_pruned(name):
    model = dsd.apply(build(name), sparsity=dict.fromkeys(speech.PRUNE, 0.5))
    report = dsd.report(model)
    matrices = [row.shape for row in report.skipped if len(row.shape) > 1]
    w, classes = WIDTH, len(transcribing.LETTERS) + 1
    if name == "deepspeech":
        assert [row.shape for row in report.weights] == 6 * [(w, w)]
        assert matrices == [(5, NUM_BINS, w), (w, classes)]
    else:
        first = 32 * 3  # channels by what 9 bins become in two steps of 2
        assert [row.shape for row in report.weights] == [(first, w)] + 6 * [(w, w)]
        assert matrices == [(11, 41, 1, 32), (11, 21, 32, 32), (w, classes)]


def test_files_load(name, tmp_path):
    model = build(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = spectrograms(30)
    assert np.array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


@pytest.fixture
def parse():
    with flagsaver.flagsaver():
        yield lambda *given: speech.FLAGS(["speech.py", "--workdir=none", *given])


def test_no_data(parse, tmp_path):
    parse(f"--data={tmp_path}")
    with pytest.raises(MissingData, match=r"(?s)a manifest train.jsonl.*layout.*LDC93S6A"):
        speech.main()


def test_utterances_that_are_too_short(parse, tmp_path, capsys):
    lines = ""
    for name, num_frames in {"a": 7, "b": 6, "c": 8}.items():
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(320 + 160 * (num_frames - 1)), 16000)
        lines += json.dumps({"audio_filepath": f"{name}.wav", "text": "aab"}) + "\n"
    (tmp_path / "train.jsonl").write_text(lines)
    parse(f"--data={tmp_path}", "--batch_size=2")
    assert speech.read_split("train", for_loss=True).num_frames == [7, 8]
    assert "train.jsonl: 1 of 3 utterances have fewer frames" in capsys.readouterr().out
    assert speech.read_split("train").num_frames == [7, 6, 8]
    parse("--batch_size=3")
    with pytest.raises(MissingData, match="Expected 3 utterances at least.*Received: 2 in"):
        speech.read_split("train", for_loss=True)


class Says:
    """A model that says what it is given, letter by letter, with 0.6 where the other is a."""

    def predict(self, spectrograms, *args, **options):
        likely = np.eye(transcribing.BLANK + 1)[spectrograms[..., 0].astype(int)]
        return np.log(0.6 * likely + 0.4 * np.eye(transcribing.BLANK + 1)[A] + 1e-9)


A, B = transcribing.encode("ab")


def batch_of(said, spoken):
    packed = [[len(said), len(text), *transcribing.encode(text)] for text in spoken]
    x = np.array([said] * len(spoken), "float32")[..., None]
    return tf.data.Dataset.from_tensors((x, np.array(packed, "int32")))


def test_errors_are_measured_on_each_test(parse):
    parse("--data=x", "--test=eval92,dev93")
    said = [A, B, transcribing.BLANK]
    tests = {"eval92": batch_of(said, ["ab"]).repeat(3), "dev93": batch_of(said, ["ab", "cb"])}
    assert speech.evaluate(Says(), tests) == {
        "WER of eval92": 0, "CER of eval92": 0, "WER of dev93": 50, "CER of dev93": 25
    }  # fmt: skip


@pytest.mark.parametrize(("decoder", "rate"), [("greedy", 100), ("beam", 0)])
def test_the_decoder_is_as_configured(parse, decoder, rate):
    parse("--data=x", f"--decoder={decoder}")
    # Twice blank is the likeliest alignment, yet a alone has three that are 0.64 together.
    tests = {"test": batch_of([transcribing.BLANK] * 2, ["a"])}
    assert speech.evaluate(Says(), tests) == {"WER": rate, "CER": rate}


# Of the DSD paper's tables, in the order of the layers: parameters that train. Its 95,054 for Deep
# Speech 2's last layer are not those of 29 letters.
LAYERS = {
    "deepspeech": [1_814_528, 1_049_600, 1_049_600, 3_146_752, 1_049_600, 29_725],
    "deepspeech2": [19_616, 239_168, 8_507_840, *[9_296_320] * 6, 3_101_120, 1760 * 29 + 29],
}
FULL = {"deepspeech": (8_139_805, 6 * 1024**2), "deepspeech2": (67_696_733, 67_358_720)}


@pytest.fixture
def undrawn(monkeypatch):
    """Leaves weights zero: to draw those of the full networks takes seconds."""
    zeros = keras.initializers.Zeros()
    for drawn in ("VarianceScaling", "Orthogonal"):
        kind = getattr(keras.initializers, drawn)
        monkeypatch.setattr(
            kind, "__call__", lambda self, shape, dtype=None, **_: zeros(shape, dtype=dtype)
        )


def full(name):
    """The network of full size, and the trainable parameters of each of the paper's layers."""
    fresh()
    make, options = speech.MODELS[name, "full"]
    model = make(num_bins=speech.speech_data.NUM_BINS, stride=2, **options)
    sizes = {}
    for layer in model.layers:
        if count := sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights):
            place = re.sub(r"^norm_of_|_inputs$", "", layer.name)
            place = re.sub(r"^norm_(\d)$", r"recurrent_\1", place)
            place = place.replace("recurrent_8", "hidden")  # after the fully connected layer
            sizes[place] = sizes.get(place, 0) + count
    return model, sizes


@pytest.mark.parametrize(
    "name", ["deepspeech", pytest.param("deepspeech2", marks=pytest.mark.slow)]
)
def test_layers_are_those_of_the_tables_of_the_paper(name, undrawn):
    model, sizes = full(name)
    assert [*sizes.values()] == LAYERS[name]
    model = dsd.apply(model, sparsity=dict.fromkeys(speech.PRUNE, 0.5))
    assert (sum(sizes.values()), dsd.report(model).size) == FULL[name]


PHASES = [f"--{part}=1" for part in ("dense", "sparse", "redense", "sparse2", "redense2")]
PHASES += ["--data=fake", "--batch_size=2", "--steps_per_epoch=1"]


def check_phases(said, folder):
    assert all(line.startswith("FAKE DATA: ") for line in said.splitlines())
    shares = {part: found["sparsity"] for part, found in result_of(folder)["parts"].items()}
    assert (shares["sparse"], shares["sparse 2"]) == (0.5, 0.25)
    assert max(shares["dense"], shares["re-dense"], shares["re-dense 2"]) < 0.2


def test_the_page_has_these_counts():
    page = (EXAMPLES.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name, counts in LAYERS.items():
        assert sum(counts) == FULL[name][0]
        assert all(f"{count:,}" in page for count in (*counts, sum(counts)))


@pytest.mark.slow
@pytest.mark.only_on("tf_keras")
@pytest.mark.parametrize(
    "name", ["deepspeech", pytest.param("deepspeech2", marks=pytest.mark.exhaustive)]
)
def test_full_size(name, tmp_path):
    check_phases(run(SPEECH, tmp_path, f"--model={name}", *PHASES), tmp_path)
    result = result_of(tmp_path)
    assert (result["parameters"], result["to_prune"]) == FULL[name]


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
def test_all_layers_of_deep_speech_2_on_pytorch(tmp_path):
    """TensorFlow takes minutes to trace them."""
    pytest.importorskip("torch")
    flags = ["--model=deepspeech2", "--width=48", *PHASES]
    check_phases(run(SPEECH, tmp_path, *flags, KERAS_BACKEND="torch"), tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Commands that espeak-ng spoke."""
    if not shutil.which("espeak-ng"):
        pytest.skip("needs espeak-ng: make recipes")
    folder = tmp_path_factory.mktemp("spoken")
    subprocess.run([sys.executable, EXAMPLES / "small_data" / "speech.py", folder], check=True)
    return folder


@pytest.mark.slow
@pytest.mark.exhaustive  # that a recipe learns, test_imagenet.py shows in half the time
@pytest.mark.only_on("tensorflow")
def test_small_training(data, tmp_path):
    flags = [f"--flagfile={EXAMPLES / 'small_data' / 'speech.flags'}", f"--data={data}"]
    run(SPEECH, tmp_path, *flags)
    parts = result_of(tmp_path)["parts"]
    assert parts["re-dense 2"]["metrics"]["WER"] < 20
    assert parts["re-dense 2"]["metrics"]["CER"] < 10
    shares = [round(part["sparsity"], 4) for part in parts.values()]
    assert (shares[1], shares[3]) == (0.5, 0.25)
    model = keras.models.load_model(tmp_path / "seed-0" / "dsd" / "model.keras")
    assert model.output_shape[-1] == speech_models.NUM_CLASSES
    assert table_of(tmp_path)["DSD"]["WER"]["0"] == parts["re-dense 2"]["metrics"]["WER"]


SHORT = ["--dense=1", "--sparse=1", "--redense=1", "--sparse2=0", "--redense2=0"]
SHORT += ["--data=fake", "--size=small", "--batch_size=2", "--steps_per_epoch=2"]
TWO_DEVICES = """
import speech
import tensorflow as tf
from recipes import running
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
running.main(speech.main)
"""


@pytest.mark.slow
@pytest.mark.exhaustive  # as test_imagenet.py has two devices, and half precision
@pytest.mark.only_on("tensorflow")
def test_two_devices_and_mixed_precision(tmp_path):
    program = tmp_path / "two_devices.py"
    program.write_text(TWO_DEVICES)
    flags = ["--model=deepspeech", *SHORT, "--mixed_precision=mixed_bfloat16"]
    said = run(program, tmp_path, *flags, KERAS_BACKEND="tensorflow")
    assert "Training on 2 devices." in said
    assert result_of(tmp_path)["parts"]["sparse"]["sparsity"] == 0.5


@pytest.mark.slow
@pytest.mark.only_on("tensorflow")
def test_jax_trains(tmp_path):
    pytest.importorskip("jax")
    run(SPEECH, tmp_path, "--model=deepspeech", *SHORT, KERAS_BACKEND="jax")
    assert result_of(tmp_path)["parts"]["sparse"]["sparsity"] == 0.5
