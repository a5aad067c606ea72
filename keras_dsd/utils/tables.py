"""Tables for a terminal, a file and a notebook: the one place that draws them, with rich."""

import html
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import RenderableType

# Above a width that no table has: rich cuts what is wider.
_WIDE = 10**9
# A rule under the head and one above the totals, in characters that every terminal has.
_PLAIN = "    \n    \n -- \n    \n -- \n    \n    \n    \n"


class Table(NamedTuple):
    """What a table says.

    Attributes:
        head: The names of the columns.
        rows: The body, a cell for each column.
        totals: Rows under the body's rule, a cell for each column.
        left: Which columns are flush left, by index; the others are flush right.
        lines: What stands below, in words.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    totals: Sequence[Sequence[str]]
    left: Collection[int]
    lines: Sequence[str] = ()


class Tabled:
    """Base of what shows itself as a table, in text and on a terminal."""

    def _table(self) -> Table:
        raise NotImplementedError

    def render(self) -> str:
        """Returns a table in plain text, however wide."""
        return as_text(self._table())

    def __str__(self) -> str:
        return self.render()

    def __rich__(self) -> "RenderableType":
        """Returns what `rich.print` shows."""
        return as_rich(self._table())


def as_text(table: Table) -> str:
    """Returns the table in plain text, as wide as what it says."""
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=Box(_PLAIN, ascii=True), show_edge=False, pad_edge=False)
    for i, name in enumerate(table.head):
        drawn.add_column(Text(name), justify="left" if i in table.left else "right")
    for rows in (table.rows, table.totals):
        for cells in rows:
            drawn.add_row(*map(Text, cells))  # brackets in a path are no markup
        drawn.add_section()
    drawn_lines = Console(width=_WIDE).render_lines(drawn, pad=False)
    lines = ("".join(part.text for part in each) for each in drawn_lines)  # without their styles
    return "\n".join([*map(str.rstrip, lines), *table.lines])


def as_rich(table: Table) -> "RenderableType":
    """Returns what `rich.print` shows: where the terminal is narrow, lines go on in the next.

    A table of rich's that does not fit would cut numbers, and paths to nothing.
    """
    from rich.text import Text

    return Text(as_text(table))


def as_html(
    table: Table, caption: str, rest: Sequence[Sequence[str]] = (), lines: Sequence[str] = ()
) -> str:
    """Returns the table in HTML, in the colours of what surrounds it.

    Args:
        table: What it says; its own lines are left out.
        caption: What stands above.
        rest: Further rows of the body, of fewer cells: the last one spans the columns left over.
        lines: What stands below the totals, in words.
    """
    width = len(table.head)

    def row(cells: Sequence[str], tag: str = "td") -> str:
        found = []
        for i, cell in enumerate(cells):
            last = i == len(cells) - 1
            span = f' colspan="{width - i}"' if last and i < width - 1 else ""
            side = "left" if i in table.left or span else "right"
            found.append(f'<{tag}{span} style="text-align:{side}">{html.escape(cell)}</{tag}>')
        return f"<tr>{''.join(found)}</tr>"

    body = "\n".join(row(cells) for cells in (*table.rows, *rest))
    foot = "\n".join([row(cells, "th") for cells in table.totals] + [row([each]) for each in lines])
    return (
        f'<table>\n<caption style="text-align:left">{html.escape(caption)}</caption>\n'
        f"<thead>\n{row(table.head, 'th')}\n</thead>\n<tbody>\n{body}\n</tbody>\n"
        f"<tfoot>\n{foot}\n</tfoot>\n</table>"
    )


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape in words: `"64 x 16"`."""
    return " x ".join(map(str, shape)) or "scalar"
