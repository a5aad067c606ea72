"""Custom loops with the optimizers of PyTorch: their state and learning rates."""

import numpy as np
import pytest

import keras_dsd as dsd
from tests.helpers.steps import run, trainer
from tests.helpers.watching import zeros

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:Training ended with pruned weights")


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adagrad", "RMSprop", "Rprop", "NAdam"])
@pytest.mark.parametrize("reset", ["pruned", "all"])
def test_optimizers_of_torch(name, reset, digits, mlp):
    model = dsd.apply(mlp(), 0.5)
    extra = {"SGD": {"momentum": 0.9}, "Adam": {"amsgrad": True},
             "Adagrad": {"initial_accumulator_value": 0.25}}  # fmt: skip
    initial = {"Adagrad": {"sum": 0.25}, "Rprop": {"step_size": 0.01}}.get(name, {})
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01, **extra.get(name, {}))
    begun = {}

    def slots():
        found = []
        for weight in dsd.weights(model):
            held = optimizer.state[weight.variable.value]
            found.append({n: s.numpy().copy() for n, s in held.items()
                          if s is not None and s.shape == weight.variable.value.shape})  # fmt: skip
        return found

    seen = []
    with dsd.DSDLoop(model, optimizer, dsd.DSDSchedule(1, 1, 1, reset=reset)) as loop:
        train = trainer(model, optimizer, loop)
        for epoch in range(3):
            run(loop, train, digits, epoch + 1, epoch, lambda epoch: seen.append(zeros(model)))
            begun[epoch] = slots()
            masks = [weight.mask for weight in dsd.weights(model)]
            if epoch == 1:
                loop.begin_epoch(2)
                for mask, before, now in zip(masks, begun[1], slots(), strict=True):
                    assert before and set(before) == set(now)
                    for slot, value in now.items():
                        start = np.full_like(value, initial.get(slot, 0.0))
                        kept = start if reset == "all" else before[slot]
                        assert np.array_equal(value, np.where(mask, kept, start)), slot
                train([tuple(part[:32] for part in digits)])
                assert loop.end_epoch()["dsd_learning_rate"] == 0.001
                break
    assert seen[10:] == [[512, 80]] * 10
    assert [group["lr"] for group in optimizer.param_groups] == [0.01]
