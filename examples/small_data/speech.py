"""Writes small real speech: commands of six words, spoken by espeak-ng in several voices.

    python examples/small_data/speech.py DIR

The sentences are those of the GRID corpus: "bin blue at f two now". None of validation.jsonl or
test.jsonl is in train.jsonl; new_voice.jsonl has a voice that train.jsonl has not.
"""

import concurrent.futures
import dataclasses
import json
import math
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import soundfile
from absl import app, flags
from scipy.signal import resample_poly

FLAGS = flags.FLAGS
flags.DEFINE_integer("train", 800, "Utterances in train.jsonl.", 1)
flags.DEFINE_integer("validation", 100, "Utterances in validation.jsonl.", 1)
flags.DEFINE_integer("test", 200, "Utterances in test.jsonl.", 1)
flags.DEFINE_integer("new_voice", 50, "Utterances in new_voice.jsonl.", 1)
flags.DEFINE_integer("seed", 0, "Seed of sentences and voices.")

RATE = 16000
WORDS = (
    ["bin", "lay", "place", "set"],
    ["blue", "green", "red", "white"],
    ["at", "by", "in", "with"],
    list("abcdefghijklmnopqrstuvxyz"),
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    ["again", "now", "please", "soon"],
)
VOICES = ["en-us", "en-gb", "en-us+m3", "en-us+f2", "en-gb+m7", "en-gb+f4"]
NEW_VOICE = "en-gb-scotland+f3"
# WAV for most, and a few of what else the recipe reads.
FORMATS = [("wav", "WAV")] * 8 + [("flac", "FLAC"), ("wv1", "NIST")]


@dataclasses.dataclass(frozen=True)
class Line:
    """One utterance to speak."""

    name: str
    text: str
    voice: str
    speed: int
    pitch: int


def lines_of(
    split: str, texts: list[str], voices: list[str], random: np.random.Generator
) -> list[Line]:
    """Returns texts with a voice, words a minute (espeak-ng's 80 to 450) and a pitch (0 to 99)."""
    return [
        Line(f"{split}-{number:04}", text, str(random.choice(voices)),
             int(random.integers(150, 200)), int(random.integers(35, 65)))
        for number, text in enumerate(texts)
    ]  # fmt: skip


def sentences(num: int, random: np.random.Generator) -> list[str]:
    """Returns sentences none of which is another's."""
    total = math.prod(map(len, WORDS))
    chosen = random.choice(total, num, replace=False)
    places = np.unravel_index(chosen, [len(words) for words in WORDS])
    return [
        " ".join(words[place] for words, place in zip(WORDS, row, strict=True))
        for row in zip(*places, strict=True)
    ]


def speak(line: Line, folder: pathlib.Path, extension: str, container: str) -> dict[str, object]:
    """Writes one utterance; returns its line of the manifest."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as spoken:
        subprocess.run(
            ["espeak-ng", "-v", line.voice, "-s", str(line.speed), "-p", str(line.pitch),
             "-w", spoken.name, line.text],
            check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        samples, rate = soundfile.read(spoken.name)
    samples = resample_poly(samples, RATE, rate).clip(-1, 1)
    path = folder / "audio" / f"{line.name}.{extension}"
    soundfile.write(path, samples, RATE, format=container, subtype="PCM_16")
    seconds = round(len(samples) / RATE, 3)
    return {"audio_filepath": f"audio/{path.name}", "duration": seconds, "text": line.text}


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise app.UsageError("Expected one folder: python examples/small_data/speech.py DIR")
    if shutil.which("espeak-ng") is None:
        raise SystemExit("error: Expected espeak-ng. Received: none. apt-get install espeak-ng")
    folder = pathlib.Path(argv[1])
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(FLAGS.seed)
    splits = ("train", "validation", "test", "new_voice")
    sizes = [FLAGS[split].value for split in splits]
    texts = sentences(sum(sizes), random)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for split, size in zip(splits, sizes, strict=True):
            voices = [NEW_VOICE] if split == "new_voice" else VOICES
            lines = lines_of(split, texts[:size], voices, random)
            del texts[:size]
            kinds = [FORMATS[number % len(FORMATS)] for number in range(size)]
            entries = pool.map(lambda line, kind: speak(line, folder, *kind), lines, kinds)
            manifest = "".join(json.dumps(entry) + "\n" for entry in entries)
            (folder / f"{split}.jsonl").write_text(manifest)
            print(f"{folder / f'{split}.jsonl'}: {size} utterances")


if __name__ == "__main__":
    app.run(main)
