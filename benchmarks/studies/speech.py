"""Study: commands that espeak-ng speaks, in noise; a small DeepSpeech, word error rate.

The program has espeak-ng speak them the first time (a minute; apt-get install espeak-ng), and keeps
them in .build/speech. pip install .[recipes] brings what else it needs.

    python benchmarks/studies/speech.py --seeds=5
"""

import functools
import os
import pathlib
import sys

# TensorFlow is imported to read the audio, so Keras trains on it too.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import tensorflow as tf
from study import Task, keras, main

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "examples")]

from programs import EXAMPLES, run  # noqa: E402

from recipes import speech_batches, speech_data, speech_models, transcribing  # noqa: E402

SIZES = {"train": 2000, "validation": 300, "test": 500}
NUM_BANDS = 24
STRIDE = 3
# Noise as loud as the voice: without it, all words are right soon.
NOISE_TO_VOICE = 1.0


def build():
    model = speech_models.deepspeech(NUM_BANDS, width=96, stride=STRIDE, context=5)
    model.compile(keras.optimizers.Adam(1e-3, global_clipnorm=1.0), transcribing.ctc_loss)
    return model


@functools.cache
def read():
    """Returns spectrograms, padded to the longest of all, and what CTC's loss is to know."""
    folder = ROOT / ".build" / "speech"
    if not folder.exists():
        speak(folder)
    spoken = {name: speech_data.read_manifest(folder / f"{name}.jsonl") for name in SIZES}
    every = [utterance for part in spoken.values() for utterance in part]
    num_frames = max(utterance.num_frames for utterance in every)
    num_letters = max(len(utterance.letters) for utterance in every)
    drawn = np.random.default_rng(0)
    return {
        name: arrays(part, num_frames, num_letters, drawn) for name, part in spoken.items()
    }  # fmt: skip


def speak(folder):
    """Has espeak-ng speak; the folder is there only when all is spoken."""
    print(f"{folder}: espeak-ng speaks {sum(SIZES.values()):,} commands.", flush=True)
    unfinished = folder.with_name("speech-being-written")
    sizes = [f"--{name}={size}" for name, size in SIZES.items()]
    run(EXAMPLES / "small_data" / "speech.py", unfinished, *sizes)
    unfinished.rename(folder)


def arrays(utterances, num_frames, num_letters, drawn):
    spectrogram = tf.function(
        functools.partial(speech_data.spectrogram, num_bands=NUM_BANDS),
        input_signature=[tf.TensorSpec([None], tf.float32)],
    )
    x = np.zeros((len(utterances), num_frames, NUM_BANDS), "float32")
    y = np.zeros((len(utterances), 2 + num_letters), "int32")
    for utterance, one_x, one_y in zip(utterances, x, y, strict=True):
        voice = speech_data.read_audio(utterance.audio)
        loudness = NOISE_TO_VOICE * np.sqrt(np.mean(voice**2))
        noisy = voice + loudness * drawn.normal(size=len(voice))
        one_x[: utterance.num_frames] = spectrogram(noisy.astype("float32"))
        letters = utterance.letters
        one_y[:2] = speech_batches.num_out(utterance.num_frames, STRIDE), len(letters)
        one_y[2 : 2 + len(letters)] = letters
    return x, y


def word_errors(model, part):
    """Returns errors per word spoken, in percent; the likeliest letter of each frame counts."""
    x, y = part
    num_frames, spoken = transcribing.unpack(y)
    heard = transcribing.transcribe(model.predict(x, batch_size=100, verbose=0), num_frames)
    return transcribing.error_rates(spoken, heard)["WER"]


TASKS = [Task(
    "speech",
    f"commands of six words that espeak-ng speaks in six voices, in white noise as loud as they; "
    f"{SIZES['train']:,} to train on, {SIZES['validation']} to choose by, {SIZES['test']} to "
    f"report on, no sentence twice; a DeepSpeech of 96 units, 93,245 weights, CTC; Adam at 0.001",
    build, read, word_errors, "word error rate, in percent", (8, 4, 4), batch_size=32,
    sparsities=(0.3, 0.5, 0.7),
)]  # fmt: skip

if __name__ == "__main__":
    main(TASKS)
