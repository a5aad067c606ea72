"""Trains each recipe on small real data, every arm and several seeds, and prints their tables.

The data are those that examples/small_data writes: digits and parts of photographs, commands that
espeak-ng speaks, drawn scenes with sentences of a grammar. The tables in docs/recipes.md are what
this prints.

    python benchmarks/small_recipes.py --seeds=3 --workdir=runs/small

It resumes an interrupted run, and adds further seeds.
"""

import pathlib
import time

from absl import app, flags
from programs import EXAMPLES, run

FLAGS = flags.FLAGS
flags.DEFINE_integer("seeds", 3, "How many seeds, counted from 0.", 1)
flags.DEFINE_string("workdir", "runs/small", "Folder for data and runs.")
flags.DEFINE_list("only", [], "Some of imagenet, speech, caption; none: all.")
# The program, what writes its data and holds its flags, and where in the data the recipe's are.
RECIPES = {
    "imagenet": ("images", "tfrecords"),
    "speech": ("speech", ""),
    "caption": ("captions", ""),
}


def main(argv: list[str]) -> None:
    del argv
    for name in FLAGS.only or RECIPES:
        small, place = RECIPES[name]
        folder = pathlib.Path(FLAGS.workdir, name)
        if not (folder / "data").exists():
            run(EXAMPLES / "small_data" / f"{small}.py", folder / "data-being-written")
            (folder / "data-being-written").rename(folder / "data")
        begun = time.monotonic()
        for seed in range(FLAGS.seeds):
            for arm in ("dsd", "llr", "dense"):
                run(
                    EXAMPLES / f"{name}.py", f"--data={folder / 'data' / place}",
                    f"--flagfile={EXAMPLES / 'small_data' / f'{small}.flags'}",
                    f"--workdir={folder / 'runs'}", f"--arm={arm}", f"--seed={seed}",
                )  # fmt: skip
        print((folder / "runs" / "results.md").read_text())
        print(f"Took {(time.monotonic() - begun) / 60:.1f} minutes.\n", flush=True)


if __name__ == "__main__":
    app.run(main)
