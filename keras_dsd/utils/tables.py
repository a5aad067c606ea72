"""Tables for terminals, files and notebooks, drawn by rich, which is imported on first use."""

import html
import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.console import RenderableType

# Wider than any table: rich truncates wider ones.
_WIDE = 10**9
# A rule below the header and one above the totals, in ASCII.
_PLAIN = "    \n    \n -- \n    \n -- \n    \n    \n    \n"


class Table(NamedTuple):
    """Content of a table: header, body, and totals below a rule.

    The columns in `left` are left-aligned, the others right-aligned; `lines` are text below it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    totals: Sequence[Sequence[str]]
    left: Collection[int]
    lines: Sequence[str] = ()


class Tabled:
    """Base class of results that are shown as a table: as text, by rich and in a notebook."""

    def _table(self) -> Table:
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values: lists, dicts, numbers and str; None for NaN."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Returns `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def render(self) -> str:
        """Returns a table in plain text, of any width."""
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
        """Returns the content of `rich.print`; lines wrap in a narrow terminal."""
        from rich.text import Text

        # A rich table that does not fit would truncate numbers, and hide paths.
        return Text(self.render())

    def _repr_html_(self) -> str:
        """Returns the content of a notebook cell, in the colours of the notebook."""
        return f'<pre style="white-space: pre">{html.escape(self.render())}</pre>'


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape as text: `"64 x 16"`."""
    return " x ".join(map(str, shape)) or "scalar"
