"""The code of the documents, page by page, and the program that runs a page.

A page's ```python blocks are one program, from top to bottom. What a reader has and a page does not
show, such as a model, is code in an HTML comment, which no page shows:

    <!-- run
    x, y = load_digits(return_X_y=True)
    -->

`<!-- program KERAS_BACKEND=jax -->` starts another program, in a process with these variables. Run
as a program, `python -m tests.helpers.pages PAGE NUMBER` runs one of a page's programs.
"""

import pathlib
import re
import sys
import textwrap
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)(?P=fence)$"
    r"|^<!-- run\n(?P<hidden>.*?)^-->$"
    r"|^<!-- program(?P<variables>[^\n>]*)-->$",
    flags=re.DOTALL | re.MULTILINE,
)
_INCLUDED = re.compile(r'\s*--8<-- "(?P<path>[^"]+)"\s*')


# The README's block speaks of a reader's own model and data; this is what it stands for.
BEFORE = {
    "README.md": [
        """
import keras
from sklearn.datasets import load_digits

x, y = load_digits(return_X_y=True)
x, y = x[:320] / 16, y[:320]
layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(10, "softmax")]
model = keras.Sequential([keras.layers.Input((64,)), *layers])
""",
    ]
}


class Block(NamedTuple):
    """Text between two fences, with its language and the number of its first line."""

    language: str
    line: int
    code: str

    @property
    def included(self) -> str | None:
        """The file whose text the block is, if it is nothing else."""
        found = _INCLUDED.fullmatch(self.code)
        return found and found["path"]


class Program(NamedTuple):
    """Blocks that run one after another, in a process with further variables."""

    variables: dict[str, str]
    blocks: list[Block]


def _parts(text: str) -> list[tuple[str, Block]]:
    found = []
    for part in _FENCE.finditer(text):
        kind = "program" if part["variables"] is not None else "block"
        code = part["code"] or part["hidden"] or part["variables"] or ""
        line = text.count("\n", 0, part.start()) + 2
        language = "python" if part["hidden"] else part["language"] or ""
        found.append((kind, Block(language.strip(), line, textwrap.dedent(code))))
    return found


def blocks_of(text: str) -> list[Block]:
    """Returns all blocks of a page, those that it hides too."""
    return [block for kind, block in _parts(text) if kind == "block"]


def programs_of(text: str) -> list[Program]:
    """Returns what the Python blocks of a page are together."""
    programs = [Program({}, [])]
    for kind, block in _parts(text):
        if kind == "program":
            pairs = (each.split("=", 1) for each in block.code.split())
            programs.append(Program(dict(pairs), []))
        elif block.language == "python" and block.included is None:
            programs[-1].blocks.append(block)
    return [program for program in programs if program.blocks]


def run(page: pathlib.Path, number: int) -> None:
    """Runs a program of a page. A traceback names the page and its line."""
    names = {"__name__": "__main__"}
    blocks = programs_of(page.read_text(encoding="utf-8"))[number].blocks
    before = BEFORE.get(page.name, [""] * len(blocks))
    for block, given in zip(blocks, before, strict=True):
        exec(given, names)
        exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)


if __name__ == "__main__":
    run(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
