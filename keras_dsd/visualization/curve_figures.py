"""Draws what was measured epoch after epoch, over the phases."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.utils.figures import new_panels, shade
from keras_dsd.visualization.logs import Logs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# How much the measured sparsity has to change at a boundary to be that of a mask.
_LEAST_CHANGE = 0.01


class Span(NamedTuple):
    """Epochs of a phase that were measured: from the first, counted from 0, to before the last."""

    start: int
    end: int
    kind: str


def phases_of(logs: Logs, timeline: Timeline | None) -> list[Span]:
    """Returns the phases that epochs were in.

    Args:
        logs: With `dsd_phase` and, without a timeline, `dsd_sparsity`.
        timeline: What the phases are, if given; otherwise told from the sparsity.
    """
    sparsity = [0.0] * len(logs.epochs) if timeline else logs.numbers("dsd_sparsity")
    rows = zip(logs.numbers("dsd_phase"), logs.epochs, sparsity, strict=True)
    runs = [list(run) for _, run in itertools.groupby(rows, key=lambda row: row[0])]
    found: list[Span] = []
    for place, run in enumerate(runs):
        if timeline is not None:
            kind = timeline.kind(int(run[0][0]))
        elif _is_sparse(runs, place):
            kind = "sparse"
        else:
            kind = "re-dense" if found and found[-1].kind == "sparse" else "dense"
        found.append(Span(run[0][1], run[-1][1] + 1, kind))
    return found


def _is_sparse(runs: Sequence[Sequence[tuple[float, int, float]]], place: int) -> bool:
    """Returns whether a phase is sparse, by what was measured as it began."""
    if place:
        return runs[place][0][2] - runs[place - 1][-1][2] > _LEAST_CHANGE
    after = runs[1][0][2] if len(runs) > 1 else 0.0
    return runs[0][-1][2] - after > _LEAST_CHANGE


def draw_curves(logs: Logs, names: Sequence[str], phases: Sequence[Span]) -> "Figure":
    """Returns the figure of `plots.learning_curves`.

    Args:
        logs: What was measured.
        names: Of the metrics; at least one.
        phases: What to shade.
    """
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
