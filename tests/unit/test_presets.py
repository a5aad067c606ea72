"""The phases of published schedules."""

import pytest

import keras_dsd as dsd
from keras_dsd.algorithm.learning_rates import factors
from keras_dsd.algorithm.timeline import Timeline

D, S = dsd.DensePhase, dsd.SparsePhase


def test_dsd():
    assert dsd.timelines.dsd(2, 3, 4, redense_lr=0.5) == [D(2), S(3), D(4, lr=0.5)]
    assert dsd.timelines.dsd(0, 3, 4) == [S(3), D(4, lr=0.1)]
    assert dsd.DSDSchedule(2, 3, 4).timeline == Timeline(dsd.timelines.dsd(2, 3, 4))


def test_dsdsd():
    found = dsd.timelines.dsdsd(1, 2, 3, 4, 5, redense_lr=0.5)
    assert found == [
        D(1), S(2, sparsity=0.5), D(3, lr=0.5), S(4, sparsity=0.25, lr=0.5), D(5, lr=0.25),
    ]  # fmt: skip
    assert dsd.timelines.dsdsd(0, 2, 3, 4, 5, sparsities=(0.8, 0.4))[0] == S(2, sparsity=0.8)


def test_acdc():
    cycle = [S(2, sparsity=0.9), D(3)]
    assert dsd.timelines.acdc(5, 2, 2, 3, sparsity=0.9) == [D(5), *cycle, *cycle]
    to_sparse = dsd.timelines.acdc(5, 2, 2, 3, sparsity=0.9, end="sparse", last=7)
    assert to_sparse == [D(5), *cycle, *cycle, S(7, sparsity=0.9)]
    assert dsd.timelines.acdc(1, 1, 2, 3, last=9) == [D(1), S(2), D(9)]
    assert dsd.timelines.acdc(1, 1, 2, 3, end="sparse")[-1] == S(2)


def test_iterated_phases_have_their_full_length():
    assert dsd.presets.iterated(20, sparsities=(0.5, 0.25), redense_lr=0.5) == [
        D(20), S(20, sparsity=0.5), D(20, lr=0.5),
        S(20, sparsity=0.25, lr=0.5), D(20, lr=0.25),
    ]  # fmt: skip
    three = dsd.presets.iterated(1, sparsities=[0.6, 0.4, 0.2])
    assert [each.sparsity for each in three[1::2]] == [0.6, 0.4, 0.2]


def test_a_split_of_all_epochs():
    tenth = dsd.Decay("cosine", start=0.1)
    cosine = [D(18, lr="cosine"), S(6, lr="cosine"), D(6, lr=tenth)]
    assert dsd.presets.for_epochs(30, decay="cosine") == cosine
    schedule = dsd.DSDSchedule.for_epochs(30, decay="cosine", reset="all")
    assert schedule.timeline == Timeline(cosine) and schedule.reset == "all"
    assert dsd.presets.for_epochs(30, decay=None) == [D(18), S(6), D(6, lr=0.1)]
    assert dsd.DSDSchedule.for_epochs(30).timeline.phases[2].lr == dsd.Decay("steps", start=0.1)
    for epochs in range(3, 40):
        dense, sparse, redense = (each.epochs for each in dsd.presets.for_epochs(epochs))
        assert dense + sparse + redense == epochs and abs(sparse - redense) <= 1 <= redense
        assert abs(dense - 0.6 * epochs) <= 1


def test_dsd_in_one_run_has_the_rates_of_one_run():
    assert dsd.presets.one_run(50, decay=None) == [D(15), S(10), D(25)]
    first, sparse, last = dsd.presets.one_run(50)
    assert first == D(15) and sparse == S(10)
    assert [*factors(last.lr, range(25), 25)] == pytest.approx([0.1] * 15 + [0.01] * 10)
    found = [rate for phase in dsd.presets.one_run(30, decay="cosine")
             for rate in factors(phase.lr, range(phase.epochs), phase.epochs)]  # fmt: skip
    assert found == pytest.approx([*factors(dsd.Decay("cosine"), range(30), 30)])
    for epochs in range(3, 40):
        assert Timeline(dsd.presets.one_run(epochs)).epochs == epochs


# Network, epochs, learning rates and sparsities of the paper's tables, phase by phase.
TABLES = {
    "googlenet": ([60, 11, 22], [1e-2, 1e-3, 1e-4], [0.3], "first_conv"),
    "vgg": ([74, 1, 18], [1e-2, 1e-4, 1e-5], [0.3], "first_conv"),
    "resnet": ([90, 45, 45], [1e-1, 1e-2, 1e-3], [0.3], "first_conv"),
    "neuraltalk": ([19, 10, 6], [1e-2, 1e-3, 1e-4], [0.8], "embeddings"),
    "deepspeech": ([50] * 5, [8e-4, 5e-4, 3e-4, 1e-4, 3e-5], [0.5, 0.25], "convolutions"),
    "deepspeech2": ([20] * 5, [3e-4, 3e-4, 3e-5, 3e-5, 6e-6], [0.5, 0.25], "convolutions"),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_settings(name):
    epochs, rates, sparsities, exclude = TABLES[name]
    preset = dsd.presets.paper(name)
    assert [phase.epochs for phase in preset.phases] == epochs and preset.epochs == sum(epochs)
    used = [phase.lr * preset.learning_rate for phase in preset.phases]
    assert used == pytest.approx(rates)
    assert [type(phase) for phase in preset.phases] == [D, S, D, S, D][: len(epochs)]
    assert [phase.sparsity for phase in preset.phases[1::2]] == sparsities
    assert preset.apply == {"sparsity": sparsities[0], "exclude": exclude}
    assert dsd.DSDSchedule(phases=preset.phases).timeline == Timeline(preset.phases)


def test_the_papers_settings_over_other_epochs():
    lengths = {
        name: [p.epochs for p in dsd.presets.paper(name, epochs=60).phases] for name in TABLES
    }
    assert lengths == {
        "googlenet": [39, 7, 14], "vgg": [48, 1, 11], "resnet": [30, 15, 15],
        "neuraltalk": [33, 17, 10], "deepspeech": [12] * 5, "deepspeech2": [12] * 5,
    }  # fmt: skip
    for name in TABLES:
        assert dsd.presets.paper(name, epochs=5).epochs == 5


def test_the_papers_settings_with_decay():
    phases = dsd.presets.paper("resnet", decay="steps").phases
    assert [phase.lr(0) for phase in phases] == pytest.approx([1, 0.1, 0.01])
    assert [phase.lr(1) for phase in phases] == pytest.approx([0.01, 0.001, 0.0001])
    decay = dsd.Decay("cosine", start=0.5, end=0.1)
    phases = dsd.presets.paper("vgg", decay=decay).phases
    assert phases[1].lr == dsd.Decay("cosine", start=0.005, end=0.001)
    assert dsd.presets.paper("vgg", decay="constant") == dsd.presets.paper("vgg")


@pytest.mark.parametrize(("make", "error", "said"), [
    (lambda t: t.dsd(-1, 1, 1), ValueError, "`dense` to be at least 0"),
    (lambda t: t.dsdsd(1, 1, 1, 0, 1), ValueError, "`sparse_again` to be at least 1"),
    (lambda t: t.dsdsd(1, 1, 1, 1, 1, sparsities=0.5), TypeError, "two fractions.*=0.5"),
    (lambda t: t.dsdsd(1, 1, 1, 1, 1, sparsities=(0.5, 1.5)), ValueError, r"sparsities\[1\]=1.5"),
    (lambda t: t.acdc(1, 0, 1, 1), ValueError, r"`cycles` to be at least 1 \(cycles\)"),
    (lambda t: t.acdc(1, 1, 1, 1, end="both"), ValueError, "'dense' or 'sparse'.*end='both'"),
    (lambda t: t.iterated(0), ValueError, "`epochs` to be at least 1"),
    (lambda t: t.iterated(1, sparsities=()), ValueError, "`sparsities` to hold at least one"),
    (lambda t: t.iterated(1, sparsities=0.5), TypeError, "`sparsities` to be a list of fractions"),
    (lambda t: t.for_epochs(2), ValueError, "`epochs` to be at least 3"),
    (lambda t: t.for_epochs(9, decay=0.1), TypeError, "`decay` to be a name, a Decay or None"),
    (lambda t: t.for_epochs(9, decay="cos"), ValueError, "`decay` to be 'constant'.*decay='cos'"),
    (lambda t: t.one_run(2), ValueError, "`epochs` to be at least 3"),
    (lambda t: t.one_run(9, decay="cos"), ValueError, "`decay` to be 'constant'.*decay='cos'"),
    (lambda t: t.paper("vgg16"), ValueError, "`name` to be 'googlenet', 'vgg'.*name='vgg16'"),
    (lambda t: t.paper("deepspeech", epochs=4), ValueError, "`epochs` to be at least 5"),
])  # fmt: skip
def test_errors(make, error, said):
    with pytest.raises(error, match=said):
        make(dsd.timelines)
