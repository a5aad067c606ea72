"""Speech data of manifests, and the inputs of a recogniser."""

import dataclasses
import json
import pathlib

import numpy as np
import numpy.typing as npt
import soundfile
import tensorflow as tf
from scipy.signal import resample_poly

from recipes import transcribing
from recipes.problems import MissingData

RATE = 16000  # samples a second
WINDOW, STEP = 320, 160  # samples: 20 ms, every 10 ms
NUM_BINS = WINDOW // 2 + 1
# Of magnitudes: about what the rounding to 16 bits leaves of silence.
FLOOR = 1e-4
LAYOUT = """\
    DIR/train.jsonl validation.jsonl test.jsonl   a line for each utterance:
        {"audio_filepath": "wav/0001.wav", "duration": 2.5, "text": "what is said"}
    paths from the manifest's folder on, or absolute; WAV, FLAC or NIST SPHERE, one channel"""
SOURCES = """\
    WSJ: catalog.ldc.upenn.edu, LDC93S6A and LDC94S13A; docs/recipes.md says how to convert it
    LibriSpeech: openslr.org/12
    a small set for a trial: python examples/small_data/speech.py DIR"""


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One line of a manifest.

    Args:
        audio: The file.
        letters: The classes of the text's letters.
        num_frames: Of its spectrogram.
    """

    audio: str
    letters: list[int]
    num_frames: int


def read_manifest(path: pathlib.Path) -> list[Utterance]:
    """Returns the utterances of a manifest; reads the header of every file.

    Raises:
        MissingData: The manifest or a file is not there or is not what it should be.
    """
    if not path.is_file():
        raise MissingData(
            f"Expected a manifest {path.name}. Received: nothing at {path}. The layout is\n"
            f"{LAYOUT}\nwhere to get it:\n{SOURCES}"
        )
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    utterances = [_utterance(path, number, line) for number, line in enumerate(lines, 1)]
    if not utterances:
        raise MissingData(f"Expected a line at least. Received: {path}, empty.\n{LAYOUT}")
    return utterances


def _utterance(manifest: pathlib.Path, number: int, line: str) -> Utterance:
    try:
        entry = json.loads(line)
        if offset := entry.get("offset"):
            raise ValueError(f"Expected whole files. Received: {offset=}. Cut the file.")
        audio = manifest.parent / entry["audio_filepath"]
        letters = transcribing.encode(entry["text"])
        if not letters:
            raise ValueError("Expected text. Received: none. Take the line out.")
        return Utterance(str(audio), letters, _num_frames(audio))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise MissingData(f"{manifest}, line {number}: {wrong}\nThe layout is\n{LAYOUT}") from error


def _num_frames(path: pathlib.Path) -> int:
    """Returns the number of frames of the spectrogram of a file, without reading its samples."""
    if not path.is_file():
        raise MissingData(f"Expected an audio file. Received: nothing at {path}.")
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise MissingData(_why_not(path)) from error
    if info.channels != 1:
        raise MissingData(
            f"Expected one channel. Received: {path} with {info.channels}. Take one of them, such "
            f"as by `ffmpeg -i IN -ac 1 OUT.wav`."
        )
    num_samples = -(-info.frames * RATE // info.samplerate)
    if num_samples < WINDOW:
        raise MissingData(
            f"Expected 20 ms of audio at least. Received: {path} with {info.frames} samples at "
            f"{info.samplerate} Hz. Take it out of the manifest."
        )
    return 1 + (num_samples - WINDOW) // STEP


def _why_not(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        header = file.read(1024)
    if header.startswith(b"NIST_1A") and b"shorten" in header:
        return (
            f"Expected plain samples. Received: {path}, NIST SPHERE that is compressed by shorten, "
            f"as LDC's disks of WSJ are. Convert it: `sph2pipe -f wav IN.wv1 OUT.wav` "
            f"(openslr.org/3 has sph2pipe)."
        )
    return f"Expected WAV, FLAC or NIST SPHERE. Received: {path}, which libsndfile can not read."


def read_audio(path: str) -> npt.NDArray[np.float32]:
    """Returns the samples of a file, in [-1, 1), at 16 kHz."""
    samples, rate = soundfile.read(path, dtype="float32")
    if rate != RATE:
        samples = resample_poly(samples, RATE, rate).astype(np.float32)
    return samples


def spectrogram(samples: tf.Tensor, num_bands: int = 0) -> tf.Tensor:
    """Returns logarithms of magnitudes, over a whole utterance of mean 0 and deviation 1.

    Args:
        samples: At 16 kHz, shape (samples,).
        num_bands: Bands of the mel scale to add up in. Defaults to 0: none, all 161 frequencies.
    """
    magnitudes = tf.abs(tf.signal.stft(samples, WINDOW, STEP, WINDOW))
    if num_bands:
        magnitudes @= tf.signal.linear_to_mel_weight_matrix(num_bands, NUM_BINS, RATE, 60.0, 7600.0)
    logs = tf.math.log(magnitudes + FLOOR)
    return (logs - tf.reduce_mean(logs)) / (tf.math.reduce_std(logs) + FLOOR)
