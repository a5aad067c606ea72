"""Writes a small data set of captioned pictures in the layout of Karpathy's Flickr-8K.

    python examples/small_data/captions.py DIR

Each picture shows two coloured shapes, one left of the other or above it, on a plain background;
five sentences of a small grammar describe it. The pictures of the test set show scenes that
none of training shows. The features in `vgg_feats.mat` are as wide as VGG's and rectified as they
are, but come of random filters: nothing of them is learned, on ImageNet or elsewhere.
"""

import json
import pathlib

import numpy as np
import scipy.io
from absl import app, flags
from PIL import Image
from scenes import Scene, all_scenes, describe, draw, features_of

FLAGS = flags.FLAGS
flags.DEFINE_integer("seed", 0, "Seed of the scenes, of the sentences and of the filters.", 0)
flags.DEFINE_integer("train", 1200, "Pictures to train on.", 1)
flags.DEFINE_integer("val", 100, "Pictures to validate on.", 1)
flags.DEFINE_integer("test", 200, "Pictures to test on.", 1)


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise app.UsageError(f"Expected one folder to write to. Received: {argv[1:]}.")
    folder = pathlib.Path(argv[1])
    random = np.random.default_rng(FLAGS.seed)
    splits = ["train"] * FLAGS.train + ["val"] * FLAGS.val + ["test"] * FLAGS.test
    scenes = all_scenes()
    if len(splits) > len(scenes):
        raise app.UsageError(f"Expected {len(scenes)} pictures at most. Received: {len(splits)}.")
    chosen = random.choice(len(scenes), len(splits), replace=False)  # no scene twice
    (folder / "imgs").mkdir(parents=True, exist_ok=True)
    images, pictures = [], []
    for number, (split, index) in enumerate(zip(splits, chosen, strict=True)):
        picture = draw(scenes[index], random)
        filename = f"scene_{number:04}.jpg"
        picture.save(folder / "imgs" / filename, quality=95)
        with Image.open(folder / "imgs" / filename) as written:
            pictures.append(np.asarray(written))
        images.append(entry(number, split, filename, scenes[index], random))
    text = json.dumps({"images": images, "dataset": "drawn scenes"}, indent=1)
    (folder / "dataset.json").write_text(text + "\n")
    scipy.io.savemat(folder / "vgg_feats.mat", {"feats": features_of(np.stack(pictures), random)})
    print(f"Wrote {len(images)} captioned pictures to {folder}")


def entry(
    number: int, split: str, filename: str, scene: Scene, random: np.random.Generator
) -> dict:
    """Returns what dataset.json says of a picture; only the scene is not in Karpathy's."""
    sentids = [5 * number + n for n in range(5)]
    sentences = [
        {"raw": f"{text.capitalize()} .", "tokens": text.split(), "imgid": number, "sentid": sentid}
        for sentid, text in zip(sentids, describe(scene, random), strict=True)
    ]
    return {
        "filename": filename, "imgid": number, "split": split, "sentids": sentids,
        "sentences": sentences, "scene": scene,
    }  # fmt: skip


if __name__ == "__main__":
    app.run(main)
