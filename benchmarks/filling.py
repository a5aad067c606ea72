"""Pages with tables that a program writes, within prose that is edited manually.

A table stands between a line `<!-- NAME -->` and a line `<!-- end -->`; a part of a sentence
between the two within one line.
"""

import re
from collections.abc import Callable

_TABLE = re.compile(
    r"(?<=^<!-- )(?!end )([\w-]+)( -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL
)
_WORDS = re.compile(r"(?<=<!-- )(?!end )([\w-]+)( -->)[^\n]*?(?=<!-- end -->)")


def names_in(page: str) -> list[str]:
    """Returns the names of the tables and parts of a page."""
    return [found[1] for form in (_TABLE, _WORDS) for found in form.finditer(page)]


def filled(page: str, table: Callable[[str], str]) -> str:
    """Returns a page with its tables and parts of sentences rewritten.

    Args:
        page: The page.
        table: Takes a name, and returns the table of that name, whose lines end in a newline, or
            the part of a sentence.
    """
    for form in (_TABLE, _WORDS):
        page = form.sub(lambda found: found[1] + found[2] + table(found[1]), page)
    return page
