"""The trials of benchmarks/studies: arms train alike, and DSD's are those of the library."""

import keras
import numpy as np
import pytest

from tests.helpers import benchmarks

BASE = (0.01, 1e-3)

pytestmark = pytest.mark.only_on("jax")


@pytest.fixture(scope="module")
def tasks():
    with benchmarks.imported(benchmarks.STUDIES, "tasks") as found:
        yield found["tasks"]


def read(path, seed):
    """Returns a split of 64 random images an epoch."""
    from trials import Split

    drawn = np.random.default_rng([seed, 9])
    x = drawn.integers(0, 256, (192, 784)).astype("uint8")
    y = drawn.integers(0, 10, 192).astype("int32")

    def epoch(number):
        order = np.random.default_rng([seed, number]).permutation(64)
        return x[order], y[order]

    return Split(epoch, (x[64:128], y[64:128]), (x[128:], y[128:]))


def build(setting):
    """Returns a network of two layers; the last one stays dense."""
    import building

    layers, dense = keras.layers, building.dense_with(setting)
    body = [layers.Input((784,), dtype="uint8"), layers.Rescaling(1 / 255), dense(8, "relu"),
            dense(10, name="last")]  # fmt: skip
    return building.classifier(body, setting, 32)


@pytest.fixture(scope="module")
def task(tasks):
    from protocol import Lengths

    return tasks.Task("toy", "a toy", "none", build, read, 32, Lengths(2, 2, 2),
                      bases=[BASE], sparsities=(0.5,), exclude=("last/",))  # fmt: skip


@pytest.fixture(scope="module")
def runs(task):
    from protocol import PLAIN, WORDS, Setting
    from trials import train_seed

    chosen = {arm: Setting(BASE[1], BASE[0], None if arm in PLAIN else 0.5) for arm in WORDS}
    return {run.arm: run for run in train_seed(task, None, 0, BASE, chosen)}


@pytest.mark.slow
def test_every_arm_makes_as_many_updates_and_is_measured_after_each_epoch(runs):
    first = runs.pop("first dense")
    assert first.num_updates == 2 * 2 and len(first.test) == 2
    for name, run in runs.items():
        assert run.num_updates == 2 * 6, name
        assert len(run.validation) == len(run.test) == len(run.train) == 6, name
        assert all(map(np.isfinite, (*run.validation, *run.test, *run.train, *run.error))), name
        shared = 1 if "one run" in name else 2
        assert run.validation[:shared] == first.validation[:shared], "all share the first epochs"
    runs["first dense"] = first


@pytest.mark.slow
def test_arms_differ_where_their_schedules_do(runs):
    same, dsd, pruned = runs["same rates"], runs["dsd"], runs["pruned"]
    assert same.validation[2] != dsd.validation[2]
    assert (
        dsd.validation[:4] == pruned.validation[:4] and dsd.validation[4:] != pruned.validation[4:]
    )
    assert runs["dsd, random masks"].validation[2] != dsd.validation[2]
    one, within = runs["one run"].validation, runs["dsd in one run"].validation
    pruned, at_random = (
        runs[name].validation for name in ("pruned in one run", "dsd in one run, random masks")
    )
    assert one[1] != within[1] == pruned[1] != at_random[1]
    assert within[:3] == pruned[:3] and within[3] != pruned[3]
    averaged = runs["same rates, averaged"]
    assert averaged.validation[:5] == pytest.approx(same.validation[:5])  # of one epoch: its own
    assert averaged.validation[5] != same.validation[5]


@pytest.mark.slow
def test_the_step_over_many_batches_is_that_of_fit(task, tasks):
    """Trains one epoch in one call of the step, and the same batches by Keras's own `fit`."""
    from protocol import Setting

    x, y = read(None, 0).epoch(0)
    trained = []
    for kind in ("scanned", "plain"):
        keras.utils.set_random_seed(0)
        model = build(Setting(*BASE[::-1]))
        if kind == "plain":
            plain = keras.Sequential(model.layers)
            plain.compile(keras.optimizers.SGD(BASE[0], momentum=0.9), model.loss)
            plain.fit(x, y, batch_size=32, shuffle=False, verbose=0)
        else:
            model.fit(x, y, batch_size=64, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_tuning_measures_validation_data_alone(task):
    from protocol import DSD
    from trials import Trainer

    trainer = Trainer(task, read(None, 1000), 1000, BASE, is_tuning=True)
    found = list(trainer.train([(DSD, 0.5)]))
    assert [run.arm for run in found] == ["first dense", DSD]
    assert all(not run.test and len(run.validation) in (2, 6) for run in found)


@pytest.mark.slow
@pytest.mark.parametrize("is_tuning", [False, True])
def test_a_seed_that_fails_counts_where_it_ends(task, is_tuning):
    from protocol import DSD
    from trials import Trainer

    trainer = Trainer(task, read(None, 0), 0, (1e30, 1e-3), is_tuning)
    (_, run) = trainer.train([(DSD, 0.5)])
    assert len(run.train) == len(run.validation) == 6
    assert len(run.test) == (0 if is_tuning else 6) and np.isnan(run.validation[-1])
    assert run.num_updates < 2 * 6
