"""Makes docs/tutorial.ipynb of docs/tutorial.md: cells of text and of code, without outputs.

    python tools/make_notebook.py          writes it
    python tools/make_notebook.py --check  fails where it is not what it would write

A picture of the page becomes the one that the notebook's own run has drawn. What the page says that
the program printed is left out: the notebook prints it.
"""

import hashlib
import json
import pathlib
import re
import sys
from typing import Any

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
_PART = re.compile(
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```\n|^!\[[^\]]*\]\(figures/tutorial/(?P<figure>[^)]+)\)\n",
    flags=re.DOTALL | re.MULTILINE,
)
_SHOW = 'from IPython.display import Image\n\nImage("{}")'


def cell(kind: str, text: str, number: int) -> dict[str, Any]:
    """Returns a cell; the same text at the same place has the same id each time."""
    name = hashlib.sha256(f"{number} {text}".encode()).hexdigest()[:8]
    made = {"cell_type": kind, "id": name, "metadata": {}, "source": text.splitlines(True)}
    return made if kind == "markdown" else {**made, "execution_count": None, "outputs": []}


def cells_of(page: str) -> list[dict[str, Any]]:
    """Returns the page's text and code, in order."""
    found: list[tuple[str, str]] = []
    end = 0
    for part in _PART.finditer(page):
        found.append(("markdown", page[end : part.start()]))
        end = part.end()
        if part["figure"]:
            found.append(("code", _SHOW.format(part["figure"])))
        elif part["language"] == "python":
            found.append(("code", part["code"]))
    found.append(("markdown", page[end:]))
    given = [(kind, text.strip()) for kind, text in found if text.strip()]
    return [cell(kind, text, number) for number, (kind, text) in enumerate(given)]


def notebook_of(page: str) -> str:
    """Returns the notebook of a page, as its file holds it."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": cells_of(page),
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    made = notebook_of((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    file = DOCS / "tutorial.ipynb"
    if sys.argv[1:] != ["--check"]:
        file.write_text(made, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != made:
        sys.exit("docs/tutorial.ipynb is not what docs/tutorial.md makes: run make notebook.")
