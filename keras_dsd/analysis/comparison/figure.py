"""The figure of a comparison: every seed of every arm, and the gains with their intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_dsd.analysis.comparison.statistics import CONFIDENCE, Paired
from keras_dsd.utils.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLES = {"last": ("o", "none", -0.15), "best": ("o", None, 0.15)}
_LABELS = {"last": "last epoch", "best": "epoch best on validation data"}


def plot(
    values: Mapping[str, Mapping[str, Sequence[float]]], gains: Mapping[str, Paired], label: str
) -> "Figure":
    """Returns a figure of two panels.

    Args:
        values: On test data, seed by seed, by arm and by `"last"` or `"best"` epoch.
        gains: The gains, by what they are of.
        label: What the values are.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure, axes = new_figure(10, 4.5)
    axes.remove()
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _dots(left, values)
    left.set_ylabel(label)
    names = list(gains)
    for place, name in enumerate(names):
        gain = gains[name]
        ends = np.abs(np.array([[gain.mean - gain.low], [gain.high - gain.mean]]))
        right.errorbar([place], [gain.mean], yerr=ends, fmt="o", capsize=6, color="black")
    right.axhline(0, color="gray", linestyle="--", linewidth=1)
    right.set_xticks(range(len(names)), names, fontsize="small")
    right.set_xlim(-0.6, len(names) - 0.4)
    right.set_ylabel(f"gain of dsd, mean and {CONFIDENCE:.0%} interval\n(above 0: dsd is better)")
    return figure


def _dots(axes: Any, values: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Draws a dot for each seed, and a line at the mean, in a column for each arm."""
    for place, of_arm in enumerate(values.values()):
        for when, (marker, face, aside) in _STYLES.items():
            found, x = of_arm[when], place + aside
            colour = f"C{place}"
            axes.plot([x] * len(found), found, marker, color=colour, alpha=0.7,
                      markerfacecolor=face or colour)  # fmt: skip
            axes.hlines(np.mean(found), x - 0.12, x + 0.12, color=colour)
    for when, (marker, face, _) in _STYLES.items():
        axes.plot([], [], marker, color="gray", markerfacecolor=face or "gray", label=_LABELS[when])
    axes.set_xticks(range(len(values)), list(values))
    axes.legend(title="a dot for each seed, a line for the mean", fontsize="small")
