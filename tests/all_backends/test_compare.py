"""A comparison trains what separate calls of `fit` would, on every path."""

import functools
import json

import numpy as np
import pytest

import keras_dsd as dsd
from keras_dsd.adapters import registry
from keras_dsd.analysis.comparison.arms import AVERAGED, FIRST, RANDOM, make_arms
from keras_dsd.analysis.comparison.training import Job, inspect, seed_at, train_seed
from tests.helpers import compared, unit_gradient
from tests.helpers.compared import FIT, PHASES, STEPS
from tests.helpers.paths import OPTIMIZERS, PATH, classifier, compiled, keras, seed

pytestmark = pytest.mark.once_per_keras

IN_ORDER = {**FIT, "shuffle": False}


class Watched:
    """Evaluates, and remembers with what weights each value on test data came about."""

    def __init__(self, data, path=None):
        self.data, self.path = data, path
        self.weights, self.num_calls = {}, 0

    def __call__(self, model, part):
        self.num_calls += 1
        if self.path is not None and len(trained_in(self.path)) == 5:
            raise KeyboardInterrupt
        value = compared.loss(model, part)
        if part is self.data["test"]:
            self.weights[value] = compared.trained(model)
        return value

    def at_the_end(self, result, seed, arm):
        return self.weights[run_of(result, seed, arm).test_last]


def trained_in(path):
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    return [(run["seed"], run["arm"]) for run in runs]


def run_of(result, seed, arm):
    (found,) = [run for run in result.runs if (run.seed, run.arm) == (seed, arm)]
    return found


@pytest.fixture(scope="module")
def data():
    return compared.data()


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A comparison that was killed in the second seed's DSD arm, and resumed."""
    path = tmp_path_factory.mktemp("compare") / "comparison.json"
    options = {"phases": PHASES, "seeds": 2, "arms": ("dense", "dsd"), "path": path,
               "fit_options": IN_ORDER, "progress": False}  # fmt: skip
    watched = Watched(data, path)
    with pytest.raises(KeyboardInterrupt):
        dsd.compare(compared.build, data, evaluate=watched, **options)
    assert trained_in(path)[3:] == [(1, FIRST), (1, "dense")]
    watched.num_calls, watched.path = 0, None
    return dsd.compare(compared.build, data, evaluate=watched, **options), watched


def in_one_fit(data, number, callbacks=(), prepare=lambda model: model, optimizer="adam"):
    seed(number)
    model = prepare(compared.build(optimizer))
    model.fit(*data["train"], epochs=4, verbose=0, callbacks=[*callbacks], **IN_ORDER)
    return model


@pytest.mark.parametrize("number", [0, 1])
def test_the_dense_arm_is_a_plain_fit(whole, data, number):
    result, watched = whole
    model = in_one_fit(data, number)
    assert watched.at_the_end(result, number, "dense") == compared.trained(model)
    assert run_of(result, number, "dense").test_last == compared.loss(model, data["test"])


def test_the_dsd_arm_is_a_fit_with_the_schedule(whole, data):
    result, watched = whole
    model = in_one_fit(data, 1, [dsd.DSDSchedule(phases=PHASES)], dsd.apply)
    assert watched.at_the_end(result, 1, "dsd") == compared.trained(model)


def test_every_arm_makes_as_many_updates_from_the_same_start(whole):
    result, _ = whole
    assert [(run.seed, run.arm) for run in result.runs] == [
        (number, arm) for number in (0, 1) for arm in (FIRST, "dense", "dsd")
    ]
    for run in result.runs:
        epochs = 2 if run.arm == FIRST else 4
        assert (run.num_updates, len(run.validation)) == (epochs * STEPS, epochs)
        assert run.start == run_of(result, run.seed, FIRST).start
        assert run.validation[:2] == run_of(result, run.seed, FIRST).validation
    assert len({run.start for run in result.runs}) == 2


def test_what_was_trained_before_the_kill_is_not_trained_again(whole):
    _, watched = whole
    # The first phase again, of which the file has no weights; then the DSD arm.
    assert 2 + 2 + 2 <= watched.num_calls <= 2 + 2 + 2 * 2


def test_the_first_phase_is_as_exact_with_momentum(data):
    job, _ = inspect(Job(
        build=functools.partial(compared.build, "momentum"), data=data, digests={},
        arms={"dense": (dsd.DensePhase(4),)}, shared=(dsd.DensePhase(2),), apply_options={},
        reset="pruned", batches=None, evaluate=(watched := Watched(data)), mode="min",
        fit_options=IN_ORDER,
    ), 0)  # fmt: skip
    *_, run = train_seed(job, 0, {}, lambda words: None)
    model = in_one_fit(data, 0, optimizer="momentum")
    assert watched.weights[run.test_last] == compared.trained(model)


@pytest.mark.slow
def test_a_first_phase_whose_rate_decays_is_as_exact(data):
    lr = dsd.Decay("steps")
    phases = (dsd.DensePhase(2, lr=lr), dsd.SparsePhase(1, lr=lr), dsd.DensePhase(1, lr=0.1))
    watched = Watched(data)
    job, _ = inspect(Job(
        build=functools.partial(compared.build, "momentum"), data=data, digests={},
        arms={"one run": (dsd.DensePhase(4, lr=lr),), "dsd": phases}, shared=phases[:1],
        apply_options={}, reset="pruned", batches=None, evaluate=watched, mode="min",
        fit_options=IN_ORDER,
    ), 0)  # fmt: skip
    first, one, ours = train_seed(job, 0, {}, lambda words: None)
    assert (first.num_updates, one.num_updates, ours.num_updates) == (2 * STEPS, *[4 * STEPS] * 2)
    assert one.validation[:2] != first.validation == ours.validation[:2]
    for run, arm in ((one, job.arms["one run"]), (ours, phases)):
        model = in_one_fit(data, 0, [dsd.DSDSchedule(phases=arm)], dsd.apply, "momentum")
        assert watched.weights[run.test_last] == compared.trained(model), run.arm


def test_the_dense_arms_have_the_learning_rates_that_they_are_to_have():
    parts = {name: unit_gradient.DATA for name in ("train", "test")}
    data, biases = {**parts, "validation": (*unit_gradient.DATA,)}, []

    def evaluate(model, part):
        if part is data["validation"]:
            biases.append(float(model.get_weights()[1][0]))
        return 0.0

    arms = make_arms([dsd.DensePhase(1), dsd.SparsePhase(1, lr=0.5), dsd.DensePhase(2, lr=0.1)])
    job, _ = inspect(Job(
        build=lambda: unit_gradient.net(keras.optimizers.SGD(0.01)), data=data, digests={},
        arms={arm: arms[arm] for arm in ("dense", "llr", "llr at once")},
        shared=(dsd.DensePhase(1),),
        apply_options={}, reset="pruned", batches=None, evaluate=evaluate, mode="min",
        fit_options={"batch_size": 8},
    ), 0)  # fmt: skip
    runs = list(train_seed(job, 0, {}, lambda words: None))
    first, rest = biases[0], np.reshape(biases[1:], (3, 3))
    rates = [-np.diff([first, *each]) / 4 for each in rest]
    assert np.array(rates) == pytest.approx(0.01 * np.array(
        [[1.0, 1.0, 1.0], [0.5, 0.1, 0.1], [0.1, 0.1, 0.1]]), rel=1e-3)  # fmt: skip
    assert [run.num_updates for run in runs] == [4] + [16] * 3


def test_a_model_that_was_trained_before_is_scored_as_it_is(data):
    job, _ = inspect(Job(
        build=compared.build, data=data, digests={}, arms={"dsd": (dsd.SparsePhase(1),)},
        shared=(), apply_options={}, reset="pruned", batches=None, evaluate=compared.loss,
        mode="min", fit_options=IN_ORDER,
    ), 0)  # fmt: skip
    run = next(train_seed(job, 0, {}, lambda words: None))
    seed(0)
    model = compared.build()
    assert (run.arm, run.num_updates) == (FIRST, 0)
    assert run.validation == (compared.loss(model, data["validation"]),)
    assert run.test_last == run.test_best == compared.loss(model, data["test"])


def test_all_of_a_model_resumes_from_its_state(data):
    """Averages, seeds of dropout on Keras 3, slots, and the scale of the loss."""

    def build():
        optimizers = keras.mixed_precision if PATH == "tf_keras" else keras.optimizers
        scaled = optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-3))
        return compiled(classifier("conv"), scaled, metrics=[])

    model, other = build(), build()
    state = registry.adapter_of(model).training_state
    model.fit(*data["train"], verbose=0, **IN_ORDER)
    values = state.read(model)
    state.write(other, values)
    assert [v.tobytes() for v in state.read(other)] == [v.tobytes() for v in values]
    assert state.num_updates(other) == state.num_updates(model) == STEPS
    counters = [int(each.optimizer.dynamic_counter if PATH == "tf_keras"
                    else each.optimizer.step_counter) for each in (model, other)]  # fmt: skip
    assert counters == [STEPS, STEPS]


class Shrinking(getattr(keras.utils, "PyDataset", None) or keras.utils.Sequence):
    """Batches that are fewer from a certain reading on."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.length = x, y, STEPS

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        place = slice(40 * index, 40 * index + 40)
        return self.x[place], self.y[place]


def test_an_arm_with_fewer_updates_is_refused(data, tmp_path):
    batches, path, calls = Shrinking(*data["train"]), tmp_path / "comparison.json", []
    watched = Watched(data)

    def load():
        calls.append(None)
        batches.length = STEPS - (len(calls) == 4)  # a look at them, then one for each fit
        return {**data, "train": batches}

    with pytest.raises(ValueError, match=(
        "numbers of updates. Received: 16 in arm 'sparse' of seed 0, but 14 in arm 'dsd' of seed 0"
    )):  # fmt: skip
        dsd.compare(compared.build, load, phases=PHASES, path=path, arms=["sparse", "dsd"],
                    evaluate=watched, progress=False)  # fmt: skip
    assert trained_in(path) == [(0, FIRST), (0, "sparse")]
    sparse = json.loads(path.read_text())["runs"][1]
    kernels = watched.weights[sparse["test_last"]][::2]
    assert [np.mean(np.frombuffer(kernel, np.float32) == 0) for kernel in kernels] == [0.5, 0.5]


@pytest.mark.parametrize("part", ["train", "validation"])
def test_test_data_that_leak_are_refused_before_anything_trains(data, part):
    x, y = data[part]
    leaking = np.concatenate([data["test"][0], x[:3]]), np.concatenate([data["test"][1], y[:3]])
    with pytest.raises(ValueError, match=rf"3 of 83 rows of data\['test'\] .* data\['{part}'\]"):
        dsd.compare(pytest.fail, {**data, "test": leaking}, phases=PHASES)


def test_other_than_a_model_to_train_is_refused(data):
    def later():
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
        model.compile("sgd", "mse")
        return model

    for build, message in [
        (
            lambda: keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2)]),
            "not compiled",
        ),
        (later, "is not built.*Start it with an Input"),
    ]:
        with pytest.raises(ValueError, match=message):
            dsd.compare(build, data, phases=PHASES, progress=False)
    with pytest.raises(TypeError, match=r"`build\(\)` to be a model.*build\(\)=3"):
        dsd.compare(lambda: 3, data, phases=PHASES, progress=False)
    model = compared.build()
    with pytest.raises(ValueError, match="a new model each time.*Create its layers in build"):
        dsd.compare(lambda: model, data, phases=PHASES, fit_options=FIT, progress=False)


@pytest.mark.slow
def test_processes_train_the_same(data):
    options = {"phases": PHASES, "seeds": 2, "fit_options": IN_ORDER, "progress": False}
    here = dsd.compare(compared.build, data, evaluate=compared.loss, **options)
    there = dsd.compare(
        compared.build, compared.data, evaluate=compared.loss, parallel=2, **options
    )
    assert there == here


@pytest.mark.slow
@pytest.mark.only_on("jax")  # processes know no Keras; its processes start fastest
def test_why_a_process_ended_is_reported(data):
    options = {"phases": PHASES, "seeds": 2, "fit_options": IN_ORDER, "progress": False}
    with pytest.raises(RuntimeError, match="can't be evaluated"):
        dsd.compare(compared.build, data, evaluate=compared.fail, parallel=2, **options)
    with pytest.raises(RuntimeError, match="Received: exit code 7"):
        dsd.compare(compared.build, data, evaluate=compared.die, parallel=2, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer", [pytest.param("momentum", marks=pytest.mark.exhaustive), "adam"]
)
def test_arms_equal_two_fits_with_shuffling_and_dropout(data, optimizer):
    watched = Watched(data)
    kind = "mlp" if PATH == "tf_keras" else "conv"  # dropout of tf_keras restarts with the model

    def build():
        return compiled(classifier(kind), OPTIMIZERS[optimizer](), metrics=[])

    result = dsd.compare(build, data, phases=PHASES, arms=["llr", "llr at once", "dsd"],
                         seeds=[3, 7], evaluate=watched, fit_options=FIT,
                         progress=False)  # fmt: skip
    arms = {
        "llr": [dsd.DensePhase(3), dsd.DensePhase(1, lr=0.1)],
        "llr at once": [dsd.DensePhase(2), dsd.DensePhase(2, lr=0.1)],
        "dsd": PHASES,
    }
    for arm, phases in arms.items():
        seed(7)
        model = build()
        seed(7)
        model.fit(*data["train"], epochs=2, verbose=0, callbacks=[Scores(data)], **FIT)
        model = dsd.apply(model)
        seed(seed_at(7, 2))
        callbacks = [dsd.DSDSchedule(phases=phases), Scores(data)]
        model.fit(*data["train"], initial_epoch=2, epochs=4, verbose=0, callbacks=callbacks, **FIT)
        assert watched.at_the_end(result, 7, arm) == compared.trained(model)


@pytest.mark.slow
@pytest.mark.only_on("jax")  # 28 fits; what they add is of both Kerases
def test_the_arms_of_the_paper_train_real_models(data):
    phases = [dsd.DensePhase(1), dsd.SparsePhase(2, sparsity=0.5), dsd.DensePhase(2, lr=0.1)]
    watched = Watched(data)
    found = dsd.compare(compared.build, data, phases=phases, seeds=2, tuning_seeds=2,
                        controls="paper", evaluate=watched, fit_options=IN_ORDER,
                        progress=False)  # fmt: skip
    averaged, llr, ours, at_random = (
        run_of(found, 1, name) for name in (AVERAGED, "llr", "dsd", RANDOM)
    )
    assert averaged.validation[:3] == llr.validation[:3]
    assert averaged.validation[3] == pytest.approx(llr.validation[3], rel=1e-6)
    assert averaged.validation[4] != pytest.approx(llr.validation[4], rel=1e-6)
    assert ours.validation[0] == at_random.validation[0]
    assert ours.validation[1] != at_random.validation[1]
    assert len({run.num_updates for run in found.runs if run.arm != FIRST}) == 1
    assert np.isfinite([found.answer().mean, found.answer("sparse").mean]).all()


class Scores(keras.callbacks.Callback):
    """Reads validation data at each epoch's end: PyTorch draws numbers for that."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def on_epoch_end(self, epoch, logs=None):
        compared.loss(self.model, self.data["validation"])
