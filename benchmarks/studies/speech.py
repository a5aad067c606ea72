"""The network and data of the task with spoken digits."""

import functools
import io
import pathlib
import tarfile

import keras
import numpy as np
import scipy.io.wavfile
import scipy.signal
from building import compiled, dense_with, recurrent_with
from protocol import Setting
from trials import Part, Split, scanned

layers = keras.layers
RATE = 8000
WINDOW, STEP = 256, 160
FRAMES = 32
SAMPLES = WINDOW + (FRAMES - 1) * STEP
BANDS = 20
BATCH = 32
# Of the noise, where a recording's root mean square is 1: 0 to 20 dB below it.
QUIETEST, LOUDEST = 0.1, 1.0


def spoken_gru(setting: Setting) -> keras.Model:
    """Returns a GRU over the frames of a spectrogram, whose outputs are averaged over time."""
    recurrent = recurrent_with(setting, layers.GRU)(64, return_sequences=True)
    model = scanned(keras.Sequential, BATCH)([
        layers.Input((FRAMES, BANDS)), recurrent, layers.GlobalAveragePooling1D(),
        dense_with(setting)(10, name="last"),
    ])  # fmt: skip
    return compiled(model, keras.optimizers.Adam(setting.lr))


@functools.cache
def _recordings(path: pathlib.Path) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Returns the recordings, scaled to a root mean square of 1, their digits and speakers."""
    with tarfile.open(path) as found:
        files = {each.name: found.extractfile(each).read() for each in found if each.isfile()}
    names = sorted(name for name in files if name.endswith(".wav"))
    waves = [_wave(files[name]) for name in names]
    digits, speakers, _ = zip(*(pathlib.PurePath(n).stem.split("_") for n in names), strict=True)
    return waves, np.array(digits, "int32"), np.array(speakers)


def _wave(file: bytes) -> np.ndarray:
    wave = scipy.io.wavfile.read(io.BytesIO(file))[1].astype("float32")
    return wave / np.sqrt(np.mean(np.square(wave)))


def spoken_digits(path: pathlib.Path, seed: int) -> Split:
    """Returns the digits of all speakers but two: one for validation, and one for testing.

    Speakers are tested in turn, by the number of the seed. Noise and shifts are drawn again for
    each epoch, for validation and test data once.
    """
    waves, digits, speakers = _recordings(path)
    names = sorted(set(speakers))
    tested = names.pop(seed % len(names))
    validating = names.pop(np.random.default_rng([seed, 0]).integers(len(names)))
    train = np.flatnonzero(np.isin(speakers, names))

    def epoch(number: int) -> Part:
        drawn = np.random.default_rng([seed, 1, number])
        return heard(drawn.permutation(train)[: len(train) // BATCH * BATCH], drawn)

    def heard(order: np.ndarray, drawn: np.random.Generator) -> Part:
        return log_mel([waves[index] for index in order], drawn), digits[order]

    parts = [
        heard(np.flatnonzero(speakers == name), np.random.default_rng([seed, stream]))
        for stream, name in ((2, validating), (3, tested))
    ]
    first = epoch(0)[0]
    scale = first.mean(axis=(0, 1)), first.std(axis=(0, 1))
    return Split(
        lambda number: _standardized(epoch(number), *scale),
        *(_standardized(part, *scale) for part in parts),
    )


def _standardized(part: Part, mean: np.ndarray, deviation: np.ndarray) -> Part:
    """Returns examples of which each band has about the mean 0 and the deviation 1."""
    return (part[0] - mean) / deviation, part[1]


def log_mel(waves: list[np.ndarray], drawn: np.random.Generator) -> np.ndarray:
    """Returns log mel spectrograms of recordings in noise, (recordings, frames, bands).

    A recording starts at a random time that keeps all of it; of a longer one a random part is kept.
    """
    loudness = np.exp(drawn.uniform(np.log(QUIETEST), np.log(LOUDEST), (len(waves), 1)))
    heard = drawn.standard_normal((len(waves), SAMPLES), "float32") * loudness.astype("float32")
    for row, wave, place in zip(heard, waves, drawn.random(len(waves)), strict=True):
        start = round(place * (SAMPLES - len(wave)))
        row[max(start, 0) : start + len(wave)] += wave[max(-start, 0) :][:SAMPLES]
    _, _, spectra = scipy.signal.stft(
        heard, RATE, nperseg=WINDOW, noverlap=WINDOW - STEP, boundary=None, padded=False
    )
    power = np.square(np.abs(spectra)).swapaxes(1, 2)
    return np.log(power @ _mel_filters() + 1e-10).astype("float32")


@functools.cache
def _mel_filters() -> np.ndarray:
    """Returns overlapping triangles, evenly spaced on the mel scale, as (frequencies, bands)."""
    frequencies = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    mels = 2595 * np.log10(1 + frequencies / 700)
    middles = np.linspace(0, mels[-1], BANDS + 2)[1:-1]
    return np.maximum(0, 1 - np.abs(mels[:, None] - middles) / middles[0]).astype("float32")
