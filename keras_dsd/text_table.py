"""Tables in plain text."""

from collections.abc import Collection, Sequence


def table(rows: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """Returns the lines of a table: the head, a rule, the body, a rule, the last row.

    Args:
        rows: Rows of cells, all of one length; the head first, the totals last.
        left: Which columns are flush left, by index; the others are flush right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [cell.ljust(width) if i in left else cell.rjust(width)
         for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]  # fmt: skip
    lines = ["  ".join(cells).rstrip() for cells in aligned]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape in words: `"64 x 16"`."""
    return " x ".join(map(str, shape)) or "scalar"
