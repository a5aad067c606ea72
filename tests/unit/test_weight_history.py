"""Histograms around boundaries, without those of an earlier run."""

import errno
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_dsd as dsd
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.algorithm.patterns import NM
from keras_dsd.engine.observers import Moment
from keras_dsd.visualization.histogram import histogram, histogram_of, total
from tests.helpers.device_cases import DTYPES
from tests.helpers.numpy_arrays import NumPyArrays
from tests.helpers.ranked_weight import RankedWeight
from tests.helpers.strange import is_refused
from tests.helpers.strange import values as anything

BEFORE, AFTER, END, FIRST, LAST = NAMES = (
    "before pruning", "after pruning", "end of sparse", "first re-dense epoch",
    "last re-dense epoch",
)  # fmt: skip
ONE = [*zip(NAMES, (1, 1, 1, 2, 2), strict=True)]
DENSE, SPARSE = dsd.DensePhase(2), dsd.SparsePhase(2)
TIMELINE = dsd.DSDSchedule(phases=[DENSE, SPARSE, DENSE]).timeline


def weight_of(values, mask=None, **options):
    mask = None if mask is None else np.asarray(mask, bool)
    return RankedWeight(np.asarray(values), Layout((), (0,), (1,)), mask, **options)


def run(kept, moments, timeline=TIMELINE):
    """Tells `kept` of moments: name, phase, and the weights then."""
    kept.on_begin(timeline)
    for epoch, (name, phase, *weights) in enumerate(moments):
        kept.on_moment(Moment(name, epoch, phase), weights)
    return kept


VALUES, MASK = [[1.0, -2.0, 3.0], [-0.5, 0.25, 8.0]], [[0, 1, 1], [0, 0, 1]]
PRUNED, BACK = np.multiply(VALUES, MASK), [[0.5, -4.0, 3.0], [2.0, 0.0, 8.0]]


def of_one(weight=VALUES, pruned=PRUNED, mask=MASK, back=BACK, sparse=1, **options):
    held = weight_of(pruned, mask, **options)
    free = weight_of(back, **options)
    return [(BEFORE, sparse, weight_of(weight, **options)), (AFTER, sparse, held),
            (END, sparse, held), (FIRST, sparse + 1, free), (LAST, sparse + 1, free)]  # fmt: skip


def names_of(kept):
    return [(snapshot.name, snapshot.phase) for snapshot in kept.snapshots]


FLOATS = st.one_of(
    st.floats(width=64),
    st.sampled_from([0.0, -0.0, 5e-324, -1e-310, 1e308, np.inf, -np.inf, np.nan, 0.125, -0.125]),
)


def counted(values, edges):
    """Counts of nonzero values between edges, by comparing each with all."""
    present = values[(values != 0) & np.isfinite(values)]
    return [int(np.sum((present >= a) & (present < b))) for a, b in itertools.pairwise(edges)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(FLOATS.filter(lambda v: not 1e300 < abs(v) < np.inf), max_size=20),
                min_size=1, max_size=3), st.floats(0, 10))  # fmt: skip
def test_every_value_is_counted_once_and_in_its_bin(tensors, threshold):
    tensors = [np.array(each, float) for each in tensors]
    found = [histogram(each, threshold=threshold) for each in tensors]
    for each, values in [
        *zip(found, tensors, strict=True), (total(found), np.concatenate(tensors)),
    ]:  # fmt: skip
        assert each.size == values.size
        assert each.num_zeros == np.sum(values == 0)
        assert each.num_not_finite == np.sum(~np.isfinite(values))
        finite = values[np.isfinite(values)]
        assert each.num_large == np.sum(np.abs(finite) >= threshold)
        assert list(each.counts) == counted(values, each.edges)
        assert sum(each.counts) == np.sum(finite != 0)


ELSEWHERE = NumPyArrays(on_host=False)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*DTYPES]), st.lists(st.tuples(FLOATS, st.booleans()), max_size=20),
       st.one_of(st.none(), st.floats(0, 10)), st.booleans())  # fmt: skip
def test_devices_count_as_numpy_does(dtype, pairs, threshold, is_kept):
    values = np.array([value for value, _ in pairs]).astype(DTYPES[dtype])
    mask = np.array([kept for _, kept in pairs], bool)
    weight = weight_of(values, arrays=ELSEWHERE)
    assert histogram_of(weight, threshold=threshold) == histogram(values, None, threshold)
    found = histogram_of(weight, mask, is_kept, threshold=threshold)
    assert found == histogram(values, mask if is_kept else ~mask, threshold)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bins_are_fine_enough_and_a_tensor_may_be_large(dtype):
    values = np.random.default_rng(0).normal(size=(2**20 + 3, 2)).astype(dtype)
    chosen = values[:, ::-1] > 0
    found, part = histogram(values), histogram(values, chosen)
    assert 100 < len(found.counts) <= 256
    assert np.array_equal(np.histogram(values[values != 0], found.edges)[0], found.counts)
    assert part.size == np.count_nonzero(chosen)
    assert np.array_equal(np.histogram(values[chosen & (values != 0)], part.edges)[0], part.counts)
    median = np.median(np.abs(values.astype(float)))
    assert abs(found.quantile(0.5) - median) < 2.0**found.exponent


def test_quantiles_count_zeros_and_go_to_the_ends():
    found = histogram(np.array([0.0, 0.0, 1.0, 1.0]))
    width = 2.0**found.exponent
    assert [found.quantile(q) for q in (0, 0.5, 0.75, 1)] == [0, 0, 1 + width / 2, 1 + width]
    assert np.isnan(histogram(np.array([np.nan])).quantile(0.5))
    assert np.isnan(histogram(np.array([])).quantile(0.5))


def test_regrown_weights_are_distinguished_until_the_dense_phase_ends():
    kept = run(dsd.WeightHistory(), of_one())
    assert names_of(kept) == ONE
    before, *others = [snapshot.weights[0] for snapshot in kept.snapshots]
    assert (before.threshold, before.stayed, before.returned) == (None, None, None)
    assert [weight.threshold for weight in others] == [2.0] * 4
    assert [weight.num_pruned for weight in (before, *others)] == [0, 3, 3, 0, 0]
    last = others[-1]
    assert last.returned == histogram(np.array([0.5, 2.0, 0.0]), threshold=2.0)
    assert last.stayed == histogram(np.array([-4.0, 3.0, 8.0]), threshold=2.0)
    assert (last.returned.num_large, last.returned.num_zeros, last.stayed.num_large) == (1, 1, 3)


def test_weights_on_devices_are_kept_as_they_are_and_the_chief_writes(tmp_path):
    kept = dsd.WeightHistory(tmp_path / "weights.json")
    kept.is_chief = False
    run(kept, of_one(arrays=ELSEWHERE))
    assert kept.snapshots == run(dsd.WeightHistory(), of_one()).snapshots
    assert not list(tmp_path.iterdir())


def test_a_weight_that_is_kept_whole_stays():
    moments = [(name, phase, weight, weight_of([1.0, 2.0], path="whole/kernel"))
               for name, phase, weight in of_one()]  # fmt: skip
    kept = run(dsd.WeightHistory(), moments)
    for snapshot in kept.snapshots[1:]:
        whole = snapshot.weights[1]
        assert (whole.stayed.size, whole.returned.size, whole.num_pruned) == (2, 0, 0)
        assert snapshot.note == ""


def test_nan_is_counted_apart():
    kept = run(dsd.WeightHistory(), of_one(back=[[np.nan, 1.0, np.inf], [0.0, 1.0, 2.0]]))
    last = kept.snapshots[-1].weights[0]
    assert (last.values.num_not_finite, last.values.num_zeros, last.values.size) == (2, 1, 6)
    assert last.stayed.num_not_finite == last.returned.num_not_finite == 1


def test_a_pattern_has_no_threshold():
    kept = run(dsd.WeightHistory(), of_one(pattern=NM(2, 4)))
    weights = [snapshot.weights[0] for snapshot in kept.snapshots]
    assert [weight.threshold for weight in weights] == [None] * 5
    assert weights[-1].returned.num_large is None and weights[-1].returned.size == 3


def test_a_run_may_take_several_fits():
    kept = dsd.WeightHistory()
    for moment in of_one():
        run(kept, [moment])
    whole = run(dsd.WeightHistory(), of_one())
    assert [each.weights for each in kept.snapshots] == [each.weights for each in whole.snapshots]


def test_a_run_resumed_after_weights_regrew_reports_them_as_unknown(tmp_path):
    run(dsd.WeightHistory(tmp_path / "weights.json"), of_one()[:4])
    kept = run(dsd.WeightHistory(tmp_path / "weights.json"), of_one()[4:])
    *_, first, last = kept.snapshots
    assert names_of(kept) == ONE
    assert first.note == "" and "regrown weights are unknown" in last.note
    (weight,) = last.weights
    assert weight.returned is weight.stayed is None
    assert weight.threshold == 2.0 and weight.values == first.weights[0].values


def test_a_mask_that_the_run_ended_with_is_not_taken_for_that_of_another():
    kept = run(dsd.WeightHistory(), of_one()[:2])
    run(kept, of_one()[4:])
    assert kept.snapshots[-1].weights[0].returned is None


def test_repeated_phases_are_kept_each_with_its_own_mask():
    gentle = np.array([[0, 1, 1], [1, 1, 1]])
    again = of_one(sparse=3, mask=gentle, pruned=gentle * BACK)
    again[0] = (BEFORE, 3, weight_of(BACK))
    timeline = dsd.DSDSchedule(phases=[DENSE, SPARSE] * 2 + [DENSE]).timeline
    kept = run(dsd.WeightHistory(), [*of_one(), *again], timeline)
    assert names_of(kept) == [*ONE, *((name, phase + 2) for name, phase in ONE)]
    assert [snapshot.sparse_phase for snapshot in kept.snapshots] == [1] * 5 + [3] * 5
    sizes = [w.returned and w.returned.size for s in kept.snapshots for w in s.weights]
    assert sizes == [None, 3, 3, 3, 3, None, 1, 1, 1, 1]
    assert [s.weights[0].threshold for s in kept.snapshots[6:]] == [0.0] * 4


def test_a_new_run_keeps_nothing_of_the_one_before():
    kept = run(dsd.WeightHistory(), of_one())
    run(kept, of_one(weight=BACK)[:2])
    assert names_of(kept) == [(BEFORE, 1), (AFTER, 1)]
    assert kept.snapshots[0].weights[0].values == histogram(np.array(BACK))


def test_nothing_is_kept_of_another_model():
    kept = run(dsd.WeightHistory(), of_one()[:3])
    run(kept, of_one(path="b/kernel")[3:])
    assert names_of(kept) == [(FIRST, 2), (LAST, 2)]


def test_a_history_of_other_phases_is_refused_and_stays(tmp_path):
    path = tmp_path / "weights.json"
    run(dsd.WeightHistory(path), of_one())
    text, kept = path.read_text(), dsd.WeightHistory(path)
    with pytest.raises(ValueError, match=r"Expected .* same phases .*Received: .* Create a new"):
        kept.on_begin(dsd.DSDSchedule(1, 1, 1).timeline)
    assert path.read_text() == text and len(kept.snapshots) == 5


def test_a_file_is_whole_after_each_moment_and_gone_on_from(tmp_path):
    path = tmp_path / "run" / "weights.json"
    kept = run(dsd.WeightHistory(path), of_one()[:3])
    data = json.loads(path.read_text())
    assert data == kept.to_dict() == json.loads(kept.to_json())
    assert [snapshot["name"] for snapshot in data["snapshots"]] == [*NAMES[:3]]
    again = dsd.WeightHistory(str(path))
    assert again.snapshots == kept.snapshots
    run(again, of_one()[2:])
    assert again.snapshots[-1].weights == run(dsd.WeightHistory(), of_one()).snapshots[-1].weights
    assert dsd.WeightHistory(path).snapshots == again.snapshots
    assert [each.name for each in path.parent.iterdir()] == ["weights.json"]
    assert again.snapshots[-1].weights[0].threshold == 2.0


def test_a_file_that_can_not_be_written_is_named_as_the_run_starts(tmp_path, monkeypatch):
    kept = dsd.WeightHistory(tmp_path / "weights.json")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match=r"Expected a writable .* No space left"):
        kept.on_begin(TIMELINE)


GOOD = run(dsd.WeightHistory(), of_one()).to_json()


@pytest.mark.parametrize("text", [
    "", "{", "[]", "3", "{}", GOOD[:-9], GOOD.replace(BEFORE, "lunch"), "[" * 10_000,
    *(GOOD.replace('"num_zeros": 3', f'"num_zeros": {number}') for number in (2, -3, "true")),
    GOOD.replace('"phase": 1', '"phase": "1"'), GOOD.replace('"path": "a/kernel"', '"path": 3'),
    GOOD.replace('"note"', '"noise"'), GOOD.replace('"counts": [', '"counts": [0.5, '),
])  # fmt: skip
def test_other_files_are_refused(text, tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"Expected `path` .*Received: path=.* another path\."):
        dsd.WeightHistory(path)
    assert path.read_text() == text


def test_a_folder_is_refused_and_so_is_a_path_too_long_which_is_not_repeated(tmp_path):
    with pytest.raises(
        ValueError, match=r"Expected `path` .*Received: path=.* another path\."
    ) as said:
        dsd.WeightHistory("a" * 10_000)
    assert len(str(said.value)) < 1000
    with pytest.raises(ValueError, match=r"Expected `path` .*Received: path=.* another path\."):
        dsd.WeightHistory(tmp_path)


@settings(max_examples=100, deadline=None)
@given(anything())
def test_whatever_is_given_for_the_path_is_a_new_file_or_refused(value):
    is_refused(lambda: dsd.WeightHistory(value))
