"""Figures of runs: distributions of weights, regrown weights and learning curves.

Each function returns a matplotlib Figure that belongs to no window: `figure.savefig("x.png")`
writes it. matplotlib comes with the extra `plots`.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid, invalid_type, shown
from keras_dsd.utils.figures import COLOURS, new_panels, shade
from keras_dsd.visualization.histogram import Histogram, total
from keras_dsd.visualization.weight_history import REDENSE, Snapshot, WeightHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from keras_dsd.callback import DSDSchedule

__all__ = ["learning_curves", "returned_weights", "weight_distributions"]

# Few weights are far out: an axis that reached them would show little else.
_SHARE_SHOWN = 0.999
_STAYED, _RETURNED = COLOURS["dense"], COLOURS["sparse"]
# Minimum change of the measured sparsity at a boundary that counts as that of a mask.
_LEAST_CHANGE = 0.01
_ADDED = {"lr", "learning_rate"}  # by Keras callbacks


def weight_distributions(
    weights: WeightHistory | Sequence[Snapshot], path: str | None = None
) -> "Figure":
    """Draws the distribution of weights at each moment, as in the paper's figure.

    Each moment has a panel, and each sparse phase a column of panels, all with the same axes and
    bins. Regrown weights have another colour, if they are known. Exact zeros have a separate bar at
    zero. Bars above the panel are cut, so that pruned and regrown weights do not dominate; a text
    shows the number of zeros. The outermost thousandth of the weights is beyond the axes.

    Args:
        weights: A `WeightHistory`, or snapshots of one.
        path: Path of one weight, without the model name. Defaults to `None`: all weights together,
            in the bins of the widest histogram.

    Returns:
        The figure.

    Raises:
        TypeError: `weights` or `path` is of the wrong type.
        ValueError: There are no snapshots, or none of this weight.
        ImportError: matplotlib is not installed.
    """
    found = _chosen(weights, path)
    figure, panels = _panels(found, path, 1.7, "value", "number of weights")
    exponent = max(panel.values.exponent for panel in panels)
    reaches = [panel.values.quantile(_SHARE_SHOWN) for panel in panels]
    reach = max((reach for reach in reaches if reach > 0), default=1.0)
    top = 1.3 * max(panel.peak(exponent) for panel in panels)
    for panel in panels:
        _distribution(panel, exponent)
        panel.axes.set_title(_title(panel.snapshot), fontsize="medium")
    panels[0].axes.set_xlim(-1.05 * reach, 1.05 * reach)
    panels[0].axes.set_ylim(0, top)
    return figure


def returned_weights(
    weights: WeightHistory | Sequence[Snapshot], path: str | None = None
) -> "Figure":
    """Draws the magnitudes of regrown weights, compared with those of weights that were kept.

    The first and the last epoch of each re-dense phase have a panel, with the cumulative
    distribution of each group. Dashed lines mark the medians. The legend shows the medians, the
    fraction that is still zero, such as weights without a gradient, and the fraction at or above
    the pruning threshold of the tensor, which is drawn too for a single tensor. Patterns have no
    such threshold.

    Args:
        weights: A `WeightHistory`, or snapshots of one.
        path: Path of one weight, without the model name. Defaults to `None`: all weights together.

    Returns:
        The figure.

    Raises:
        TypeError: `weights` or `path` is of the wrong type.
        ValueError: There is no snapshot of a re-dense epoch with known regrown weights, or none of
            this weight.
        ImportError: matplotlib is not installed.
    """
    redense = [each for each in _chosen(weights, path) if each.name in REDENSE]
    found = [each for each in redense if not each.note]
    if not found:
        why = redense[0].note if redense else "it has no re-dense epoch"
        hint = "Give one of a run with the end of a sparse phase and a re-dense epoch."
        raise invalid("weights", weights, "to have known regrown weights", hint, f": {why}")
    share = "cumulative share of the group (%)"
    figure, panels = _panels(found, path, 2.9, "magnitude", share)
    for panel in panels:
        for name, group in (("kept", panel.stayed), ("regrown", panel.returned)):
            if group is not None and group.size:
                _cumulated(panel.axes, group.magnitudes(), name)
        tensors = () if path is None else panel.snapshot.select(path)
        for threshold in {each.threshold for each in tensors if each.threshold is not None}:
            panel.axes.axvline(threshold, color="black", linestyle=":", label="pruning threshold")
        panel.axes.grid(alpha=0.3)
        panel.axes.legend(
            title=_title(panel.snapshot), loc="lower left", bbox_to_anchor=(0, 1), frameon=False,
            fontsize="small", alignment="left",
        )  # fmt: skip
    if any(panel.values.counts for panel in panels):
        panels[0].axes.set_xscale("log")
    panels[0].axes.set_ylim(0, 101)
    panels[0].axes.set_yticks([0, 25, 50, 75, 100])
    return figure


def learning_curves(
    history: Any,
    metrics: Sequence[str] | None = None,
    timeline: "Timeline | DSDSchedule | None" = None,
) -> "Figure":
    """Draws the metrics of a run at the end of each epoch, with its phases shaded.

    Without `timeline`, sparse phases are inferred: a phase is sparse if `dsd_sparsity` rises by
    more than 0.01 at its start. The first phase in the history is sparse if `dsd_sparsity` falls by
    this much at the start of the next phase or, without a next phase, if it is above 0.01. So pass
    `timeline` if a sparse phase directly follows one of higher sparsity, or if the history starts
    within a re-dense phase.

    Args:
        history: The result of `fit`, or its dict from names to one value per epoch. It must have
            `dsd_phase` and, without `timeline`, `dsd_sparsity`, as in the logs of `DSDSchedule`.
            A dict is assumed to start with the first epoch.
        metrics: Names such as `"loss"`; each has its own axes, with a dashed line for `"val_loss"`
            if available. Defaults to `None`: all but learning rates and the logs of DSD.
        timeline: The `Timeline` or `DSDSchedule` of the run. Defaults to `None`.

    Returns:
        The figure.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The history has no epoch, no `dsd_phase`, or no value of a metric.
        ImportError: matplotlib is not installed.
    """
    known = getattr(timeline, "timeline", timeline)
    if not isinstance(known, Timeline | None):
        expected = "to be a DSDSchedule, its timeline, or None"
        raise invalid_type("timeline", timeline, expected, "Give that.")
    logs = _read_logs(history, ["dsd_phase"] if known else ["dsd_phase", "dsd_sparsity"])
    names = _metrics(logs.metrics if metrics is None else metrics, logs)
    phases = _spans(logs, known)
    figure, grid = new_panels(len(names), 1, 6, 0.8 + 2.2 * len(names), sharex=True)
    for row, (name, axes) in enumerate(zip(names, grid[:, 0], strict=True)):
        for phase in phases:
            shade(axes, phase.start, phase.end, phase.kind, "" if row else phase.kind)
        curves = {"training": (name, ".-"), "validation": (f"val_{name}", ".--")}
        for label, (key, style) in curves.items():
            if key in logs.given:
                axes.plot(logs.ends(key), logs.numbers(key), style, color="black", label=label)
        axes.set_ylabel(name)
        axes.legend(fontsize="small")
    grid[-1, 0].set_xlabel("epochs trained")
    grid[-1, 0].set_xlim(phases[0].start, phases[-1].end)
    return figure


class _Panel(NamedTuple):
    """One panel: its axes, its moment, and the histograms of the selected weights."""

    axes: "Axes"
    snapshot: Snapshot
    values: Histogram
    stayed: Histogram | None
    returned: Histogram | None

    def peak(self, exponent: int) -> int:
        """Returns the largest count of a bin; without regrown weights, if they are known."""
        return max((self.stayed or self.values).widened(exponent).counts, default=1)


def _panels(
    found: Sequence[Snapshot], path: str | None, height: float, x_label: str, y_label: str
) -> "tuple[Figure, list[_Panel]]":
    """Returns a figure with a row for each kind of moment and a column for each sparse phase."""
    names = list(dict.fromkeys(snapshot.name for snapshot in found))
    phases = list(dict.fromkeys(snapshot.sparse_phase for snapshot in found))
    size = (0.9 + 4.7 * len(phases), 1 + height * len(names))
    figure, grid = new_panels(len(names), len(phases), *size, sharex=True, sharey=True)
    figure.supxlabel(x_label, fontsize="medium")
    figure.supylabel(y_label, fontsize="medium")
    figure.suptitle("all weights that DSD prunes" if path is None else path)
    panels = []
    for each in found:
        axes = grid[names.index(each.name), phases.index(each.sparse_phase)]
        weights = each.select(path)
        values = total([weight.values for weight in weights])
        stayed = _total_known([weight.stayed for weight in weights])
        returned = _total_known([weight.returned for weight in weights])
        panels.append(_Panel(axes, each, values, stayed, returned))
    for axes in {*grid.flat} - {panel.axes for panel in panels}:
        axes.remove()
    return figure, panels


def _total_known(histograms: Sequence[Histogram | None]) -> Histogram | None:
    """Returns one histogram of all weights; None if the group is unknown."""
    known = [each for each in histograms if each is not None]
    return total(known) if known else None


def _distribution(panel: _Panel, exponent: int) -> None:
    axes, values = panel.axes, panel.values.widened(exponent)
    counts, returned = np.array(values.counts, int), np.zeros(len(values.counts), int)
    if panel.returned is not None and panel.returned.counts:
        part = panel.returned.widened(exponent)
        start = part.first - values.first
        returned[start : start + len(part.counts)] = part.counts

    def label(count: int, name: str) -> str:
        return f"{count:,} {name} ({count / values.size:.0%})" if count else ""

    if values.counts:
        others = label(int((counts - returned).sum()), "others")
        axes.stairs(counts, values.edges, baseline=returned, fill=True, color=_STAYED, label=others)
        back = label(int(returned.sum()), "regrown")
        axes.stairs(returned, values.edges, fill=True, color=_RETURNED, label=back)
    zero = label(values.num_zeros, "at zero")
    axes.bar(0, values.num_zeros, width=2.0**exponent, color="black", label=zero)
    if values.num_zeros or returned.any():
        axes.legend(loc="upper right", fontsize="small")


def _cumulated(axes: "Axes", group: Histogram, name: str) -> None:
    ends, shares = group.edges[1:], (group.num_zeros + np.cumsum(group.counts)) / group.size
    label = f"{name} ({group.size:,}): median {group.quantile(0.5):.2g}"
    label += f"\n{group.num_zeros / group.size:.1%} zero"
    if group.num_large is not None:
        label += f", {group.num_large / group.size:.1%} above the pruning threshold"
    colour = _STAYED if name == "kept" else _RETURNED
    axes.plot(ends, 100 * shares, color=colour, label=label)
    axes.axvline(group.quantile(0.5), color=colour, linestyle="--")


def _title(snapshot: Snapshot) -> str:
    return f"{snapshot.name} ({snapshot.epoch} epochs trained)"


class _Logs(NamedTuple):
    """Values by name of the epochs of one `fit`, counted from 0."""

    epochs: list[int]
    given: dict[str, list[Any]]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics without `val_`, without duplicates."""
        names = dict.fromkeys(name.removeprefix("val_") for name in self.given)
        return [name for name in names if name not in _ADDED and not name.startswith("dsd_")]

    def numbers(self, name: str) -> list[float]:
        """Returns the values of a name as floats."""
        return [checks.as_float(f"history[{name!r}]", value) for value in self.given[name]]

    def ends(self, name: str) -> list[int]:
        """Returns the number of epochs trained at each value, for each epoch or every n-th."""
        num_values = len(self.given[name])
        every = len(self.epochs) // max(num_values, 1)
        ends = [epoch + 1 for epoch in self.epochs if every and (epoch + 1) % every == 0]
        if len(ends) != num_values:
            raise ValueError(
                f"Expected history[{name!r}] to have a value for each of {len(self.epochs)} "
                f"epochs, or for every n-th. Received: {num_values} values. Give the result of one "
                f"fit, or leave it out of `metrics`."
            )
        return ends


def _read_logs(history: Any, needed: Sequence[str]) -> _Logs:
    """Returns the logs of a History, or of its dict, which is assumed to start with epoch 0.

    They have a value of every name in `needed` for each epoch.
    """
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        expected = "to be the result of fit, or its dict of lists"
        raise invalid_type("history", history, expected, "Give one of the two.")
    given = {
        str(name): checks.items(f"history[{name!r}]", values)
        for name, values in checks.items("history", logs)
    }
    lengths = {name: len(values) for name, values in given.items()}
    epochs = getattr(history, "epoch", None) or range(lengths.get("dsd_phase", 0))
    if not epochs or any(lengths.get(name) != len(epochs) for name in needed):
        raise ValueError(
            f"Expected `history` to be of one epoch or more of a run with DSDSchedule, with "
            f"{' and '.join(needed)}. Received: history of {len(epochs)} epochs with these "
            f"numbers of values: {shown(lengths)}. Call fit with callbacks=[dsd.DSDSchedule(...)]."
        )
    return _Logs(list(epochs), given)


class _Span(NamedTuple):
    """Measured epochs of a phase: from the first, counted from 0, to before the last."""

    start: int
    end: int
    kind: str


def _spans(logs: _Logs, timeline: Timeline | None) -> list[_Span]:
    """Returns the phases of the epochs, of a timeline or inferred from the sparsity."""
    sparsity = [0.0] * len(logs.epochs) if timeline else logs.numbers("dsd_sparsity")
    rows = zip(logs.numbers("dsd_phase"), logs.epochs, sparsity, strict=True)
    runs = [list(run) for _, run in itertools.groupby(rows, key=lambda row: row[0])]
    # For the first phase, the sparsity before it is unknown, but the sparsity after it is known.
    after = runs[1][0][2] if len(runs) > 1 else 0.0
    rises = [runs[0][-1][2] - after]
    rises += [run[0][2] - earlier[-1][2] for earlier, run in itertools.pairwise(runs)]
    found: list[_Span] = []
    for run, rise in zip(runs, rises, strict=True):
        if timeline is not None:
            kind = timeline.kind(int(run[0][0]))
        elif rise > _LEAST_CHANGE:
            kind = "sparse"
        else:
            kind = "re-dense" if found and found[-1].kind == "sparse" else "dense"
        found.append(_Span(run[0][1], run[-1][1] + 1, kind))
    return found


def _chosen(weights: WeightHistory | Sequence[Snapshot], path: str | None) -> list[Snapshot]:
    """Returns the snapshots that have a path, at least one."""
    expected = "to be the WeightHistory of a run, or a list of its snapshots"
    of = weights.snapshots if isinstance(weights, WeightHistory) else weights
    of = checks.listed("weights", of, expected, "Give that.")
    if not all(isinstance(each, Snapshot) for each in of):
        raise invalid_type("weights", weights, expected, "Give that.")
    if path is not None and not isinstance(path, str):
        expected = "to be the path of a weight as a str, such as 'dense/kernel', or None"
        raise invalid_type("path", path, expected, "Give that.")
    found = [each for each in of if each.select(path)]
    if found:
        return found
    if of and path is not None:
        paths = ", ".join(dict.fromkeys(known for each in of for known, _ in each.shapes))
        expected = f"to be that of a recorded weight: {paths}"
        raise invalid("path", path, expected, "Give one of these, or None for all.")
    hint = "Train up to the sparse phase with DSDSchedule(..., observers=[weights])."
    raise invalid("weights", weights, "to have snapshots", hint, ", which has none")


def _metrics(metrics: Sequence[str], logs: "_Logs") -> list[str]:
    expected = "to be a list of names, such as ['loss', 'accuracy'], or None"
    names = checks.listed("metrics", metrics, expected, "Give that.")
    known = {*logs.given, *logs.metrics}
    if not names or not all(isinstance(name, str) and name in known for name in names):
        expected = f"to be among the metrics: {', '.join(logs.metrics)}"
        raise invalid("metrics", metrics, expected, "Give one or more of these, or None for all.")
    return names
