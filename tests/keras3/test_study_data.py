"""Images and speech of benchmarks/studies: what seeds and epochs draw, and who is held out."""

import importlib
import io
import tarfile

import numpy as np
import pytest
import scipy.io.wavfile

from tests.helpers import benchmarks

SPEAKERS = [f"speaker{number}" for number in range(6)]

pytestmark = pytest.mark.only_on("jax")


@pytest.fixture(scope="module")
def images():
    with benchmarks.imported(benchmarks.STUDIES, "images") as found:
        yield found["images"]


@pytest.fixture(scope="module")
def speech(images):
    return importlib.import_module("speech")


@pytest.fixture(scope="module")
def dots(tmp_path_factory):
    """Returns a file of images with one pixel to the left of the middle, as bright as its label."""
    labels = np.arange(1, 41, dtype="uint8")
    x = np.zeros((40, 9, 9, 3), "uint8")
    x[:, 4, 3] = labels[:, None]
    path = tmp_path_factory.mktemp("data") / "dots.npz"
    np.savez(path, x_train=x, y_train=labels[:, None], x_test=x[:5], y_test=labels[:5, None])
    return path


def test_each_epoch_shifts_and_mirrors_images_at_random_but_alike_in_each_run(images, dots):
    split = images.augmented(dots, 3, (26, 8), 8, shift=2, mirror=True)
    x, y = split.epoch(0)
    assert x.shape == (24, 9, 9, 3) and x.dtype == np.uint8, "full batches alone"
    held_out = set(split.validation[1].tolist())
    assert len(held_out) == 8 and not held_out & set(y.tolist())
    np.testing.assert_array_equal(x.max(axis=(1, 2, 3)), y)
    rows, columns = np.nonzero(x[..., 0])[1:]
    assert len(rows) == 24 and set(rows) == {2, 3, 4, 5, 6}
    assert set(columns) == {1, 2, 3, 4, 5, 6, 7}, "shifted by up to 2 from 3, and from 5"
    again, other = (images.augmented(dots, seed, (26, 8), 8, 2, True) for seed in (3, 4))
    np.testing.assert_array_equal(again.epoch(0)[0], x)
    assert np.any(split.epoch(1)[0] != x)
    assert set(other.validation[1].tolist()) != held_out, "a seed draws its own images"
    still = images.augmented(dots, 3, (26, 8), 8, shift=0)
    assert np.all(still.epoch(0)[0][:, 4, 3, 0] == still.epoch(0)[1])


def test_jpegs_are_decoded(images, tmp_path):
    import PIL.Image

    pictures = np.array([[10, 200, 90], [250, 0, 30]], "uint8")[:, None, None].repeat(8, 1)
    pictures = pictures.repeat(8, 2)
    files = []
    for picture in pictures:
        files.append(io.BytesIO())
        PIL.Image.fromarray(picture).save(files[-1], "JPEG")
    jpegs = np.frombuffer(b"".join(file.getvalue() for file in files), "uint8")
    ends, labels = np.cumsum([len(file.getvalue()) for file in files]), np.array([7, 8], "uint8")
    parts = {"jpeg": jpegs, "end": ends, "y": labels}
    np.savez(tmp_path / "jpegs.npz", **{
        f"{name}_{of}": part for name, part in parts.items() for of in ("train", "test")
    })  # fmt: skip
    x, y, x_test, _ = images._images(tmp_path / "jpegs.npz")
    assert np.abs(x.astype(int) - pictures).max() <= 3 and np.array_equal(x, x_test)
    assert y.tolist() == [7, 8] and y.dtype == np.int32


@pytest.mark.parametrize(("size", "stride", "length"), [(3, 1, 6), (3, 2, 6), (3, 2, 7)])
def test_convolutions_are_the_same_in_training(images, size, stride, length):
    import jax

    inputs = np.random.default_rng(0).normal(size=(2, length, length, 3)).astype("float32")
    layer = images.Convolution(4, size, strides=stride, padding="same", activation="relu")
    layer.build(inputs.shape)
    found = jax.jit(lambda x: [layer(x, training=training) for training in (True, False)])(inputs)
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Returns a file of recordings; each speaker speaks in one tone, some of them for long."""
    path = tmp_path_factory.mktemp("data") / "tones.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for number, speaker in enumerate(SPEAKERS):
            for digit in range(10):
                times = np.arange(1500 + 600 * digit) / 8000
                wave = 9000 * np.sin(2 * np.pi * 400 * (number + 1) * times)
                file = io.BytesIO()
                scipy.io.wavfile.write(file, 8000, wave.astype("int16"))
                entry = tarfile.TarInfo(f"recordings/{digit}_{speaker}_0.wav")
                entry.size = len(file.getvalue())
                archive.addfile(entry, io.BytesIO(file.getvalue()))
    return path


def heard(speech, spectrograms):
    """Returns the numbers of the speakers of spectrograms, by their loudest band."""
    tops = [np.argmin(np.abs(speech._mel_filters().argmax(0) * 8000 / 256 - 400 * (number + 1)))
            for number in range(6)]  # fmt: skip
    loudest = np.argmax(np.exp(spectrograms).mean(axis=1), axis=-1)
    return {int(np.argmin(np.abs(np.array(tops) - band))) for band in loudest}


def test_whole_speakers_are_held_out_and_each_is_tested_in_turn(speech, tones, monkeypatch):
    monkeypatch.setattr(speech, "_standardized", lambda part, *_: part)
    tested = []
    for seed in range(1000, 1006):
        split = speech.spoken_digits(tones, seed)
        x, y = split.epoch(0)
        assert x.shape == (32, speech.FRAMES, speech.BANDS) and x.dtype == np.float32
        assert set(y.tolist()) <= set(range(10))
        parts = [heard(speech, part[0]) for part in ((x, y), split.validation, split.test)]
        assert list(map(len, parts)) == [4, 1, 1] and set.union(*parts) == set(range(6)), seed
        tested += parts[2]
    assert sorted(tested) == list(range(6))


def test_each_epoch_draws_noise_and_shifts_but_alike_in_each_run(speech, tones):
    split, again = (speech.spoken_digits(tones, 7) for _ in range(2))
    for one, other in ((split.epoch(2), again.epoch(2)), (split.test, again.test)):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert np.any(split.epoch(3)[0] != split.epoch(2)[0])
    assert split.epoch(0)[0].mean(axis=(0, 1)) == pytest.approx(0, abs=1e-4)
    wave = np.ones(400, "float32")
    loud = speech.log_mel([wave] * 40, np.random.default_rng(0)).max(axis=-1)
    assert len(set(loud.argmax(axis=1).tolist())) > 10, "recordings start at any time"
