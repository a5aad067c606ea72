"""Writes a small data set of captioned pictures in the layout of Karpathy's Flickr-8K.

    python examples/small_data/captions.py DIR

Each picture shows two coloured shapes, one left of the other or above it, on a plain background;
five sentences of a small grammar describe it. The pictures of the test set show scenes that
none of training shows. The features in `vgg_feats.mat` are as wide as VGG's and rectified as they
are, but come of random filters: nothing of them is learned, on ImageNet or elsewhere.
"""

import itertools
import json
import pathlib

import numpy as np
import scipy.io
from absl import app, flags
from PIL import Image, ImageDraw

FLAGS = flags.FLAGS
flags.DEFINE_integer("seed", 0, "Seed of the scenes, of the sentences and of the filters.", 0)
flags.DEFINE_integer("train", 1200, "Pictures to train on.", 1)
flags.DEFINE_integer("val", 100, "Pictures to validate on.", 1)
flags.DEFINE_integer("test", 200, "Pictures to test on.", 1)

SIZE = 64
COLOURS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 220),
           "yellow": (240, 220, 60), "purple": (150, 50, 170)}  # fmt: skip
BACKGROUNDS = {"white": (250, 250, 250), "gray": (150, 150, 150), "black": (15, 15, 15)}
SHAPES = {"circle": ["circle", "disc"], "square": ["square", "box"], "triangle": ["triangle"],
          "cross": ["cross"]}  # fmt: skip
RELATIONS = {
    "left": ["to the left of", "left of", "beside"],
    "above": ["above", "over", "on top of"],
}
Colour = tuple[int, int, int]
Thing = tuple[str, str]  # a colour and a shape
Scene = tuple[Thing, Thing, str, str]  # and a background and a relation


def all_scenes() -> list[Scene]:
    """Returns every scene of two things that differ."""
    things = list(itertools.product(COLOURS, SHAPES))
    scenes = itertools.product(itertools.permutations(things, 2), BACKGROUNDS, RELATIONS)
    return [(*pair, background, relation) for pair, background, relation in scenes]


def draw(scene: Scene, random: np.random.Generator) -> Image.Image:
    """Returns a picture of a scene; size, place and shade vary a little."""
    *things, background, relation = scene
    plain = shaded(BACKGROUNDS[background], 8, random)
    picture = Image.new("RGB", (SIZE, SIZE), plain)
    pen = ImageDraw.Draw(picture)
    for (colour, shape), offset in zip(things, (-15, 15), strict=True):
        centre = np.array([offset, 0] if relation == "left" else [0, offset]) + SIZE // 2
        x, y = centre + random.integers(-1, 2, size=2)
        fill = shaded(COLOURS[colour], 15, random)
        draw_shape(pen, shape, int(x), int(y), int(random.integers(11, 13)), fill)
    return picture


def shaded(colour: Colour, by: int, random: np.random.Generator) -> Colour:
    """Returns a colour that differs a little."""
    red, green, blue = np.clip(colour + random.integers(-by, by + 1, size=3), 0, 255)
    return int(red), int(green), int(blue)


def draw_shape(pen: ImageDraw.ImageDraw, shape: str, x: int, y: int, r: int, fill: Colour) -> None:
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill)
    elif shape == "square":
        pen.rectangle((x - r, y - r, x + r, y + r), fill)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill)
    else:
        pen.rectangle((x - r, y - r // 3, x + r, y + r // 3), fill)
        pen.rectangle((x - r // 3, y - r, x + r // 3, y + r), fill)


def describe(scene: Scene, random: np.random.Generator) -> list[str]:
    """Returns five different sentences about a scene."""
    first, second, background, relation = scene

    def name(thing: Thing) -> str:
        colour, shape = thing
        return f"{colour} {random.choice(SHAPES[shape])}"

    def how() -> str:
        return str(random.choice(RELATIONS[relation]))

    side, other = ("left", "right") if relation == "left" else ("top", "bottom")
    return [
        f"a {name(first)} {how()} a {name(second)} on a {background} background",
        f"there is a {name(first)} {how()} a {name(second)}",
        f"a {name(first)} is {how()} a {name(second)}",
        f"a {name(first)} and a {name(second)} on a {background} background",
        f"a {name(first)} at the {side} and a {name(second)} at the {other}",
    ]


def features_of(pictures: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns 64 random sums of each 8 x 8 pixels, negative ones cut off: (4096, pictures)."""
    blocks = pictures.reshape(-1, 8, 8, 8, 8, 3).swapaxes(2, 3).reshape(-1, 64, 192) / 255
    sums = (blocks - blocks.mean(axis=0)) @ random.normal(size=(192, 64))
    return np.maximum(sums / sums.std(), 0).reshape(-1, 4096).T.astype(np.float32)


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
