"""The arms of a recipe: equal parts and numbers of epochs, with different phases."""

import dataclasses
from collections.abc import Sequence

import keras_dsd as dsd

ARMS = ("dsd", "dense", "llr")
Steps = list[tuple[int, float]]  # epochs, and the factor of the learning rate


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a run, at whose end the model is evaluated."""

    name: str
    phases: list[dsd.DensePhase | dsd.SparsePhase]

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return sum(phase.epochs for phase in self.phases)


def parse(text: str) -> Steps:
    """Returns the steps of a flag such as `30,30@0.1,30@0.01`; empty for `0`.

    Raises:
        ValueError: The flag is not a list of epochs, each with an optional factor above 0.
    """
    try:
        steps = [_step(step) for step in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"Expected epochs, joined by commas, each with an optional factor of the learning "
            f"rate after an @. Received: {text!r}. Write 30, or 30,30@0.1,30@0.01; 0 for none."
        ) from error
    return [step for step in steps if step[0]]


def _step(text: str) -> tuple[int, float]:
    epochs, at, factor = text.partition("@")
    step = int(epochs), float(factor) if at else 1.0
    if step[0] < 0 or not 0 < step[1] < float("inf"):
        raise ValueError(text)
    return step


def parts_of(
    arm: str, dense: Steps, sparse: Sequence[tuple[Steps, float]], redense: Sequence[Steps]
) -> list[Part]:
    """Returns the parts of an arm.

    Args:
        arm: `"dsd"`: the given phases. `"llr"`: the same low learning rates (LLR) without pruning,
            a control that the paper lacks. `"dense"`: plain training, with the steps of the dense
            phase stretched over all epochs.
        dense: The first phase; empty to start from a trained model.
        sparse: Steps of each sparse phase, and the fraction of weights that it prunes.
        redense: Steps of the dense phase after each of them.
    """
    parts = [Part("dense", _dense(dense))]
    for index, ((steps, sparsity), after) in enumerate(zip(sparse, redense, strict=True)):
        again = f" {index + 1}" * (index > 0)
        pruned = [dsd.SparsePhase(n, sparsity=sparsity, lr=lr) for n, lr in steps]
        parts += [Part(f"sparse{again}", _dense(steps) if arm == "llr" else pruned)]
        parts += [Part(f"re-dense{again}", _dense(after))]
    parts = [part for part in parts if part.phases]
    if arm != "dense":
        return parts
    whole = _stretched(dense or [(1, 1.0)], sum(part.epochs for part in parts))
    return [
        Part(part.name, _cut(whole, end - part.epochs, end))
        for part, end in zip(parts, ends_of(parts), strict=True)
    ]


def ends_of(parts: Sequence[Part]) -> list[int]:
    """Returns the number of epochs trained by the end of each part."""
    return [sum(part.epochs for part in parts[: index + 1]) for index in range(len(parts))]


def _dense(steps: Steps) -> list[dsd.DensePhase]:
    return [dsd.DensePhase(epochs, lr=lr) for epochs, lr in steps]


def _stretched(steps: Steps, epochs: int) -> list[float]:
    """Returns the factor of each of `epochs` epochs, with steps of the same proportions."""
    given = [lr for length, lr in steps for _ in range(length)]
    return [given[epoch * len(given) // epochs] for epoch in range(epochs)]


def _cut(rates: Sequence[float], start: int, end: int) -> list[dsd.DensePhase]:
    phases: list[dsd.DensePhase] = []
    for lr in rates[start:end]:
        if phases and phases[-1].lr == lr:
            phases[-1] = dataclasses.replace(phases[-1], epochs=phases[-1].epochs + 1)
        else:
            phases.append(dsd.DensePhase(1, lr=lr))
    return phases
