"""Phases as values: how long each lasts, what it prunes, and which one an epoch is in."""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence

from keras_dsd import checks


def _check_phase(phase: "DensePhase | SparsePhase") -> None:
    checks.whole_number("epochs", phase.epochs, least=1)
    checks.positive("lr", phase.lr)
    if phase.until is not None:
        raise ValueError(
            f"Expected `until` to be None: a phase lasts its `epochs`. "
            f"Received: until={phase.until!r}. Leave `until` out."
        )


@dataclasses.dataclass(frozen=True)
class DensePhase:
    """A phase in which every weight trains.

    Args:
        epochs: How long the phase lasts, in epochs. At least 1.
        lr: What the learning rate is multiplied by while the phase lasts. Defaults to `1.0`.
        until: Reserved for an early end; only `None` is accepted. Defaults to `None`.

    Raises:
        TypeError: `epochs` is not an integer, or `lr` not a number.
        ValueError: `epochs` is below 1, `lr` is not finite and above 0, or `until` is given.
    """

    epochs: int
    _: dataclasses.KW_ONLY
    lr: float = 1.0
    until: None = None

    def __post_init__(self) -> None:
        _check_phase(self)

    def __str__(self) -> str:
        return f"dense for {_epochs(self.epochs)}{_times(self.lr)}"


@dataclasses.dataclass(frozen=True)
class SparsePhase:
    """A phase that prunes the smallest weights at its start and keeps them at zero.

    Args:
        epochs: How long the phase lasts, in epochs. At least 1.
        sparsity: Share of each selected weight tensor to prune, a fraction in [0, 1).
            Defaults to `None`: the sparsity that `apply` gave each weight.
        lr: What the learning rate is multiplied by while the phase lasts. Defaults to `1.0`.
        until: Reserved for an early end; only `None` is accepted. Defaults to `None`.

    Raises:
        TypeError: `epochs` is not an integer, or `lr` or `sparsity` not a number.
        ValueError: `epochs` is below 1, `lr` is not finite and above 0, `sparsity` is outside
            [0, 1), or `until` is given.
    """

    epochs: int
    _: dataclasses.KW_ONLY
    sparsity: float | None = None
    lr: float = 1.0
    until: None = None

    def __post_init__(self) -> None:
        _check_phase(self)
        if self.sparsity is not None:
            checks.fraction("sparsity", self.sparsity)

    def __str__(self) -> str:
        share = "" if self.sparsity is None else f" at sparsity {self.sparsity:g}"
        return f"sparse for {_epochs(self.epochs)}{share}{_times(self.lr)}"


Phase = DensePhase | SparsePhase


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Phases, one after another. Each covers the half-open range of epochs [start, end).

    Args:
        phases: The phases in order; at least one.

    Raises:
        TypeError: `phases` is not a sequence of phases.
        ValueError: `phases` is empty.
    """

    phases: tuple[Phase, ...]

    def __init__(self, phases: Sequence[Phase]) -> None:
        if isinstance(phases, str | bytes) or not isinstance(phases, Sequence):
            raise TypeError(
                f"Expected `phases` to be a list of DensePhase and SparsePhase. "
                f"Received: phases={phases!r} of type {type(phases).__name__}. "
                f"Give a list, such as [DensePhase(10), SparsePhase(10), DensePhase(10, lr=0.1)]."
            )
        for index, phase in enumerate(phases):
            if not isinstance(phase, Phase):
                raise TypeError(
                    f"Expected every item of `phases` to be a DensePhase or a SparsePhase. "
                    f"Received: phases[{index}]={phase!r} of type {type(phase).__name__}. "
                    f"Write SparsePhase(epochs) or DensePhase(epochs)."
                )
        if not phases:
            raise ValueError(
                f"Expected `phases` to hold at least one phase. Received: phases={phases!r}. "
                f"Give a list, such as [DensePhase(10), SparsePhase(10), DensePhase(10, lr=0.1)]."
            )
        object.__setattr__(self, "phases", tuple(phases))

    @property
    def epochs(self) -> int:
        """How many epochs all phases take together."""
        return sum(phase.epochs for phase in self.phases)

    def index_at(self, epoch: int) -> int:
        """Returns the index of the phase that `epoch` is in.

        Args:
            epoch: Counted from 0, as Keras does. Epochs past the end belong to the last phase.
        """
        ends = list(itertools.accumulate(phase.epochs for phase in self.phases))
        return min(bisect.bisect_right(ends, epoch), len(ends) - 1)

    def start_of(self, index: int) -> int:
        """Returns the first epoch of the phase `index`, counted from 0."""
        return sum(phase.epochs for phase in self.phases[:index])

    def __str__(self) -> str:
        return ", then ".join(str(phase) for phase in self.phases)


def _epochs(number: int) -> str:
    return f"{number} epoch" if number == 1 else f"{number} epochs"


def _times(factor: float) -> str:
    return "" if factor == 1.0 else f" at {factor:g} times the learning rate"
