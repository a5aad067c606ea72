"""Results for terminals, files and notebooks: a summary, then tables that fit 100 columns.

rich draws the tables, and is imported on first use.
"""

import html
import json
import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_dsd.utils import checks

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 100
MAX_ROWS = 20
_LEAST_NAME = 24  # minimum width of the names
_GAP = 2
# A rule below the header and one above the totals, in ASCII.
_PLAIN = "    \n    \n -- \n    \n -- \n    \n    \n    \n"

_Rows = Sequence[Sequence[str]]


class Table(NamedTuple):
    """Content of a result.

    Attributes:
        head: Names of the columns; the first one names the rows.
        rows: The body.
        totals: Rows below a rule.
        left: Columns that are left-aligned; the others are right-aligned.
        summary: Up to five lines above the table, each a name and a text.
        lines: Text below the table.
    """

    head: Sequence[str]
    rows: _Rows
    totals: _Rows
    left: Collection[int]
    summary: Sequence[tuple[str, str]] = ()
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

    def render(self, max_rows: int | None = MAX_ROWS) -> str:
        """Returns a summary of five lines and a table, in plain text of at most 100 columns.

        Args:
            max_rows: Number of rows to show; a line counts the others. `None` shows all. Defaults
                to `20`.

        Raises:
            TypeError: `max_rows` is not an integer.
            ValueError: `max_rows` is negative.
        """
        if max_rows is not None:
            checks.whole_number("max_rows", max_rows, least=0, unit="rows")
        return draw(self._table(), max_rows)

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


def draw(table: Table, max_rows: int | None = MAX_ROWS) -> str:
    """Returns a summary and a table in plain text, with the rows after `max_rows` folded."""
    indent = max((len(name) for name, _ in table.summary), default=0) + _GAP
    lines = [
        part
        for name, text in table.summary
        for part in _wrapped(text, name.ljust(indent), " " * indent)
    ]
    lines += [""] if lines and table.head else []
    num_hidden = 0 if max_rows is None else max(len(table.rows) - max_rows, 0)
    rows = list(table.rows[: len(table.rows) - num_hidden])
    if num_hidden:
        rows.append([f"… and {num_hidden:,} more", *[""] * (len(table.head) - 1)])
    parts = _parts([table.head, *rows, *table.totals]) if table.head else []
    for columns in parts:
        lines += [""] if columns is not parts[0] else []
        lines += _drawn(table, rows, columns)
    lines += [part for text in table.lines for part in _wrapped(text, "", "  ")]
    return "\n".join(lines)


def percent(share: float) -> str:
    """Returns a fraction in percent, with at most four digits: `"12.50%"`, `"100.0%"`."""
    return f"{100 * share:.2f}"[:5] + "%"


def num_tensors(number: int) -> str:
    """Returns a number of tensors as text: `"1 tensor"`, `"4 tensors"`."""
    return f"{number:,} tensor" if number == 1 else f"{number:,} tensors"


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape as text: `"64 x 16"`."""
    return " x ".join(map(str, shape)) or "scalar"


def _wrapped(text: str, first: str, others: str) -> list[str]:
    short = " ".join(_end_of(word, WIDTH // 2) for word in text.split())
    return textwrap.wrap(short, WIDTH, initial_indent=first, subsequent_indent=others,
                         break_on_hyphens=False, break_long_words=False)  # fmt: skip


def _parts(rows: _Rows) -> list[list[int]]:
    """Returns the columns of tables that fit side by side, each with the first column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = WIDTH - min(widths[0], _LEAST_NAME)
    parts: list[list[int]] = [[0]]
    used = 0
    for i, width in enumerate(widths[1:], start=1):
        if used + _GAP + width > room and len(parts[-1]) > 1:
            parts.append([0])
            used = 0
        parts[-1].append(i)
        used += _GAP + width
    return parts


def _drawn(table: Table, rows: _Rows, columns: Sequence[int]) -> Iterator[str]:
    """Draws some columns of a table; long names in the first one lose their start."""
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    every = [table.head, *rows, *table.totals]
    others = sum(_GAP + max(len(row[i]) for row in every) for i in columns[1:])
    drawn = RichTable(
        box=Box(_PLAIN, ascii=True), show_edge=False, pad_edge=False, padding=(0, 0, 0, 1)
    )
    for i in columns:
        drawn.add_column(Text(table.head[i]), justify="left" if i in table.left else "right")
    for section in (rows, table.totals):
        for cells in section:
            name = _end_of(cells[0], WIDTH - others)
            # Brackets in a path are not markup.
            drawn.add_row(*map(Text, [name, *(cells[i] for i in columns[1:])]))
        drawn.add_section()
    for each in Console(width=2 * WIDTH).render_lines(drawn, pad=False):
        yield "".join(part.text for part in each).rstrip()  # without styles


def _end_of(name: str, width: int) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"
