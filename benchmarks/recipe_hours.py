"""Hours of each of the paper's systems at full size, from measured steps of the full model.

Each program in examples/ runs all three phases on random data, two steps an epoch, of which it
times the second: that, divided by the examples in a batch, times the examples of the real training
data, times the epochs of its defaults, are the hours on this machine. The time of a step does not
depend on the examples; for speech it is taken to grow with the frames, as recurrent layers' does.

For other machines there is the count of multiplications and additions: 2 for each weight and each
place where it is used, times 3 for the forward and the backward pass. Hours on an accelerator are
that count over a rate that is assumed, --teraflops, not measured.

    python benchmarks/recipe_hours.py
    python benchmarks/recipe_hours.py --only=resnet18,squeezenet --steps=10
"""

import json
import math
import os
import pathlib
import tempfile
from typing import Any, NamedTuple

from absl import app, flags
from programs import EXAMPLES, run

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 3, "Steps of each phase that are timed; the median counts.", 1)
flags.DEFINE_float("teraflops", 50.0, "What an accelerator is taken to sustain, 1e12 a second.")
flags.DEFINE_list("only", [], "Systems to look at; none: all.")


class System(NamedTuple):
    """A recipe at full size: its program, a batch that fits a small machine, its real data."""

    program: str
    flags: list[str]
    batch_size: int
    examples: int  # in an epoch
    frames: int = 1  # in an example of `--data=fake`, where examples are counted in frames


IMAGES = 1_281_167  # ILSVRC 2012's training set
FRAMES = 81 * 3600 * 100  # WSJ's si284, about 81 hours, a frame each 10 ms
SENTENCES = 30_000  # of Flickr-8K's 6,000 training images
WORDS = 21  # that --data=fake has in a sentence, and its end
SYSTEMS = {
    **{
        name: System("imagenet", [f"--model={name}"], batch_size, IMAGES)
        for name, batch_size in (
            ("googlenet", 8), ("vgg16", 4), ("resnet18", 8), ("resnet50", 4), ("alexnet", 16),
            ("squeezenet", 8),
        )
    },
    **{
        name: System("speech", [f"--model={name}"], 4, FRAMES, 60)
        for name in ("deepspeech", "deepspeech2")
    },
    "neuraltalk": System("caption", [], 100, SENTENCES),
}  # fmt: skip


def main(argv: list[str]) -> None:
    del argv
    rows = [[
        "", "parameters", "epochs", "operations an epoch", "ms an example, dense", "sparse",
        "re-dense", f"hours on {os.cpu_count()} cores", f"hours at {FLAGS.teraflops:g} TFLOP/s",
    ]]  # fmt: skip
    for name in FLAGS.only or SYSTEMS:
        rows.append(_row(name, SYSTEMS[name]))
        print(" | ".join(rows[-1]), flush=True)
    print()
    for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]:
        print(f"| {' | '.join(row)} |")


def _row(name: str, system: System) -> list[str]:
    result = _measured(system)
    seconds = [
        part["seconds_a_step"] / system.batch_size / system.frames
        for part in result["parts"].values()
    ][:3]
    epochs = _default_epochs(system, name)
    operations = 6 * _macs(name) * system.examples
    here = sum(seconds) / len(seconds) * system.examples * epochs / 3600
    there = operations * epochs / FLAGS.teraflops / 1e12 / 3600
    return [
        name, f"{result['parameters']:,}", str(epochs), f"{operations:.1e}",
        *(f"{1000 * s:.3g}" for s in seconds), f"{here:,.0f}", f"{there:.2g}",
    ]  # fmt: skip


def _measured(system: System) -> dict[str, Any]:
    """Returns what the program writes of a run of a few steps."""
    with tempfile.TemporaryDirectory() as folder:
        given = [*system.flags, "--data=fake", f"--workdir={folder}", "--verbose=0",
                 f"--batch_size={system.batch_size}", "--steps_per_epoch=2",
                 *(f"--{phase}={FLAGS.steps}" for phase in ("dense", "sparse", "redense")),
                 "--sparse2=0", "--redense2=0", "--learning_rate=1e-6"]  # fmt: skip
        run(EXAMPLES / f"{system.program}.py", *given)
        return json.loads(pathlib.Path(folder, "seed-0", "dsd", "results.json").read_text())


def _default_epochs(system: System, name: str) -> int:
    """Returns how many epochs the program trains for, if not told otherwise."""
    code = (
        f"import {system.program} as program, json; from recipes import arms; "
        f"given = program.DEFAULTS.get({name!r}, program.DEFAULTS); "
        f"names = ('dense', 'sparse', 'redense', 'sparse2', 'redense2'); "
        f"print(sum(n for name in names for n, _ in arms.parse(given.get(name, '0'))))"
    )
    return int(run("-c", code))


def _macs(name: str) -> int:
    """Returns how often the weights of the full model are used, all together: see `count_macs`."""
    code = (
        f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r}); "
        f"import recipe_hours; print(recipe_hours.count_macs({name!r}))"
    )
    return int(run("-c", code))


def count_macs(name: str) -> int:
    """Returns the multiplications of one forward pass: of an example or, of speech, of a frame."""
    import numpy as np

    from recipes import caption_models, image_models
    from recipes.chosen_keras import keras

    places, frames = SYSTEMS[name].frames, 1
    if SYSTEMS[name].program == "speech":  # which looks at every other frame
        import speech

        places, frames = places // 2, places
        make, options = speech.MODELS[name, "full"]
        model = make(num_bins=161, stride=2, **options)
    elif name == "neuraltalk":
        places = WORDS
        model = caption_models.build(np.zeros(2539, "float32"), hidden_size=512, dropout=0.5)
    else:
        model = image_models.build(name, 224, 1000, weight_decay=0.0)
    total = 0
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Embedding):
            used = math.prod(side or places for side in layer.output.shape[1:-1])
            total += used * sum(math.prod(w.shape) for w in layer.weights if len(w.shape) > 1)
    return total // frames


if __name__ == "__main__":
    app.run(main)
