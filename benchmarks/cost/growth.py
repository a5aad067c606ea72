"""Growth of DSD's costs with a model: exponents fitted to measurements of whole_fit; a figure."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from networks import num_weights

AXES = {"layers": "layers", "units": "weights", "replicas": "devices"}
MEASURES = {
    "first": "first step of plain `fit`", "masks": "masks", "to sparse": "to sparse",
    "step": "plain step", "sparse step": "sparse step",
}  # fmt: skip
Points = dict[str, list[tuple[float, float]]]


def lines(results: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Points]:
    """Returns, for each axis and flavour, the points of each measure: size and median seconds."""
    found: dict[tuple[str, str], Points] = {}
    for axis in AXES:
        for result in results:
            if result["kind"] == "whole_fit" and (size := size_on(axis, result)):
                points = found.setdefault(
                    (axis, result["flavour"]), {name: [] for name in MEASURES}
                )
                for name in MEASURES:
                    way = "plain" if name in ("first", "step") else "DSD"
                    points[name].append((size, float(np.median(result["found"][way][name]))))
    return {
        key: {name: sorted(of_name) for name, of_name in points.items()}
        for key, points in found.items()
        if len(points["step"]) > 1
    }


def size_on(axis: str, result: Mapping[str, Any]) -> int:
    """Returns how large what was measured is on an axis; 0 where it belongs to another one."""
    for text in (result["subject"], result["variant"]):
        kind, _, number = text.partition("-")
        if kind == axis and number.isdecimal():
            return num_weights(int(number)) if kind == "units" else int(number)
    return 0


def exponent(points: Sequence[tuple[float, float]]) -> str:
    """Returns the exponent of a power of the size that seconds follow, with its standard error."""
    from scipy.stats import linregress

    x, y = np.array([each for each in points if each[1] > 0]).T if points else ((), ())
    if len(x) < 3:
        return ""
    fit = linregress(np.log(x), np.log(y))
    return f"{fit.slope:.2f} ± {fit.stderr:.2f}".replace("-", "\N{MINUS SIGN}")


def draw(
    results: Sequence[Mapping[str, Any]], file: pathlib.Path, titles: Mapping[str, str]
) -> None:
    """Draws the points, a panel for each axis and measure.

    Args:
        results: What was measured.
        file: Where to.
        titles: What to call each flavour.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = lines(results)
    axes = [axis for axis in AXES if any(key[0] == axis for key in found)]
    figure, panels = pyplot.subplots(
        len(axes), len(MEASURES), figsize=(3 * len(MEASURES), 2.6 * len(axes)),
        squeeze=False, layout="constrained", sharex="row",
    )  # fmt: skip
    for row, axis in zip(panels, axes, strict=True):
        for panel, (name, words) in zip(row, MEASURES.items(), strict=True):
            for (of_axis, flavour), points in found.items():
                if of_axis == axis:
                    x, y = zip(*points[name], strict=True)
                    colour = f"C{[*titles].index(flavour)}"  # the same in every row
                    panel.plot(x, y, "o-", color=colour, markersize=4, label=titles[flavour])
            panel.set(xscale="log", yscale="log", xlabel=AXES[axis], title=words.replace("`", ""))
            if max(x) < 10:
                panel.set_xticks(x, [f"{size}" for size in x])
                panel.set_xticks([], minor=True)
        row[0].set_ylabel("seconds")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(file, dpi=100)
    pyplot.close(figure)
