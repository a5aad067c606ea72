"""Data of the speech recipe: manifests, files of audio, spectrograms, batches."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

soundfile = pytest.importorskip("soundfile", reason="needs soundfile: make recipes")
pytest.importorskip("jiwer", reason="needs jiwer: make recipes")

from recipes import speech_batches, speech_data, transcribing  # noqa: E402
from recipes.problems import MissingData  # noqa: E402

SPEAK = pathlib.Path(speech_data.__file__).parents[1] / "small_data" / "speech.py"
RANDOM = np.random.default_rng(0)


def write(path, num_samples=2000, rate=16000, channels=1, **options):
    samples = RANDOM.integers(-20000, 20000, (num_samples, channels)).astype("int16")
    soundfile.write(path, samples, rate, **options)
    return samples[:, 0]


def manifest(folder, *entries):
    path = folder / "train.jsonl"
    path.write_text("".join(e if isinstance(e, str) else json.dumps(e) + "\n" for e in entries))
    return path


def test_spectrogram():
    samples = RANDOM.normal(size=1000).astype("float32") / 10
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 320)
    frames = [samples[start : start + 320] * window for start in range(0, 1000 - 319, 160)]
    logs = np.log(np.abs(np.fft.rfft(frames)) + 1e-4)
    found = speech_data.spectrogram(samples).numpy()
    assert found.shape == (5, 161)
    np.testing.assert_allclose(found, (logs - logs.mean()) / logs.std(), atol=2e-3)


def test_bands():
    tone = np.sin(2 * np.pi * 1000 * np.arange(3200) / 16000).astype("float32")
    found = speech_data.spectrogram(tone, num_bands=24).numpy()
    assert found.shape == (19, 24)
    assert found.mean() == pytest.approx(0, abs=1e-5)
    # 1000 Hz is 1000 mel; 24 bands share 60 to 7600 Hz, which are 93 to 2801 mel.
    assert set(found.argmax(axis=1)) == {round((1000 - 93) / (2801 - 93) * 25) - 1}


def test_silence_yields_finite_features():
    assert np.all(abs(speech_data.spectrogram(np.zeros(640, "float32"))) < 0.05)


def test_formats_read_alike(tmp_path):
    names = {"a.wav": "WAV", "a.flac": "FLAC", "a.wv1": "NIST"}
    samples = write(tmp_path / "a.wav")
    for name, kind in names.items():
        soundfile.write(tmp_path / name, samples, 16000, format=kind, subtype="PCM_16")
    assert (tmp_path / "a.wv1").read_bytes().startswith(b"NIST_1A")
    for name in names:
        found = speech_data.read_audio(str(tmp_path / name))
        assert found.dtype == np.float32
        assert np.array_equal(found, samples / np.float32(32768)), name


def test_resampled(tmp_path):
    time = np.arange(8000) / 8000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * time), 8000)
    found = speech_data.read_audio(str(tmp_path / "a.wav"))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=1e-3)


@pytest.mark.parametrize(
    ("num_samples", "rate"), [(320, 16000), (479, 16000), (480, 16000), (3001, 22050), (999, 8000)]
)
def test_frames_are_foretold(tmp_path, num_samples, rate):
    write(tmp_path / "a.wav", num_samples, rate)
    path = manifest(tmp_path, {"audio_filepath": str(tmp_path / "a.wav"), "text": "A b"}, "\n")
    (utterance,) = speech_data.read_manifest(path)
    samples = speech_data.read_audio(utterance.audio)
    assert utterance.num_frames == len(speech_data.spectrogram(samples))
    assert transcribing.decode(utterance.letters) == "a b"


SHORTEN = b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n".ljust(1100)
ENTRY = {"audio_filepath": "a.wav", "duration": 1.0, "text": "a"}
WRONG = {
    "no manifest": (None, {}, r"Expected a manifest train.jsonl.*nothing at.*LDC93S6A"),
    "empty": ("\n", {}, r"Expected a line at least. Received: .*train.jsonl, empty"),
    "no JSON": ("a.wav a", {}, r"train.jsonl, line 1: Expecting value.*The layout is"),
    "no object": ("[1]", {}, r"train.jsonl, line 1: .*The layout is"),
    "no text": ({"audio_filepath": "a.wav"}, {}, r"line 1: no 'text'.*The layout is"),
    "no audio": (ENTRY | {"audio_filepath": "b.wav"}, {}, r"an audio file. Received: nothing at"),
    "offset": (ENTRY | {"offset": 3.5}, {}, r"whole files. Received: offset=3.5"),
    "no letters": (ENTRY | {"text": " "}, {}, r"line 1: Expected text. Received: none. Take the"),
    "digits": (ENTRY | {"text": "2"}, {}, r"Received: '2' in '2'. Write numbers as words"),
    "stereo": (ENTRY, {"channels": 2}, r"Expected one channel. Received: .*a.wav with 2.*ffmpeg"),
    "short": (ENTRY, {"num_samples": 319}, r"Expected 20 ms.*with 319 samples at 16000 Hz"),
    "no sound": (ENTRY, {"data": b"RIFF"}, r"WAV, FLAC or NIST SPHERE.*libsndfile can not read"),
    "shorten": (ENTRY, {"data": SHORTEN}, r"compressed by shorten.*sph2pipe -f wav IN.wv1 OUT.wav"),
}


@pytest.mark.parametrize(("entry", "audio", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_data(tmp_path, entry, audio, message):
    if "data" in audio:
        (tmp_path / "a.wav").write_bytes(audio["data"])
    else:
        write(tmp_path / "a.wav", **audio)
    path = tmp_path / "train.jsonl" if entry is None else manifest(tmp_path, entry)
    with pytest.raises(MissingData, match=f"(?s){message}"):
        speech_data.read_manifest(path)


def split(lengths, batch_size=2, stride=2):
    """A split whose utterances tell by their first letter which they are."""

    def read(rows):
        return rows.map(lambda i: (tf.ones([tf.gather(lengths, i), 3]), tf.stack([i, 1, 1])))

    rows = tf.data.Dataset.range(len(lengths), output_type=tf.int32)
    return speech_batches.Split(rows, read, lengths, 3, batch_size, stride)


def test_each_utterance_is_in_one_batch_with_its_lengths():
    lengths = [7, 4, 9, 5, 8]
    batches = list(split(lengths).in_order().as_numpy_iterator())
    assert len(batches) == int(split(lengths).in_order().cardinality()) == 3
    rows = [(x, y) for spectrograms, packed in batches for x, y in zip(spectrograms, packed)]  # noqa: B905
    assert [y.tolist() for _, y in rows] == [
        [-(-length // 2), 3, i, 1, 1] for i, length in enumerate(lengths)
    ]
    for (x, _), length in zip(rows, lengths, strict=True):
        assert x.shape == (9, 3)  # the longest of the bucket, whatever else is in the batch
        assert np.all(x[:length] == 1)
        assert np.all(x[length:] == 0)


def test_buckets():
    lengths = list(range(10, 90))
    assert speech_batches.ends_of_buckets(lengths, batch_size=5) == [50, 89]
    assert speech_batches.ends_of_buckets(lengths, batch_size=1) == [20, 30, 40, 50, 60, 70, 80, 89]
    batches = list(split(lengths, 5).shuffled(tf.constant(1, tf.int64)).as_numpy_iterator())
    assert len(batches) == int(split(lengths, 5).shuffled(1).cardinality())
    for spectrograms, packed in batches:
        shape = 50 if max(packed[:, 0]) <= 25 else 89
        assert spectrograms.shape == (5, shape, 3)


def test_order_follows_from_the_seed():
    tf.random.set_seed(1)  # beside 0, tf.data takes no tensor for a seed

    def order(seed):
        seeds = tf.data.Dataset.from_tensors(tf.constant(seed, tf.int64))
        batches = seeds.flat_map(split(list(range(10, 21))).shuffled)
        assert batches.element_spec[0].shape[0] == 2
        return [packed[:, 2].tolist() for _, packed in batches.as_numpy_iterator()]

    assert order(1) == order(1) != order(2)
    assert len(order(1)) == 5


def test_alignable():
    letters = transcribing.encode("aab")
    utterances = [speech_data.Utterance("", letters, frames) for frames in (6, 7)]
    assert speech_batches.alignable(utterances, stride=2) == utterances[1:]


def test_files_become_examples(tmp_path):
    write(tmp_path / "a.wav")
    write(tmp_path / "b.flac", 3000)
    lines = [{"audio_filepath": name, "text": name[0]} for name in ("a.wav", "b.flac")]
    utterances = speech_data.read_manifest(manifest(tmp_path, *lines))
    examples = speech_batches.read(speech_batches.rows_of(utterances), num_bands=0)
    for (found, letters), utterance in zip(examples, utterances, strict=True):
        samples = speech_data.read_audio(utterance.audio)
        assert np.array_equal(found, speech_data.spectrogram(samples))
        assert letters.numpy().tolist() == utterance.letters


def speak(folder, **options):
    flags = ["--train=20", "--validation=6", "--test=6", "--new_voice=2"]
    return subprocess.run(
        [sys.executable, SPEAK, folder, *flags], capture_output=True, text=True, **options
    )


def test_without_espeak(tmp_path):
    done = speak(tmp_path, env={**os.environ, "PATH": ""})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("apt-get install espeak-ng")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs espeak-ng: make recipes")
def test_small_data(tmp_path):
    done = speak(tmp_path)
    assert done.returncode == 0, done.stderr
    texts = {}
    for name, number in {"train": 20, "validation": 6, "test": 6, "new_voice": 2}.items():
        utterances = speech_data.read_manifest(tmp_path / f"{name}.jsonl")
        texts[name] = {transcribing.decode(utterance.letters) for utterance in utterances}
        assert len(utterances) == len(texts[name]) == number
        assert speech_batches.alignable(utterances, stride=3) == utterances
        assert all(len(text.split()) == 6 for text in texts[name])
    assert len(set.union(*texts.values())) == 34
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".jsonl", ".wav", ".flac", ".wv1"}
