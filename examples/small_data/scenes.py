"""Drawn scenes of two coloured shapes, and sentences that describe them.

One shape is left of the other or above it, on a plain background; the sentences are those of a
small grammar.
"""

import itertools

import numpy as np
from PIL import Image, ImageDraw

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


def features_of(pictures: np.ndarray, random: np.random.Generator, filters: int = 64) -> np.ndarray:
    """Returns rectified random sums of each 8 x 8 pixels, shape (64 * filters, pictures)."""
    blocks = pictures.reshape(-1, 8, 8, 8, 8, 3).swapaxes(2, 3).reshape(-1, 64, 192) / 255
    sums = (blocks - blocks.mean(axis=0)) @ random.normal(size=(192, filters))
    return np.maximum(sums / sums.std(), 0).reshape(len(pictures), -1).T.astype(np.float32)
