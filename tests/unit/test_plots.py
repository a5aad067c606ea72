"""Contents of the figures of runs."""

import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_dsd as dsd
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.engine.observers import Moment
from keras_dsd.visualization.histogram import histogram
from tests.helpers.ranked_weight import RankedWeight
from tests.helpers.strange import is_refused
from tests.helpers.strange import values as anything

pytest.importorskip("matplotlib")

NAMES = (
    "before pruning", "after pruning", "end of sparse", "first re-dense epoch",
    "last re-dense epoch",
)  # fmt: skip
TITLES = [
    "before pruning (1 epochs trained)", "after pruning (1 epochs trained)",
    "end of sparse (2 epochs trained)", "first re-dense epoch (3 epochs trained)",
    "last re-dense epoch (4 epochs trained)",
]  # fmt: skip
PHASES = [dsd.DensePhase(1), dsd.SparsePhase(1), dsd.DensePhase(2)]
EPOCHS = (1, 1, 2, 3, 4)


def weight_of(path, values, mask=None):
    return RankedWeight(values, Layout((), (0,), (1,)), mask, path=path)


class Run:
    """A run of two weights, in numbers: at each moment their values, and what the masks keep."""

    def __init__(self, cycles=1, scale=1.0):
        random = np.random.default_rng(0)
        shapes = {"a/kernel": (40, 25), "b/kernel": (30, 10)}
        self.kept, self.values, self.masks = dsd.WeightHistory(), {}, {}
        self.kept.on_begin(dsd.DSDSchedule(phases=PHASES).timeline)
        dense = {path: scale * random.normal(size=shape) for path, shape in shapes.items()}
        self.masks = {
            path: np.abs(each) > np.quantile(np.abs(each), 0.3) for path, each in dense.items()
        }
        pruned = {path: each * self.masks[path] for path, each in dense.items()}
        back = {p: each + 0.01 * ~self.masks[p] * dense[p] for p, each in pruned.items()}
        end = {p: each + 0.9 * ~self.masks[p] * random.normal(size=each.shape)
               for p, each in pruned.items()}  # fmt: skip
        end["a/kernel"][:5] *= self.masks["a/kernel"][:5]  # behind dead inputs
        for cycle in range(cycles):
            moments = zip(NAMES, EPOCHS, (dense, pruned, pruned, back, end), strict=True)
            for name, epoch, values in moments:
                held = self.masks if values is pruned else {}
                weights = [weight_of(path, each, held.get(path)) for path, each in values.items()]
                phase = 2 * cycle + 1 + ("re-dense" in name)
                self.kept.on_moment(Moment(name, epoch, phase), weights)
                self.values[name] = values


@pytest.fixture(scope="module")
def run():
    return Run()


def stairs_of(axes):
    """The heights and the edges of the drawn stairs, each with its baseline."""
    return [patch.get_data() for patch in axes.patches if hasattr(patch, "get_data")]


def bar_of(axes):
    return [patch.get_height() for patch in axes.patches if not hasattr(patch, "get_data")]


def legend_of(axes):
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def counted(values, edges):
    return np.histogram(values[values != 0], edges)[0]


def test_there_is_a_panel_for_each_moment_with_all_weights_counted(run, tmp_path):
    figure = dsd.plots.weight_distributions(run.kept)
    assert [axes.get_title() for axes in figure.axes] == TITLES
    assert [text.get_text() for text in figure.texts] == [
        "value", "number of weights", "all weights that DSD prunes",
    ]  # fmt: skip
    for name, axes in zip(NAMES, figure.axes, strict=True):
        values = np.concatenate([each.ravel() for each in run.values[name].values()])
        upper, lower = stairs_of(axes)
        assert np.array_equal(upper.values, counted(values, upper.edges))
        assert upper.values.sum() == np.count_nonzero(values)
        assert np.array_equal(upper.baseline, lower.values)
        assert bar_of(axes) == [np.sum(values == 0)]
    figure.savefig(tmp_path / "weights.png")


def test_regrown_weights_have_a_separate_colour_and_counts_in_the_legend(run):
    *_, after, _, _, last = dsd.plots.weight_distributions(run.kept, "b/kernel").figure.axes
    assert legend_of(after) == ["210 others (70%)", "90 at zero (30%)"]
    _, lower = stairs_of(last)
    returned = run.values["last re-dense epoch"]["b/kernel"][~run.masks["b/kernel"]]
    assert np.array_equal(lower.values, counted(returned, lower.edges))
    assert legend_of(last) == ["210 others (70%)", "90 regrown (30%)"]
    colours = [patch.get_facecolor() for patch in last.patches]
    assert len(set(colours[:3])) == 3


def test_the_panels_have_the_same_axes_which_the_pruned_do_not_crush(run):
    figure = dsd.plots.weight_distributions(run.kept)
    assert len({(*axes.get_xlim(), *axes.get_ylim()) for axes in figure.axes}) == 1
    assert len({tuple(np.diff(stairs_of(axes)[0].edges)[:1]) for axes in figure.axes}) == 1
    before, after = (stairs_of(axes)[0].values.max() for axes in figure.axes[:2])
    assert max(before, after) < figure.axes[0].get_ylim()[1] < bar_of(figure.axes[1])[0]
    assert figure.axes[0].get_ylim()[1] < stairs_of(figure.axes[3])[0].values.max()
    values = np.concatenate([each.ravel() for each in run.values["before pruning"].values()])
    assert np.quantile(np.abs(values), 0.99) < figure.axes[0].get_xlim()[1]


def test_weights_that_grew_are_drawn_in_the_bins_of_the_largest():
    values, kept = np.random.default_rng(0).normal(size=(40, 25)), dsd.WeightHistory()
    for epoch, factor in enumerate((1, 8, 2)):
        moment = Moment(NAMES[0], epoch, 1 + 2 * epoch)
        kept.on_moment(moment, [weight_of("a", factor * values)])
    found = [stairs_of(axes)[0] for axes in dsd.plots.weight_distributions(kept).axes]
    assert len({stairs.edges[1] - stairs.edges[0] for stairs in found}) == 1
    for factor, stairs in zip((1, 8, 2), found, strict=True):
        assert np.array_equal(stairs.values, counted(factor * values, stairs.edges))


def test_one_weight_is_drawn_by_its_path(run):
    figure = dsd.plots.weight_distributions(run.kept.snapshots[:1], "a/kernel")
    (axes,) = figure.axes
    assert figure.texts[-1].get_text() == "a/kernel"
    assert stairs_of(axes)[0].values.sum() == 1000 and legend_of(axes) == []


def test_each_sparse_phase_has_a_column():
    kept = Run(cycles=2).kept
    figure = dsd.plots.weight_distributions(kept.snapshots[:-1])
    places = [axes.get_subplotspec().get_geometry()[2] for axes in figure.axes]
    assert figure.axes[0].get_subplotspec().get_geometry()[:2] == (5, 2)
    assert places == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    figure = dsd.plots.returned_weights(kept)
    assert [legend_title(axes) for axes in figure.axes] == [*TITLES[3:4] * 2, *TITLES[4:] * 2]


@pytest.mark.parametrize("returned", [1.0, 0.0])
@pytest.mark.parametrize("fill", [np.nan, 0.0, 1e-320, 1e300])
def test_whatever_weights_hold_is_drawn(fill, returned, tmp_path):
    kept, mask = dsd.WeightHistory(), np.eye(2, dtype=bool)
    values = np.where(mask, fill, returned * fill)
    kept.on_moment(Moment("end of sparse", 1, 0), [weight_of("a", values, mask)])
    kept.on_moment(Moment("last re-dense epoch", 2, 1), [weight_of("a", values)])
    for draw in (dsd.plots.weight_distributions, dsd.plots.returned_weights):
        draw(kept).savefig(tmp_path / "weights.png")


def legend_title(axes):
    return axes.get_legend().get_title().get_text()


def test_what_returned_is_set_against_what_stayed(run, tmp_path):
    figure = dsd.plots.returned_weights(run.kept, "a/kernel")
    assert [legend_title(axes) for axes in figure.axes] == TITLES[3:]
    mask = run.masks["a/kernel"]
    threshold = np.abs(run.values["before pruning"]["a/kernel"][mask]).min()
    for name, axes in zip(NAMES[3:], figure.axes, strict=True):
        values = np.abs(run.values[name]["a/kernel"])
        stayed, middle, returned, middle_returned, dotted = axes.lines
        assert stayed.get_color() == middle.get_color() == "tab:blue"
        assert returned.get_color() == middle_returned.get_color() == "tab:orange"
        for line, dashed, group in (
            (stayed, middle, values[mask]), (returned, middle_returned, values[~mask]),
        ):  # fmt: skip
            ends, shares = line.get_data()
            assert np.allclose(shares, [100 * np.mean(group < end) for end in ends])
            assert shares[-1] == 100
            width = 2.0 ** histogram(group).exponent
            assert abs(dashed.get_xdata()[0] - np.median(group)) < width
        assert list(dotted.get_xdata()) == [threshold] * 2
        share, zero = np.mean(values[~mask] >= threshold), np.mean(values[~mask] == 0)
        medians = [line.get_xdata()[0] for line in (middle, middle_returned)]
        assert legend_of(axes) == [
            f"kept (700): median {medians[0]:.2g}\n0.0% zero, 100.0% above the pruning threshold",
            f"regrown (300): median {medians[1]:.2g}\n{zero:.1%} zero, {share:.1%} above the "
            f"pruning threshold",
            "pruning threshold",
        ]
    figure.savefig(tmp_path / "returned.png")


def test_of_all_weights_each_counts_by_its_own_threshold(run):
    last = dsd.plots.returned_weights(run.kept).axes[-1]
    large = 0
    for path, mask in run.masks.items():
        threshold = np.abs(run.values["before pruning"][path][mask]).min()
        large += np.sum(np.abs(run.values["last re-dense epoch"][path][~mask]) >= threshold)
    assert len(last.lines) == 4 and 0 < large < 390
    assert legend_of(last)[1].endswith(f", {large / 390:.1%} above the pruning threshold")


def test_where_a_weight_has_no_threshold_no_share_is_above_it():
    kept, masks = dsd.WeightHistory(), {"a": np.eye(2, dtype=bool), "b": np.zeros((2, 2), bool)}
    held = [weight_of(path, 1.0 * mask, mask) for path, mask in masks.items()]
    kept.on_moment(Moment("after pruning", 1, 1), held)
    kept.on_moment(Moment("end of sparse", 2, 1), held)
    kept.on_moment(
        Moment("last re-dense epoch", 2, 2), [weight_of(p, np.ones((2, 2))) for p in masks]
    )
    (axes,) = dsd.plots.returned_weights(kept).axes
    assert [text.rpartition("\n")[2] for text in legend_of(axes)] == ["0.0% zero"] * 2
    (axes,) = dsd.plots.returned_weights(kept, "a").axes
    assert legend_of(axes)[0].endswith("0.0% zero, 100.0% above the pruning threshold")


def test_what_is_not_known_to_have_returned_is_not_drawn(run):
    kept = dsd.WeightHistory()
    kept.on_moment(Moment("first re-dense epoch", 1, 1), [weight_of("a", np.ones((2, 2)))])
    with pytest.raises(ValueError, match="Expected .*regrown weights are unknown.*Give"):
        dsd.plots.returned_weights(kept)
    with pytest.raises(ValueError, match="Expected .*it has no re-dense epoch. Give"):
        dsd.plots.returned_weights(run.kept.snapshots[:3])
    (axes,) = dsd.plots.weight_distributions(kept).axes
    assert stairs_of(axes)[0].values.sum() == 4


@pytest.mark.parametrize("draw", ["weight_distributions", "returned_weights"])
def test_weights_that_were_not_watched_are_refused(run, draw):
    draw = getattr(dsd.plots, draw)
    with pytest.raises(ValueError, match=r"Expected .*a/kernel, b/kernel\. Received: path='c'"):
        draw(run.kept, "c")
    with pytest.raises(ValueError, match="Expected .*have snapshots.*Received: .*observers="):
        draw(dsd.WeightHistory())
    for bad in (3, "abc", None, [3]):
        with pytest.raises(TypeError, match="Expected `weights`.*Received: weights=.* Give that"):
            draw(bad)
    with pytest.raises(TypeError, match="Expected `path`.*Received: path=3 of type int"):
        draw(run.kept, 3)


LOGS = {
    "loss": [4.0, 3.0, 2.0, 1.0, 0.5], "val_loss": [5.0, 4.0, 3.0, 2.0, 1.0],
    "accuracy": [0.1, 0.2, 0.3, 0.4, 0.5], "learning_rate": [0.1] * 5, "lr": [0.1] * 5,
    "dsd_phase": [0, 0, 1, 2, 2], "dsd_sparsity": [0.02, 0.02, 0.3, 0.1, 0.05],
    "dsd_epochs_left": [1, 0, 0, 1, 0],
}  # fmt: skip


def spans_of(axes):
    # matplotlib before 3.9 made a span a polygon.
    boxes = [patch.get_path().get_extents(patch.get_patch_transform()) for patch in axes.patches]
    return [(box.x0, box.x1) for box in boxes]


def kinds_of(axes):
    import matplotlib.colors

    colours = {
        matplotlib.colors.to_hex(f"tab:{name}"): name for name in ("blue", "orange", "green")
    }
    return [colours[matplotlib.colors.to_hex(patch.get_facecolor())] for patch in axes.patches]


def test_each_metric_has_axes_with_the_phases_shaded(tmp_path):
    figure = dsd.plots.learning_curves(LOGS)
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    training, validation = loss.lines
    assert [list(each) for each in training.get_data()] == [[1, 2, 3, 4, 5], LOGS["loss"]]
    assert [list(each) for each in validation.get_data()] == [[1, 2, 3, 4, 5], LOGS["val_loss"]]
    assert training.get_linestyle() != validation.get_linestyle()
    assert legend_of(loss) == ["training", "validation"] and legend_of(accuracy) == ["training"]
    for axes in figure.axes:
        assert spans_of(axes) == [(0, 2), (2, 3), (3, 5)]
        assert kinds_of(axes) == ["blue", "orange", "green"]
    assert [text.get_text() for text in loss.texts] == ["dense", "sparse", "re-dense"]
    assert not accuracy.texts
    assert loss.get_xlim() == (0, 5) and accuracy.get_xlabel() == "epochs trained"
    figure.savefig(tmp_path / "curves.png")


def test_the_colours_are_those_of_the_timeline():
    timeline = dsd.DSDSchedule(2, 1, 2).timeline
    (axes,) = dsd.plots.learning_curves(LOGS, ["loss"], timeline).axes
    assert kinds_of(axes) == kinds_of(timeline.plot().axes[0])


def test_a_run_that_resumed_starts_where_it_did():
    history = types.SimpleNamespace(
        history={name: values[1:] for name, values in LOGS.items()}, epoch=[11, 12, 13, 14]
    )
    (axes,) = dsd.plots.learning_curves(history, ["loss"]).axes
    assert list(axes.lines[0].get_xdata()) == [12, 13, 14, 15]
    assert spans_of(axes) == [(11, 12), (12, 13), (13, 15)]
    assert kinds_of(axes) == ["blue", "orange", "green"] and axes.get_xlim() == (11, 15)


@pytest.mark.parametrize(("phases", "sparsity", "kinds"), [
    ([0, 1, 2, 3, 4], [0.0, 0.5, 0.1, 0.25, 0.05], "DSRSR"),
    ([0, 0, 1, 1], [0.3, 0.3, 0.2, 0.0], "SR"),
    ([1, 1], [0.3, 0.3], "S"),
    ([0, 0], [0.0, 0.0], "D"),
    ([0, 1, 2], [0.0, 0.005, 0.005], "DDD"),
    ([0, 1, 2], [0.0, 0.3, 0.6], "DSS"),
])  # fmt: skip
def test_sparse_phases_are_inferred_from_the_measured_sparsity(phases, sparsity, kinds):
    logs = {"loss": [1.0] * len(phases), "dsd_phase": phases, "dsd_sparsity": sparsity}
    (axes,) = dsd.plots.learning_curves(logs).axes
    assert kinds_of(axes) == [{"D": "blue", "S": "orange", "R": "green"}[kind] for kind in kinds]


def test_what_is_validated_at_every_other_epoch_is_drawn_there():
    logs = {**LOGS, "val_loss": [4.0, 2.0]}
    _, validation = dsd.plots.learning_curves(logs, ["loss"]).axes[0].lines
    assert [list(each) for each in validation.get_data()] == [[2, 4], [4.0, 2.0]]


def test_the_timeline_says_what_the_sparsity_does_not():
    phases = [dsd.SparsePhase(1, sparsity=0.5), dsd.SparsePhase(1, sparsity=0.2), dsd.DensePhase(1)]
    logs = {"loss": [3.0, 2.0, 1.0], "dsd_phase": [0, 1, 2]}
    (axes,) = dsd.plots.learning_curves(logs, timeline=dsd.DSDSchedule(phases=phases)).axes
    assert kinds_of(axes) == ["orange", "orange", "green"]


def test_a_history_that_can_not_be_drawn_is_refused():
    draw = dsd.plots.learning_curves
    for logs in ({}, {"loss": [1.0]}, {"dsd_phase": []}):
        with pytest.raises(ValueError, match="Expected `history` .*Received: history of .* Call"):
            draw(logs)
    with pytest.raises(ValueError, match="Expected `history` .*dsd_sparsity"):
        draw({"loss": [1.0], "dsd_phase": [0]})
    with pytest.raises(
        ValueError, match=r"Expected history\['loss'\] .* 3 epochs.*Received: 2 values. Give"
    ):
        draw({"loss": [1.0, 2.0], "dsd_phase": [0] * 3, "dsd_sparsity": [0.0] * 3})
    with pytest.raises(TypeError, match=r"Expected `history\['loss'\]` .*Received: "):
        draw({**LOGS, "loss": ["a"] * 5})
    with pytest.raises(ValueError, match="Expected `metrics`"):
        draw({"dsd_phase": [0], "dsd_sparsity": [0.0]})
    for metrics in (["abc"], [], ["loss", 3], [[]]):
        with pytest.raises(ValueError, match="Expected .*`metrics`.*Received: metrics="):
            draw(LOGS, metrics)
    with pytest.raises(TypeError, match="Expected `metrics`.*Received: metrics='loss'"):
        draw(LOGS, "loss")
    with pytest.raises(TypeError, match="Expected `timeline`.*Received: timeline=3"):
        draw(LOGS, timeline=3)
    with pytest.raises(TypeError, match="Expected `history`.*Received: history=3"):
        draw(3)


FUNCTIONS = [getattr(dsd.plots, name) for name in dsd.plots.__all__]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FUNCTIONS), anything())
def test_whatever_is_given_to_draw_is_refused_as_it_should_be(draw, value):
    is_refused(lambda: draw(value))
    is_refused(lambda: dsd.plots.learning_curves(LOGS, value))
    is_refused(lambda: dsd.plots.learning_curves({**LOGS, "loss": value}, ["loss"]))
