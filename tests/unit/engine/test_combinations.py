"""Every pair of arguments of phases: it trains, or an error says why not, before anything."""

import itertools

import numpy as np
import pytest

import keras_dsd as dsd
from tests.unit.engine.fake_adapter import FakeModel, fit

PLATEAU, BEST = dsd.Plateau("loss", patience=1), dsd.Plateau("loss", restore_best=True)
DENSE = {
    "lr": ["cosine"], "until": [PLATEAU, BEST], "ema": [0.9], "regrow_fraction": [0.5],
    "regrow_decay": [0.1],
}  # fmt: skip
SPARSE = {
    "lr": ["linear"], "until": [PLATEAU, BEST], "sparsity": [0.25], "seed": [3], "ramp": [2],
    "criterion": ["random", "movement", lambda weight: np.abs(weight.numpy())],
}  # fmt: skip
LENGTHS = {
    "epochs": [{"epochs": 2}, {"epochs": 3}, {"epochs": 2}],
    "steps": [{"steps": 4}, {"steps": 5}, {"steps": 4}],
    "mixed": [{"steps": 4}, {"epochs": 3}, {"steps": 5}],
    "mixed otherwise": [{"epochs": 2}, {"steps": 5}, {"epochs": 2}],
}


def pairs(options):
    """Returns all combinations of at most two arguments."""
    given = [(name, value) for name, values in options.items() for value in values]
    found = [dict(each) for n in (0, 1, 2) for each in itertools.combinations(given, n)]
    return [each for each in found if each]


CASES = [
    *(({}, sparse, {}) for sparse in pairs(SPARSE)),
    *(({}, {}, last) for last in pairs(DENSE)),
    *((first, {}, {}) for first in pairs(DENSE)),
    *(({}, {a: v}, {b: w}) for a, b in itertools.product(SPARSE, DENSE)
      for v, w in itertools.product(SPARSE[a], DENSE[b])),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lengths", LENGTHS)
def test_every_pair_of_arguments_trains_or_is_refused_by_name(lengths):
    kinds, num_refused = (dsd.DensePhase, dsd.SparsePhase, dsd.DensePhase), 0
    for case in CASES:
        model = FakeModel()
        before = model.state()
        try:
            phases = [
                kind(**length, **given)
                for kind, length, given in zip(kinds, LENGTHS[lengths], case, strict=True)
            ]
            schedule = dsd.DSDSchedule(phases=phases)
        except (TypeError, ValueError) as error:
            text, num_refused = str(error), num_refused + 1
            names = [name for given in case for name in given]
            assert text.startswith("Expected ") and "Received: " in text, case
            assert any(f"`{name}`" in text for name in names), (case, text)
            continue
        fit(model, schedule, 8, steps=3, log=lambda epoch: {"loss": 1 / (epoch + 1)})
        assert not any(map(np.array_equal, model.state()[:1], before[:1])), case
        assert not any(kernel.is_masked for kernel in model.kernels) or case[2], case
    assert 0 < num_refused < len(CASES)
