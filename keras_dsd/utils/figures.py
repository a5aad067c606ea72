"""Empty figures, where matplotlib is installed, and the colours that all of them have."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLOURS = {"dense": "tab:blue", "sparse": "tab:orange", "re-dense": "tab:green"}


def new_figure(width: float, height: float) -> "tuple[Figure, Any]":
    """Returns a figure that belongs to no window, and its axes.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, panels = new_panels(1, 1, width, height)
    return figure, panels[0, 0]


def new_panels(
    rows: int, columns: int, width: float, height: float, **shared: Any
) -> "tuple[Figure, Any]":
    """Returns a figure that belongs to no window, and its axes in rows and columns.

    Args:
        rows: How many there are.
        columns: How many there are.
        width: Of the whole figure, in inches.
        height: Likewise.
        shared: Which axes are shared, as matplotlib's `subplots` has it.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib, which figures are drawn with. Received: an environment without "
            "it. Install it: pip install matplotlib, or this package with its extra `plots`."
        ) from error
    # Whatever page it is put on: where that is dark, black letters need a ground of their own.
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def shade(axes: Any, start: float, end: float, kind: str, title: str) -> None:
    """Shades the epochs of a phase, and writes what it is above them.

    Args:
        axes: Whose horizontal axis is in epochs.
        start: Where the phase begins.
        end: Where it ends.
        kind: `"dense"`, `"sparse"` or `"re-dense"`.
        title: What to write; nothing if empty.
    """
    axes.axvspan(start, end, color=COLOURS[kind], alpha=0.3, linewidth=0)
    if title:
        axes.text((start + end) / 2, 1.02, title, ha="center", va="bottom",
                  transform=axes.get_xaxis_transform(), fontsize="small")  # fmt: skip
