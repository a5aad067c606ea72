"""Hooks of mkdocs: links out of docs/ become names of files.

On a page of the repository such a link opens the file. A site holds the pages alone, and says where
in a checkout the file is.
"""

import pathlib
import re
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[`?([^\]`]+)`?\]\((\.\./[^)#]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Returns the page's text with links to files outside of docs/ replaced by their paths.

    Raises:
        FileNotFoundError: A link leads to no file.
    """
    folder = pathlib.Path(page.file.abs_src_path).parent

    def path_instead(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve(strict=True)
        if target.is_relative_to(ROOT / "docs"):
            return link[0]
        return f"`{target.relative_to(ROOT)}`"

    return _LINK.sub(path_instead, markdown)
