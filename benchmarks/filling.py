"""Pages with tables that a program writes, within prose that is edited manually.

A table stands between a line `<!-- NAME -->` and a line `<!-- end -->`.
"""

import re
from collections.abc import Callable

_TABLE = re.compile(
    r"(?<=^<!-- )(?!end )([\w-]+)( -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL
)


def names_in(page: str) -> list[str]:
    """Returns the names of the tables of a page."""
    return [found[1] for found in _TABLE.finditer(page)]


def filled(page: str, table: Callable[[str], str]) -> str:
    """Returns a page with its tables rewritten.

    Args:
        page: The page.
        table: Takes a name, and returns the table of that name; its lines end in a newline.
    """
    return _TABLE.sub(lambda found: found[1] + found[2] + table(found[1]), page)
