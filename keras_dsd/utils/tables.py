"""Tables for a terminal, a file and a notebook, drawn by rich, which is imported when needed."""

import html
import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.console import RenderableType

# Above a width that no table has: rich cuts what is wider.
_WIDE = 10**9
# A rule under the head and one above the totals, in characters that every terminal has.
_PLAIN = "    \n    \n -- \n    \n -- \n    \n    \n    \n"


class Table(NamedTuple):
    """The content of a table: its columns, its body, and totals below a rule.

    The columns in `left` are flush left, the others flush right; `lines` are text below it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    totals: Sequence[Sequence[str]]
    left: Collection[int]
    lines: Sequence[str] = ()


class Tabled:
    """Base of results that are shown as a table: in text, by rich and in a notebook."""

    def _table(self) -> Table:
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and text; None for NaN."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Returns `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def render(self) -> str:
        """Returns a table in plain text, however wide."""
        from rich.box import Box
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        table = self._table()
        drawn = RichTable(box=Box(_PLAIN, ascii=True), show_edge=False, pad_edge=False)
        for i, name in enumerate(table.head):
            drawn.add_column(Text(name), justify="left" if i in table.left else "right")
        for rows in (table.rows, table.totals):
            for cells in rows:
                drawn.add_row(*map(Text, cells))  # brackets in a path are no markup
            drawn.add_section()
        drawn_lines = Console(width=_WIDE).render_lines(drawn, pad=False)
        lines = ("".join(part.text for part in each) for each in drawn_lines)  # without styles
        return "\n".join([*map(str.rstrip, lines), *table.lines])

    def __str__(self) -> str:
        return self.render()

    def __rich__(self) -> "RenderableType":
        """Returns what `rich.print` shows: lines wrap where the terminal is narrow."""
        from rich.text import Text

        # A table of rich's that does not fit would cut numbers, and paths to nothing.
        return Text(self.render())

    def _repr_html_(self) -> str:
        """Returns what a notebook shows, in its own colours."""
        return f'<pre style="white-space: pre">{html.escape(self.render())}</pre>'


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape in words: `"64 x 16"`."""
    return " x ".join(map(str, shape)) or "scalar"
