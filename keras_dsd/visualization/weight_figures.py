"""Draws how the values of weights are spread, from counts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_dsd.utils.figures import COLOURS, new_panels
from keras_dsd.visualization.histogram import Histogram, total
from keras_dsd.visualization.snapshots import Snapshot, merged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The farthest weights are so few that an axis which reached them would show little else.
_SHARE_SHOWN = 0.999
_STAYED, _RETURNED = COLOURS["dense"], COLOURS["sparse"]


class _Panel(NamedTuple):
    """What one panel shows: its axes, the moment, and the counts of the weights chosen."""

    axes: Any
    snapshot: Snapshot
    values: Histogram
    stayed: Histogram | None
    returned: Histogram | None

    def peak(self, exponent: int) -> int:
        """Returns the most values in a bin; where it is known, of those that did not return."""
        return max((self.stayed or self.values).widened(exponent).counts, default=1)


def draw_distributions(found: Sequence[Snapshot], path: str | None) -> "Figure":
    """Returns the figure of `plots.weight_distributions`.

    Args:
        found: At least one; all have the path.
        path: That of a weight, or None for all.
    """
    figure, panels = _panels(found, path, 1.7, sharex=True, sharey=True)
    exponent = max(panel.values.exponent for panel in panels)
    reaches = [panel.values.quantile(_SHARE_SHOWN) for panel in panels]
    reach = max((reach for reach in reaches if reach > 0), default=1.0)
    top = 1.3 * max(panel.peak(exponent) for panel in panels)
    for panel in panels:
        _distribution(panel, exponent)
        panel.axes.set_title(_title(panel.snapshot), fontsize="medium")
    panels[0].axes.set_xlim(-1.05 * reach, 1.05 * reach)
    panels[0].axes.set_ylim(0, top)
    figure.supxlabel("value", fontsize="medium")
    figure.supylabel("number of weights", fontsize="medium")
    figure.suptitle(_subject(path))
    return figure


def draw_returned(found: Sequence[Snapshot], path: str | None) -> "Figure":
    """Returns the figure of `plots.returned_weights`.

    Args:
        found: Of re-dense epochs, at least one; all have the path and know what returned.
        path: That of a weight, or None for all.
    """
    figure, panels = _panels(found, path, 2.9, sharex=True, sharey=True)
    for panel in panels:
        for name, group in (("stayed", panel.stayed), ("returned", panel.returned)):
            if group is not None and group.size:
                _cumulated(panel.axes, group.magnitudes(), name)
        for threshold in {weight.threshold for weight in panel.snapshot.select(path)}:
            if path is not None and threshold is not None:
                panel.axes.axvline(
                    threshold, color="black", linestyle=":", label="pruning threshold"
                )
        panel.axes.grid(alpha=0.3)
        panel.axes.legend(
            title=_title(panel.snapshot), loc="lower left", bbox_to_anchor=(0, 1), frameon=False,
            fontsize="small", alignment="left",
        )  # fmt: skip
    if any(panel.values.counts for panel in panels):
        panels[0].axes.set_xscale("log")
    panels[0].axes.set_ylim(0, 101)
    panels[0].axes.set_yticks([0, 25, 50, 75, 100])
    figure.supxlabel("magnitude", fontsize="medium")
    figure.supylabel("share of the group up to that magnitude (%)", fontsize="medium")
    figure.suptitle(_subject(path))
    return figure


def _panels(
    found: Sequence[Snapshot], path: str | None, height: float, **shared: Any
) -> "tuple[Figure, list[_Panel]]":
    """Returns a figure with a row for each kind of moment and a column for each sparse phase."""
    names = list(dict.fromkeys(snapshot.name for snapshot in found))
    phases = list(dict.fromkeys(snapshot.sparse_phase for snapshot in found))
    size = (0.9 + 4.7 * len(phases), 1 + height * len(names))
    figure, grid = new_panels(len(names), len(phases), *size, **shared)
    unused, panels = {*grid.flat}, []
    for each in found:
        axes = grid[names.index(each.name), phases.index(each.sparse_phase)]
        weights = each.select(path)
        values = total([weight.values for weight in weights])
        stayed = merged([weight.stayed for weight in weights])
        returned = merged([weight.returned for weight in weights])
        panels.append(_Panel(axes, each, values, stayed, returned))
        unused.discard(axes)
    for axes in unused:
        axes.remove()
    return figure, panels


def _distribution(panel: _Panel, exponent: int) -> None:
    axes, values = panel.axes, panel.values.widened(exponent)
    counts, returned = np.array(values.counts, int), np.zeros(len(values.counts), int)
    if panel.returned is not None and panel.returned.counts:
        part = panel.returned.widened(exponent)
        start = part.first - values.first
        returned[start : start + len(part.counts)] = part.counts

    def label(count: int, words: str) -> str:
        return f"{count:,} {words} ({count / values.size:.0%})" if count else ""

    if values.counts:
        others = label(int((counts - returned).sum()), "others")
        axes.stairs(counts, values.edges, baseline=returned, fill=True, color=_STAYED, label=others)
        back = label(int(returned.sum()), "returned")
        axes.stairs(returned, values.edges, fill=True, color=_RETURNED, label=back)
    zero = label(values.num_zeros, "at zero")
    axes.bar(0, values.num_zeros, width=2.0**exponent, color="black", label=zero)
    if values.num_zeros or returned.any():
        axes.legend(loc="upper right", fontsize="small")


def _cumulated(axes: Any, group: Histogram, name: str) -> None:
    ends, shares = group.edges[1:], (group.num_zeros + np.cumsum(group.counts)) / group.size
    label = f"{name} ({group.size:,}): median {group.quantile(0.5):.2g}"
    shares_of = {"zero": group.num_zeros, "above the pruning threshold": group.num_large}
    known = [f"{n / group.size:.1%} {words}" for words, n in shares_of.items() if n is not None]
    label += f"\n{', '.join(known)}"
    colour = _STAYED if name == "stayed" else _RETURNED
    axes.plot(ends, 100 * shares, color=colour, label=label)
    axes.axvline(group.quantile(0.5), color=colour, linestyle="--")


def _title(snapshot: Snapshot) -> str:
    return f"{snapshot.name} ({snapshot.epoch} epochs trained)"


def _subject(path: str | None) -> str:
    return "all weights that DSD prunes" if path is None else path
