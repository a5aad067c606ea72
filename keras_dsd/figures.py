"""An empty figure, where matplotlib is installed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "tuple[Figure, Any]":
    """Returns a figure that belongs to no window, and its axes.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib, which plot() draws with. Received: an environment without it. "
            "Install it: pip install matplotlib, or this package with its extra `plots`."
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
