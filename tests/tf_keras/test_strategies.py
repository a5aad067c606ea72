"""Strategies of tf.distribute on two logical devices, which only a fresh process can set up."""

import json

import numpy as np
import pytest

# Each trains for 6 epochs of 5 batches, of which epochs 2 and 3 are sparse.
STRATEGIES = ["one_device", "mirrored", "central_storage"]
pytestmark = pytest.mark.slow
# Of one replica there is no more to see than without a strategy.
MARKS = {"one_device": [pytest.mark.exhaustive], "mirrored": [], "central_storage": []}
# What a mask adds to a step on each replica: it is read, multiplied with the weight and assigned.
OPERATIONS_OF_A_MASK = {
    "Placeholder", "ReadVariableOp", "SelectV2", "AssignVariableOp", "Const",
}  # fmt: skip
# What multiplies the learning rate is read, and multiplied where a weight is updated.
OPERATIONS_OF_THE_FACTOR = {"Placeholder", "ReadVariableOp", "Mul"}


@pytest.fixture(params=[pytest.param(s, marks=MARKS[s]) for s in STRATEGIES])
def strategy(request):
    return request.param


def run(folder, strategy):
    return np.load(folder / f"{strategy}.npz")


def differing(counts, others):
    """Returns the kinds of operations that are there more or less often than in another step."""
    kinds = counts.keys() | others.keys()
    return {kind for kind in kinds if counts.get(kind) != others.get(kind)}


def num_replicas(strategy):
    """Returns how often a variable is there."""
    return 2 if strategy == "mirrored" else 1


def test_replicas_train_as_one_device_does(strategy_runs, strategy):
    one, several = run(strategy_runs, "one"), run(strategy_runs, strategy)
    names = [name for name in one if name.startswith("arr_")]
    assert len(names) == 6
    for name in names:
        np.testing.assert_allclose(several[name], one[name], rtol=0, atol=1e-5)
    np.testing.assert_allclose(several["values"][:, 0], one["values"][:, 0], rtol=0, atol=1e-5)


def test_every_replica_holds_the_same_mask_at_every_batch_end(strategy_runs, strategy):
    one, several = run(strategy_runs, "one"), run(strategy_runs, strategy)
    assert several["masks"].shape == (30, num_replicas(strategy), 1184)
    for replica in range(num_replicas(strategy)):
        np.testing.assert_array_equal(several["masks"][:, replica], one["masks"][:, 0])
    num_pruned = round(1024 * 0.4) + round(160 * 0.4)
    assert (several["masks"][10:20] == 0).sum(axis=2).tolist() == (
        [[num_pruned] * num_replicas(strategy)] * 10
    )
    assert several["masks"][:10].all() and several["masks"][20:].all()


def test_every_replica_holds_the_same_random_mask(strategy_runs, strategy):
    one, several = run(strategy_runs, "one"), run(strategy_runs, strategy)
    assert several["random_masks"].shape == (num_replicas(strategy), 64, 16)
    assert (several["random_masks"] == one["random_masks"]).all()
    assert (~one["random_masks"]).sum() == round(1024 * 0.4)


def check_ways(one, several):
    """Asserts that gradients were summed, and weights averaged, as on one device."""
    names = [name for name in one if name.startswith("ways_")]
    assert len(names) == 6
    for name in names:
        np.testing.assert_allclose(several[name], one[name], rtol=0, atol=1e-5)
    assert np.count_nonzero(several["ways_0"] == 0) == round(round(1024 * 0.4) * 0.5)


def test_replicas_sum_gradients_and_average_as_one_device_does(strategy_runs, strategy):
    check_ways(run(strategy_runs, "one"), run(strategy_runs, strategy))


def test_every_replica_holds_its_zeros_at_every_batch_end(strategy_runs, strategy):
    several = run(strategy_runs, strategy)
    np.testing.assert_array_equal(several["values"][10:20] == 0, several["masks"][10:20] == 0)
    assert (several["values"][20:] != 0).sum() > (several["masks"][10:20] != 0).sum()


def test_masks_add_no_communication_to_the_step(strategy_runs, strategy):
    counts = json.loads((strategy_runs / f"{strategy}.json").read_text())
    assert counts["0"] == counts["5"]
    assert differing(counts["0"], counts["plain"]) == OPERATIONS_OF_THE_FACTOR
    assert differing(counts["3"], counts["0"]) == OPERATIONS_OF_A_MASK
    assert counts["3"].keys() >= counts["plain"].keys()


@pytest.mark.parametrize(
    ("name", "operation"), [("mirrored", "CollectiveReduceV2"), ("central_storage", "AddN")]
)
def test_the_step_that_is_counted_communicates(name, operation, strategy_runs):
    """Otherwise the test above would compare nothing."""
    assert json.loads((strategy_runs / f"{name}.json").read_text())["3"][operation] > 0


def test_the_pruning_of_tfmot_communicates_for_each_weight(strategy_runs):
    """Variables that this step does not use: the masks of both weights, and their thresholds."""
    counts = json.loads((strategy_runs / "mirrored.json").read_text())
    assert counts["tfmot"]["CollectiveReduceV2"] == counts["plain"]["CollectiveReduceV2"] + 4


def test_replicas_make_one_step_together(strategy_runs, strategy):
    """Phases in steps start within the same epochs as on one device, on every replica."""
    one, several = run(strategy_runs, "one"), run(strategy_runs, strategy)
    assert [*several["steps_made"]] == [5, 10]
    for replica in range(num_replicas(strategy)):
        values, masks = several["steps_values"][:, replica], several["steps_masks"][:, replica]
        np.testing.assert_array_equal(masks, one["steps_masks"][:, 0])
        np.testing.assert_array_equal(masks.all(axis=1), [True] * 3 + [False] * 4 + [True] * 3)
        assert not values[masks == 0].any()
        np.testing.assert_allclose(values, one["steps_values"][:, 0], rtol=0, atol=1e-5)


def test_a_custom_loop_trains_as_on_one_device(strategy_runs, strategy):
    one, several = run(strategy_runs, "one"), run(strategy_runs, strategy)
    assert several["loop_values"].shape == (15, num_replicas(strategy), 1184)
    for replica in range(num_replicas(strategy)):
        values, masks = several["loop_values"][:, replica], several["loop_masks"][:, replica]
        np.testing.assert_array_equal(masks, one["loop_masks"][:, 0])
        np.testing.assert_array_equal(values[5:10] == 0, masks[5:10] == 0)
        np.testing.assert_allclose(values, one["loop_values"][:, 0], rtol=0, atol=1e-5)


def test_what_is_stripped_is_exported(strategy_runs, strategy):
    several = run(strategy_runs, strategy)
    np.testing.assert_allclose(several["exported"], several["predicted"], rtol=0, atol=1e-5)
    assert several["exported"].shape == (320, 10)


def test_statistics_of_batches_are_those_of_one_device(strategy_runs, strategy):
    one, several = (
        run(strategy_runs, "one")["statistics"],
        run(strategy_runs, strategy)["statistics"],
    )
    assert several.shape[1] == num_replicas(strategy)
    assert np.abs(one[0]).min() > 0 and np.abs(one[1] - 1).min() > 0
    np.testing.assert_allclose(several, np.repeat(one, several.shape[1], 1), rtol=1e-5, atol=1e-6)
