"""Figures of runs: from what was kept of them, and nothing else.

Each function returns a matplotlib Figure that belongs to no window: `figure.savefig("x.png")`
writes it. matplotlib comes with the extra `plots`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.utils import checks
from keras_dsd.utils.checks import shown
from keras_dsd.visualization import curve_figures, weight_figures
from keras_dsd.visualization.logs import Logs, read_logs
from keras_dsd.visualization.snapshots import REDENSE, Snapshot
from keras_dsd.visualization.weight_history import WeightHistory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_dsd.callback import DSDSchedule

__all__ = [
    "learning_curves",
    "returned_weights",
    "weight_distributions",
]


def weight_distributions(
    weights: WeightHistory | Sequence[Snapshot], path: str | None = None
) -> "Figure":
    """Draws how the values of weights are spread at each moment, as the paper's figure does.

    There is a panel for each moment, with a column of them for each sparse phase; all have the same
    axes and bins. Weights that returned are drawn in another colour where it is known which did.
    Exact zeros have a bar of their own at zero. Bars higher than the panel are cut, so that the
    pruned and those that just returned do not crush the rest; a text says how many are at zero. The
    farthest thousandth of the weights is beyond the axes.

    Args:
        weights: A `WeightHistory`, or snapshots of one.
        path: The path of one weight, without the model's own name. Defaults to `None`: all weights
            together, counted in the bins of the one that has the widest.

    Returns:
        The figure.

    Raises:
        TypeError: `weights` or `path` is something else.
        ValueError: Nothing was kept, or of no such weight.
        ImportError: matplotlib is not installed.
    """
    return weight_figures.draw_distributions(_chosen(weights, path), path)


def returned_weights(
    weights: WeightHistory | Sequence[Snapshot], path: str | None = None
) -> "Figure":
    """Draws where weights that were pruned and returned ended up, against those that stayed.

    There is a panel for the first epoch of each re-dense phase, and one for the last, with a line
    for each group: which share of it does not exceed a magnitude. Dashed lines mark the medians.
    The legend says them, the share that is zero still, as of weights that have no gradient, and the
    share that is as large as what the mask kept: at least the threshold below which the weight's
    tensor was pruned, which is drawn too where there is one tensor. With a pattern, there is none.

    Args:
        weights: A `WeightHistory`, or snapshots of one.
        path: The path of one weight, without the model's own name. Defaults to `None`: all weights
            together.

    Returns:
        The figure.

    Raises:
        TypeError: `weights` or `path` is something else.
        ValueError: No re-dense epoch was kept of which it is known what returned, or of no such
            weight.
        ImportError: matplotlib is not installed.
    """
    redense = [each for each in _chosen(weights, path) if each.name in REDENSE]
    found = [each for each in redense if not each.note]
    if not found:
        why = redense[0].note if redense else "it has no re-dense epoch"
        raise ValueError(
            f"Expected `weights` to know which weights returned. Received: weights="
            f"{shown(weights)}: {why}. Give a WeightHistory of a run that trained its sparse "
            f"phase's end and a re-dense epoch."
        )
    return weight_figures.draw_returned(found, path)


def learning_curves(
    history: Any,
    metrics: Sequence[str] | None = None,
    timeline: "Timeline | DSDSchedule | None" = None,
) -> "Figure":
    """Draws what a run measured at each epoch's end, with its phases shaded.

    Without `timeline`, phases count as sparse by what was measured: where `dsd_sparsity` rises by
    more than 0.01 as they begin. The first phase in the history, before which nothing is known,
    does where it falls by as much as the next one begins or, if there is no next one, where it is
    above 0.01. So give `timeline` where a sparse phase follows a sparser one without a dense one
    between, and where a history begins within a re-dense phase.

    Args:
        history: What `fit` returned, or its dict from names to one value an epoch. It needs
            `dsd_phase` and, without `timeline`, `dsd_sparsity`, as the logs of a run with
            `DSDSchedule` have them. A dict counts as beginning with the first epoch.
        metrics: Names such as `"loss"`; each has axes of its own, with `"val_loss"`, dashed, where
            it was measured. Defaults to `None`: all but learning rates and what DSD adds.
        timeline: The run's `Timeline` or `DSDSchedule`. Defaults to `None`.

    Returns:
        The figure.

    Raises:
        TypeError: An argument is something else.
        ValueError: The history has no epoch, no `dsd_phase`, or none of a metric.
        ImportError: matplotlib is not installed.
    """
    known = _timeline_of(timeline)
    needed = ["dsd_phase"] if known else ["dsd_phase", "dsd_sparsity"]
    logs = read_logs(history, needed)
    names = _names(logs.metrics if metrics is None else metrics, logs)
    return curve_figures.draw_curves(logs, names, curve_figures.phases_of(logs, known))


def _not_a(name: str, value: object, wanted: str) -> TypeError:
    return TypeError(
        f"Expected `{name}` to be {wanted}. Received: {name}={shown(value)} of type "
        f"{type(value).__name__}. Give that."
    )


def _chosen(weights: Any, path: Any) -> list[Snapshot]:
    """Returns the snapshots that have a path, at least one."""
    wanted = "a WeightHistory that a run was watched with, or a list of its snapshots"
    of = weights.snapshots if isinstance(weights, WeightHistory) else weights
    if isinstance(of, str | bytes) or not isinstance(of, Sequence):
        raise _not_a("weights", weights, wanted)
    of = checks.items("weights", of)
    if not all(isinstance(each, Snapshot) for each in of):
        raise _not_a("weights", weights, wanted)
    if path is not None and not isinstance(path, str):
        raise _not_a("path", path, "the path of a weight as a str, such as 'dense/kernel', or None")
    found = [each for each in of if each.select(path)]
    if found:
        return found
    if of and path is not None:
        paths = ", ".join(dict.fromkeys(known for each in of for known in each.paths))
        raise ValueError(
            f"Expected `path` to be that of a weight that was watched: {paths}. Received: "
            f"path={shown(path)}. Give one of these, or None for all."
        )
    raise ValueError(
        f"Expected `weights` to have kept a moment. Received: weights={shown(weights)}, which has "
        f"kept none. Train with DSDSchedule(..., observers=[dsd.WeightHistory()]) up to its sparse "
        f"phase, or see that its path is right."
    )


def _timeline_of(timeline: Any) -> Timeline | None:
    found = getattr(timeline, "timeline", timeline)
    if not isinstance(found, Timeline | None):
        raise _not_a("timeline", timeline, "a DSDSchedule, its timeline, or None")
    return found


def _names(metrics: Any, logs: Logs) -> list[str]:
    if isinstance(metrics, str | bytes) or not isinstance(metrics, Sequence):
        raise _not_a("metrics", metrics, "a list of names, such as ['loss', 'accuracy'], or None")
    names = checks.items("metrics", metrics)
    known = {*logs.given, *logs.metrics}
    if not names or not all(isinstance(name, str) and name in known for name in names):
        raise ValueError(
            f"Expected `metrics` to be some of what was measured: {', '.join(logs.metrics)}. "
            f"Received: metrics={shown(metrics)}. Give one or more of these, or None for all."
        )
    return names
