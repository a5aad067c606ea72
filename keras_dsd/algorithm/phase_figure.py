"""The figure of a timeline: its phases, factors of the learning rate, and ramps of sparsity."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from keras_dsd.utils.figures import new_panels, shade

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Span(NamedTuple):
    """A phase as the figure shows it.

    Attributes:
        length: Its length, in epochs or steps.
        kind: `"dense"`, `"sparse"` or `"re-dense"`.
        title: The text above it.
        fractions: Fractions of the phase at which `factors` are known.
        factors: Factors of the learning rate there.
        shares: In equal parts of the phase, the sparsity as a share of its target.
    """

    length: int
    kind: str
    title: str
    fractions: Sequence[float]
    factors: Sequence[float]
    shares: Sequence[float]


def draw(spans: Sequence[Span], unit: str) -> "Figure":
    """Returns a figure of phases over epochs or steps, with a second panel if sparsity rises."""
    has_ramp = any(len(set(span.shares)) > 1 for span in spans)
    ratios = [3, 2] if has_ramp else [1]
    figure, panels = new_panels(len(ratios), 1, 8, 4 if has_ramp else 2.5, sharex=True,
                                height_ratios=ratios)  # fmt: skip
    _draw_learning_rates(panels[0, 0], spans)
    if has_ramp:
        _draw_ramps(panels[1, 0], spans)
    panels[-1, 0].set_xlim(0, sum(span.length for span in spans))
    panels[-1, 0].set_xlabel(unit)
    return figure


def _draw_learning_rates(axes: "Axes", spans: Sequence[Span]) -> None:
    start = 0
    for span in spans:
        shade(axes, start, start + span.length, span.kind, span.title)
        axes.plot([start + each * span.length for each in span.fractions], span.factors,
                  color="black")  # fmt: skip
        start += span.length
    axes.set_yscale("log")
    axes.set_ylabel("learning rate\nfactor")


def _draw_ramps(axes: "Axes", spans: Sequence[Span]) -> None:
    shares: list[float] = []
    edges = [0.0]
    for span in spans:
        start = edges[-1]
        shade(axes, start, start + span.length, span.kind, "")
        shares += span.shares
        parts = range(1, len(span.shares) + 1)
        edges += [start + part * span.length / len(span.shares) for part in parts]
    axes.stairs(shares, edges, baseline=None, color="black")
    axes.set_ylim(-0.05, 1.1)
    axes.set_ylabel("sparsity\n(of target)")
