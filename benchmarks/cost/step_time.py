"""Time of one training step in each phase, beside plain Keras and, for tf_keras, TF-MOT.

Every round runs the plain model and then each of the others, in one process and in a random
order; it gives one ratio to the plain model's time for each. The location of its memory makes one
of two equal models slower by up to a fifth, so they are built several times. Prints JSON: the
seconds of a plain step, and the ratios.

    KERAS_BACKEND=jax python benchmarks/cost/step_time.py --keras=keras --network=mlp
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import networks
import numpy as np
from absl import app, flags
from flavour import NETWORK, keras_module, scope
from steps import runner

import keras_dsd as dsd
from keras_dsd.adapters import registry
from keras_dsd.engine.trainer import Trainer

_ROUNDS = flags.DEFINE_integer("rounds", 30, "Rounds; each gives one ratio of each model.")
_BUILDS = flags.DEFINE_integer("builds", 1, "Into how many builds of the models to part those.")
_SECONDS = flags.DEFINE_float("seconds", 0.1, "How long to run each in a round, at least a step.")
_SPARSITY = 0.3


def main(argv: list[str]) -> None:
    """Prints what was measured."""
    del argv
    times: list[float] = []
    ratios: dict[str, list[float]] = {}
    num_builds = min(_BUILDS.value, _ROUNDS.value)
    with scope():
        for build in range(num_builds):
            found = runners(keras_module(), networks.named(NETWORK.value))
            order = np.random.default_rng(build)
            for plain, others in rounds(found, _ROUNDS.value // num_builds, order):
                times.append(plain)
                for name, seconds in others.items():
                    ratios.setdefault(name, []).append(seconds / plain)
    print(json.dumps({"plain": times, "ratios": ratios}))


def rounds(
    found: dict[str, Callable[[int], None]], count: int, order: np.random.Generator
) -> Iterator[tuple[float, dict[str, float]]]:
    """Yields the seconds of a plain step, and those of the others, round by round."""
    for run in found.values():
        run(2)
    plain = found.pop("plain")
    num_steps = max(1, round(_SECONDS.value / seconds_of(plain, 1)))
    for _ in range(count):
        beside = seconds_of(plain, num_steps)
        yield beside, {n: seconds_of(found[n], num_steps) for n in order.permutation(list(found))}


def seconds_of(run: Callable[[int], None], num_steps: int) -> float:
    """Returns how long a step takes."""
    began = time.perf_counter()
    run(num_steps)
    return (time.perf_counter() - began) / num_steps


def runners(keras: Any, network: networks.Network) -> dict[str, Callable[[int], None]]:
    """Returns what runs steps, by name."""
    batch = network.batches(1)
    models = {"plain": plain_model(keras, network)}
    models |= {phase: model_in(phase, keras, network) for phase in ("dense", "sparse", "re-dense")}
    found = {name: runner(keras, model, batch) for name, model in models.items()}
    if keras.__name__ == "tf_keras":
        found["TF-MOT"] = runner(keras, pruned_by_tfmot(keras, network), batch)
    return found


def plain_model(keras: Any, network: networks.Network) -> Any:
    """Returns a model that DSD never saw."""
    model = networks.compiled(keras, network.build(keras))
    model.optimizer.build(model.trainable_variables)
    model.make_train_function()
    return model


def model_in(phase: str, keras: Any, network: networks.Network) -> Any:
    """Returns a model as it trains in a phase of DSD."""
    model = networks.compiled(keras, dsd.apply(network.build(keras), _SPARSITY))
    model.optimizer.build(model.trainable_variables)
    trainer = Trainer(model, registry.adapter_of(model).training_adapter(model))
    trainer.open(after_first_step=lambda: None, before_remade_step=frozenset)
    if phase == "sparse":
        for weight in trainer.weights:
            values = np.abs(weight.numpy())
            mask = values > np.quantile(values, _SPARSITY)
            weight.apply_mask(weight.arrays.to_device(mask, weight.tensor()))
    masked = frozenset(weight.path for weight in trainer.weights if weight.is_masked)
    factor = 0.1 if phase == "re-dense" else 1.0
    trainer.use_step(masked=masked, factors=np.array([factor]))
    return model


def pruned_by_tfmot(keras: Any, network: networks.Network) -> Any:
    """Returns a model in the middle of TF-MOT's pruning."""
    from tensorflow_model_optimization.python.core.api import sparsity

    schedule = sparsity.keras.ConstantSparsity(_SPARSITY, 0)
    pruned = sparsity.keras.prune_low_magnitude(network.build(keras), schedule)
    model = networks.compiled(keras, pruned)
    model.optimizer.build(model.trainable_variables)
    model.make_train_function()
    callback = sparsity.keras.UpdatePruningStep()
    callback.set_model(model)
    callback.on_train_begin()
    return model


if __name__ == "__main__":
    app.run(main)
