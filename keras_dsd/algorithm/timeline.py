"""Phases and timelines as values: lengths, convergence, learning rates, the current phase."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_dsd.algorithm import criteria
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid, invalid_type
from keras_dsd.utils.figures import new_figure, shade

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LARGER_IS_BETTER = ("acc", "auc", "f1", "precision", "recall")


@dataclasses.dataclass(frozen=True)
class Plateau:
    """Ends a phase when a monitored quantity has stopped improving.

    Args:
        monitor: Name of the quantity in the logs, such as `"val_loss"`.
        min_delta: Minimum change that counts as an improvement. Defaults to `0.0`.
        patience: Number of epochs without an improvement after which the phase ends. Epochs whose
            logs lack `monitor`, such as those without validation, do not count. Defaults to `3`.
        mode: `"min"` if smaller is better, `"max"` if larger is better; `"auto"` infers it from
            the name. Defaults to `"auto"`.
        restore_best: If `True`, the phase ends with the weights of its best epoch, as returned by
            `get_weights`; optimizer state is kept. The last phase ends with the last epoch of the
            run, not with a `fit` that is shorter than the timeline. Defaults to `False`.

    Raises:
        TypeError: `monitor` is not a str, `restore_best` is not a bool, or a number is of the
            wrong type.
        ValueError: `min_delta` is negative, `patience` below 1, or `mode` unknown.
    """

    monitor: str
    _: dataclasses.KW_ONLY
    min_delta: float = 0.0
    patience: int = 3
    mode: str = "auto"
    restore_best: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.monitor, str):
            hint = "Give a str, such as 'val_loss'."
            raise invalid_type("monitor", self.monitor, "to be a name in the logs", hint)
        checks.flag("restore_best", self.restore_best)
        advice = "Give 'min' for a loss, 'max' for an accuracy."
        checks.choice("mode", self.mode, ("auto", "min", "max"), advice)
        checks.normalise(
            self,
            min_delta=checks.not_negative("min_delta", self.min_delta),
            patience=checks.whole_number("patience", self.patience, least=1),
        )

    def values(self, history: Sequence[Mapping[str, float]]) -> list[float | None]:
        """Returns the values of `monitor` in the logs of a phase's epochs; None where absent."""
        return [logs.get(self.monitor) for logs in history]

    def length(self, values: Sequence[float | None]) -> int | None:
        """Returns the length of a phase in epochs; None if it is not over after these values."""
        best, waited = None, 0
        for index, value in enumerate(values):
            if value is None:
                continue
            waited += 1
            if self._is_better(value, best):
                best, waited = value, 0
            if waited >= self.patience:
                return index + 1
        return None

    def best(self, values: Sequence[float | None]) -> int | None:
        """Returns the index of the best value; None without values."""
        found, best = None, None
        for index, value in enumerate(values):
            if value is not None and self._is_better(value, best):
                found, best = index, value
        return found

    def _is_better(self, value: float, best: float | None) -> bool:
        larger = self.mode == "max" or (self.mode == "auto" and is_larger_better(self.monitor))
        if best is None:
            return value == value  # NaN is never better
        return value > best + self.min_delta if larger else value < best - self.min_delta

    def __str__(self) -> str:
        epochs = "an epoch" if self.patience == 1 else f"{self.patience} epochs"
        return f"until {self.monitor} has not improved for {epochs}"


def is_larger_better(name: str) -> bool:
    """Returns whether larger values of a metric are better, according to its name."""
    return any(part in name.lower() for part in _LARGER_IS_BETTER)


def _check_phase(phase: "DensePhase | SparsePhase") -> None:
    checks.normalise(
        phase,
        epochs=checks.whole_number("epochs", phase.epochs, least=1),
        lr=checks.positive("lr", phase.lr),
    )
    if not isinstance(phase.until, Plateau | None):
        expected = "to be None (the phase lasts its `epochs`) or a Plateau"
        hint = "Give Plateau('val_loss', patience=3), or leave it out."
        raise invalid_type("until", phase.until, expected, hint)


@dataclasses.dataclass(frozen=True)
class DensePhase:
    """A phase that trains all weights.

    Args:
        epochs: How long the phase lasts, in epochs; with `until`, at most. At least 1.
        lr: Factor of the learning rate while the phase lasts. Defaults to `1.0`.
        until: A `Plateau` that ends the phase early. Defaults to `None`: it lasts its `epochs`.

    Raises:
        TypeError: `epochs` is not an integer, `lr` is not a number, or `until` is not a `Plateau`.
        ValueError: `epochs` is below 1, or `lr` is not finite and above 0.
    """

    epochs: int
    _: dataclasses.KW_ONLY
    lr: float = 1.0
    until: Plateau | None = None

    def __post_init__(self) -> None:
        _check_phase(self)

    def __str__(self) -> str:
        return f"dense for {_length(self)}{_times(self.lr)}"


@dataclasses.dataclass(frozen=True)
class SparsePhase:
    """A phase that prunes weights at its start, by default the smallest, and keeps them at zero.

    Weights that are already zero are the smallest, and equal: if a sparse phase follows one of
    higher sparsity, regrown weights are chosen by index. Put a dense phase between the two.

    Args:
        epochs: How long the phase lasts, in epochs; with `until`, at most. At least 1.
        sparsity: Fraction of each selected weight tensor to prune, in [0, 1). Defaults to `None`:
            the sparsity that `apply` set for each weight.
        lr: Factor of the learning rate while the phase lasts. Defaults to `1.0`.
        until: A `Plateau` that ends the phase early. Defaults to `None`: it lasts its `epochs`.
        criterion: How weights are ranked; the lowest are pruned. `"magnitude"`; `"random"`, the
            control of what a criterion adds; or a function of a `PrunableWeight` that returns an
            array of its shape, which has to be the same in every process. Defaults to
            `"magnitude"`.
        seed: Of `criterion="random"`, with the path and the size of each weight. Defaults to `0`.

    Raises:
        TypeError: `epochs` or `seed` is not an integer, `lr` or `sparsity` is not a number, `until`
            is not a `Plateau`, or `criterion` is not callable.
        ValueError: `epochs` is below 1, `lr` is not finite and above 0, `sparsity` is outside
            [0, 1), `criterion` is unknown, or `seed` is negative or not used.
    """

    epochs: int
    _: dataclasses.KW_ONLY
    sparsity: float | None = None
    lr: float = 1.0
    until: Plateau | None = None
    criterion: criteria.Criterion = "magnitude"
    seed: int = 0

    def __post_init__(self) -> None:
        _check_phase(self)
        if self.sparsity is not None:
            checks.normalise(self, sparsity=checks.fraction("sparsity", self.sparsity))
        seed = checks.whole_number("seed", self.seed, least=0, unit="any unit")
        checks.normalise(self, criterion=criteria.check(self.criterion), seed=seed)
        if seed and self.criterion != "random":
            note = f" with criterion={criteria.name_of(self.criterion)!r}"
            hint = "Leave it out, or give criterion='random'."
            raise invalid("seed", seed, "to be used by the criterion", hint, note)

    def __str__(self) -> str:
        share = "" if self.sparsity is None else f" at sparsity {self.sparsity:g}"
        by = "" if self.criterion == "magnitude" else f" by {criteria.name_of(self.criterion)}"
        seed = f" (seed {self.seed})" if self.criterion == "random" else ""
        return f"sparse for {_length(self)}{share}{by}{seed}{_times(self.lr)}"


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
        hint = "Give a list, such as [DensePhase(10), SparsePhase(10), DensePhase(10, lr=0.1)]."
        expected = "to be a list of DensePhase and SparsePhase"
        phases = checks.listed("phases", phases, expected, hint)
        each = "to be a DensePhase or a SparsePhase"
        way = "Write SparsePhase(epochs) or DensePhase(epochs)."
        checks.check_items("phases", phases, Phase, each, way)
        if not phases:
            raise invalid("phases", phases, "to hold at least one phase", hint)
        object.__setattr__(self, "phases", tuple(phases))

    @property
    def epochs(self) -> int:
        """Total number of epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def monitors(self) -> tuple[str, ...]:
        """Names of the monitored quantities, without duplicates."""
        return tuple(dict.fromkeys(p.until.monitor for p in self.phases if p.until is not None))

    def is_sparse(self, index: int) -> bool:
        """Returns whether a phase of this index exists and is sparse."""
        return 0 <= index < len(self.phases) and isinstance(self.phases[index], SparsePhase)

    def is_redense(self, index: int) -> bool:
        """Returns whether a phase of this index exists and is dense after a sparse one."""
        return 0 < index < len(self.phases) and self.is_sparse(index - 1) > self.is_sparse(index)

    def kind(self, index: int) -> str:
        """Returns the kind of a phase: `"dense"`, `"sparse"` or, after one, `"re-dense"`."""
        if self.is_sparse(index):
            return "sparse"
        return "re-dense" if self.is_redense(index) else "dense"

    def starts(self, history: Sequence[Mapping[str, float]]) -> list[int]:
        """Returns the first epochs, counted from 0, of the phases started so far.

        The last of them is the phase of epoch `len(history)`. Epochs past the end belong to the
        last phase. `history` holds the values of `monitors` at each epoch; the same history always
        gives the same phases, so a run can resume from it.
        """
        starts = [0]
        for phase in self.phases[:-1]:
            length = _ended(phase, history[starts[-1] : starts[-1] + phase.epochs])
            if length is None:
                break
            starts.append(starts[-1] + length)
        return starts

    def is_over(self, history: Sequence[Mapping[str, float]], remaining_epochs: str) -> bool:
        """Returns whether training is over after the epochs in `history`.

        With `remaining_epochs="stop"`, the last phase ends with its `epochs`; with `"redense"`, it
        also gets the unused epochs of the other phases. Its `until` ends it in both cases.
        """
        starts = self.starts(history)
        if len(starts) < len(self.phases):
            return False
        last, epochs = self.phases[-1], history[starts[-1] :]
        is_done = remaining_epochs == "stop" and _ended(last, epochs) is not None
        return is_done or _converged(last, epochs) is not None

    def plot(self) -> "Figure":
        """Returns a figure of the phases and their learning rate factors over the epochs.

        Phases that `until` may end early are drawn at their maximum length. The figure belongs to
        no window; `figure.savefig("timeline.png")` writes it.

        Raises:
            ImportError: matplotlib is not installed.
        """
        figure, axes = new_figure(8, 2.5)
        start = 0
        for index, phase in enumerate(self.phases):
            end, kind = start + phase.epochs, self.kind(index)
            shade(axes, start, end, kind, _title(phase, kind))
            axes.plot([start, end], [phase.lr] * 2, color="black")
            start = end
        axes.set_xlim(0, start)
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_ylabel("learning rate\nfactor")
        return figure

    def __str__(self) -> str:
        return ", then ".join(str(phase) for phase in self.phases)


def _title(phase: Phase, kind: str) -> str:
    until = "" if phase.until is None else f"\nuntil {phase.until.monitor}"
    sparsity = getattr(phase, "sparsity", None)
    return (kind if sparsity is None else f"{kind} {sparsity:.0%}") + until


def length_text(phase: Phase) -> str:
    """Returns the length of a phase as text, such as `"at most 10 epochs"`."""
    length = f"{phase.epochs} epoch" if phase.epochs == 1 else f"{phase.epochs} epochs"
    return length if phase.until is None else f"at most {length}"


def _length(phase: Phase) -> str:
    length = length_text(phase)
    return length if phase.until is None else f"{length} ({phase.until})"


def _times(factor: float) -> str:
    return "" if factor == 1.0 else f" at {factor:g} times the learning rate"


def _ended(phase: Phase, history: Sequence[Mapping[str, float]]) -> int | None:
    """Returns the length of a phase with the epochs in `history`, or None if it is not over."""
    length = _converged(phase, history)
    if length is not None:
        return min(length, phase.epochs)
    return phase.epochs if len(history) >= phase.epochs else None


def _converged(phase: Phase, history: Sequence[Mapping[str, float]]) -> int | None:
    """Returns the number of epochs in `history` until a phase converged, or None."""
    return None if phase.until is None else phase.until.length(phase.until.values(history))
