"""Empty figures, and the colours of the phases; matplotlib is imported on first use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"dense": "tab:blue", "sparse": "tab:orange", "re-dense": "tab:green"}


def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """Returns a figure that belongs to no window, of a size in inches, and its axes."""
    figure, panels = new_panels(1, 1, width, height)
    return figure, panels[0, 0]


def new_panels(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> "tuple[Figure, np.ndarray]":
    """Returns a figure that belongs to no window, of a size in inches, and its axes in a grid.

    `options` are those of matplotlib's `Figure.subplots`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib, which draws the figures. Received: an environment without it. "
            "Run pip install matplotlib, or install this package with its extra `plots`."
        ) from error
    # On a dark page, black text needs a white background.
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def shade(axes: "Axes", start: float, end: float, kind: str, title: str) -> None:
    """Shades the epochs of a `"dense"`, `"sparse"` or `"re-dense"` phase, with a title above."""
    axes.axvspan(start, end, color=COLOURS[kind], alpha=0.3, linewidth=0)
    if title:
        axes.text((start + end) / 2, 1.02, title, ha="center", va="bottom",
                  transform=axes.get_xaxis_transform(), fontsize="small")  # fmt: skip
