"""Phases as values: lengths, learning rates, how weights are pruned and how they regrow."""

import dataclasses
from collections.abc import Iterable
from typing import cast

from keras_dsd.algorithm import criteria, masks
from keras_dsd.algorithm.learning_rates import GivenLearningRate, LearningRate, checked, describe
from keras_dsd.algorithm.plateau import Plateau
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid, invalid_type, shown


def _check_phase(phase: "DensePhase | SparsePhase") -> None:
    kind = type(phase).__name__
    if (phase.epochs is None) == (phase.steps is None):
        raise TypeError(
            f"Expected either `epochs` or `steps`. Received: epochs={shown(phase.epochs)} and "
            f"steps={shown(phase.steps)}. Write {kind}(10) for epochs, or {kind}(steps=2000)."
        )
    if phase.steps is None:
        epochs = checks.whole_number("epochs", phase.epochs, least=1)
        checks.normalise(phase, epochs=epochs)
    else:
        steps = checks.whole_number("steps", phase.steps, least=1, unit="steps")
        checks.normalise(phase, steps=steps)
    checks.normalise(phase, lr=checked("lr", phase.lr))
    if not isinstance(phase.until, Plateau | None):
        expected = "to be None (the phase lasts its `epochs`) or a Plateau"
        hint = "Give Plateau('val_loss', patience=3), or leave it out."
        raise invalid_type("until", phase.until, expected, hint)
    if phase.until is not None and phase.steps is not None:
        hint = f"Count the phase in epochs, {kind}(10, until=...), or leave out `until`."
        expected = "to be None where a phase is counted in steps, as a Plateau measures epochs"
        raise invalid("until", phase.until, expected, hint, f" and steps={phase.steps}")


@dataclasses.dataclass(frozen=True)
class DensePhase:
    """A phase that trains all weights.

    Args:
        epochs: Length of the phase in epochs; the maximum with `until`. At least 1. Give either
            `epochs` or `steps`.
        steps: Length of the phase in optimizer steps. At least 1.
        lr: Factor of the learning rate in the phase: a number; the name of a shape
            from the phase's start to its end, `"cosine"`, `"linear"` or `"steps"`; a `Decay`, for a
            shape with other values; or a function of the step, such as a Keras
            `LearningRateSchedule`. The function's values are factors too: one that starts at 1.0
            starts at your learning rate. Its step counts optimizer steps from the phase's start.
            Defaults to `1.0`.
        until: A `Plateau` that ends the phase early. Defaults to `None`: it lasts its `epochs`.
        ema: In the last phase, the momentum of moving averages of all trainable weights, as
            `ema_momentum` of Keras's optimizers: from the phase's start, average · ema + weight ·
            (1 - ema) after each step. The run ends with the averages. Defaults to `None`: with the
            weights.
        regrow_fraction: After a sparse phase, the fraction of its pruned weights that regrow, in
            (0, 1]: those with the largest sums of gradients over its last epoch. The others stay
            zero. Defaults to `1.0`.
        regrow_decay: After a sparse phase, weight decay of regrown weights alone, decoupled as that
            of AdamW: before each update, weight · (1 - learning rate · regrow_decay). Defaults to
            `0.0`.

    Raises:
        TypeError: `epochs` or `steps` is not an integer, both or none are given, `lr` is not a
            learning rate, another number is none, or `until` is not a `Plateau`.
        ValueError: `epochs` or `steps` is below 1, `lr` is not finite and above 0, `ema` is outside
            (0, 1), `regrow_fraction` outside (0, 1], `regrow_decay` negative, `until` is given with
            `steps`, or restores the best weights with `ema`.

    Reference:
        Evci et al., 2020, arXiv:1911.11134, for weights that regrow by their gradients.
    """

    epochs: int | None = None
    _: dataclasses.KW_ONLY
    steps: int | None = None
    lr: GivenLearningRate = 1.0
    until: Plateau | None = None
    ema: float | None = None
    regrow_fraction: float = 1.0
    regrow_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_phase(self)
        checks.normalise(
            self,
            regrow_fraction=checks.positive("regrow_fraction", self.regrow_fraction),
            regrow_decay=checks.not_negative("regrow_decay", self.regrow_decay),
        )
        if self.regrow_fraction > 1:
            hint = "Give a fraction, such as 0.5 for half of them."
            raise invalid("regrow_fraction", self.regrow_fraction, "to be in (0, 1]", hint)
        if self.ema is not None:
            self._check_ema()

    def _check_ema(self) -> None:
        ema = checks.positive("ema", self.ema)
        checks.normalise(self, ema=ema)
        if ema >= 1:
            raise invalid("ema", self.ema, "to be below 1", "Give a momentum, such as 0.999.")
        if self.until is not None and self.until.restore_best:
            hint = "Leave one out: the run ends with either."
            note = " with until=Plateau(restore_best=True)"
            raise invalid("ema", ema, "in a phase that restores no best weights", hint, note)

    def __str__(self) -> str:
        part = self.regrow_fraction
        regrown = "" if part == 1.0 else f", {part:.0%} of pruned weights regrow"
        decay = f", regrown weights decay by {self.regrow_decay:g}" if self.regrow_decay else ""
        averaged = "" if self.ema is None else f", averaged by {self.ema:g}"
        return (
            f"dense for {_length(self)}{describe(learning_rate_of(self))}{regrown}{decay}{averaged}"
        )


@dataclasses.dataclass(frozen=True)
class SparsePhase:
    """A phase that prunes weights at its start, by default the smallest, and keeps them at zero.

    Weights that are already zero are the smallest, and equal: if a sparse phase follows one of
    higher sparsity, regrown weights are chosen by index. Put a dense phase between the two.

    Args:
        epochs: Length of the phase in epochs; the maximum with `until`. At least 1. Give either
            `epochs` or `steps`.
        steps: Length of the phase in optimizer steps. At least 1.
        sparsity: Fraction of each selected weight tensor to prune, in [0, 1). Defaults to `None`:
            the sparsity that `apply` set for each weight.
        lr: Factor of the learning rate in the phase: a number; the name of a shape
            from the phase's start to its end, `"cosine"`, `"linear"` or `"steps"`; a `Decay`, for a
            shape with other values; or a function of the step, such as a Keras
            `LearningRateSchedule`. The function's values are factors too: one that starts at 1.0
            starts at your learning rate. Its step counts optimizer steps from the phase's start.
            Defaults to `1.0`.
        until: A `Plateau` that ends the phase early. Defaults to `None`: it lasts its `epochs`.
        criterion: Scores of weights; the lowest are pruned. `"magnitude"`; `"random"`, a control
            for other criteria; `"movement"`, the sum of -gradient · weight over the updates of the
            previous epoch; `"taylor"`, |sum of gradients · weight|; or a function of a
            `PrunableWeight` that returns an array of its shape, equal in every process. Defaults
            to `"magnitude"`.
        seed: Seed of `criterion="random"`, together with the path and the size of each weight.
            Defaults to `0`.
        ramp: Number of epochs, fewer than `epochs`, at whose starts weights are pruned: in epoch
            t = 1, 2, ... of the phase to the sparsity s · (1 - (1 - t / ramp)³), up to its own
            sparsity s. Masks only grow. Defaults to `1`: all weights are pruned at once.

    Raises:
        TypeError: `epochs`, `steps`, `seed` or `ramp` is not an integer, both or none of `epochs`
            and `steps` are given, `lr` is not a learning rate, `sparsity` is not a number, `until`
            is not a `Plateau`, or `criterion` is not callable.
        ValueError: `epochs`, `steps` or `ramp` is below 1, `lr` is not finite and above 0,
            `sparsity` is outside [0, 1), `until` is given with `steps`, `criterion` is unknown,
            `seed` is negative or not used, or a `ramp` is as long as the phase, or given with
            `steps` or `until`.

    Reference:
        Zhu and Gupta, 2017, arXiv:1710.01878, for `ramp`.
    """

    epochs: int | None = None
    _: dataclasses.KW_ONLY
    steps: int | None = None
    sparsity: float | None = None
    lr: GivenLearningRate = 1.0
    until: Plateau | None = None
    criterion: criteria.Criterion = "magnitude"
    seed: int = 0
    ramp: int = 1

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
        self._check_ramp()

    def _check_ramp(self) -> None:
        ramp = checks.whole_number("ramp", self.ramp, least=1)
        checks.normalise(self, ramp=ramp)
        if ramp > 1 and self.epochs is None:
            hint = f"Count the phase in epochs: SparsePhase({ramp + 1}, ramp={ramp})."
            raise invalid(
                "ramp", ramp, "in epochs, as the phase", hint, f" with steps={self.steps}"
            )
        if ramp > 1 and self.epochs is not None and ramp >= self.epochs:
            hint = "Train at the full sparsity for an epoch at least: give more epochs."
            note = f" with epochs={self.epochs}"
            raise invalid("ramp", ramp, "to be shorter than the phase", hint, note)
        if ramp > 1 and self.until is not None:
            hint = "Leave one out: a phase with a ramp lasts its epochs."
            note = f" with until={self.until!r}"
            raise invalid("ramp", ramp, "in a phase without `until`, which may end it", hint, note)

    def sparsity_at(self, epoch: int) -> masks.Sparsity:
        """Returns the sparsity in an epoch of the phase, counted from 0."""
        target, share = self.sparsity, self.share_at(epoch)
        if share == 1:
            return target
        return lambda weight: masks.share_of(weight, target) * share

    def share_at(self, epoch: int) -> float:
        """Returns the share of its sparsity that an epoch of the phase has, counted from 0."""
        return 1 - max(1 - (epoch + 1) / self.ramp, 0.0) ** 3

    def __str__(self) -> str:
        share = "" if self.sparsity is None else f" at sparsity {self.sparsity:g}"
        share += f" within {self.ramp} epochs" if self.ramp > 1 else ""
        by = "" if self.criterion == "magnitude" else f" by {criteria.name_of(self.criterion)}"
        seed = f" (seed {self.seed})" if self.criterion == "random" else ""
        return f"sparse for {_length(self)}{share}{by}{seed}{describe(learning_rate_of(self))}"


Phase = DensePhase | SparsePhase


def epochs_of(phases: Iterable[Phase]) -> int:
    """Returns how many epochs phases take together, but for those counted in steps."""
    return sum(phase.epochs or 0 for phase in phases)


def steps_of(phase: Phase, steps_per_epoch: int) -> int:
    """Returns the length of a phase in steps, whichever it is counted in."""
    return phase.steps or (phase.epochs or 0) * steps_per_epoch


def sums_for(phase: Phase) -> str | None:
    """Returns what is summed over the epoch before a phase prunes or regrows weights by it."""
    if isinstance(phase, SparsePhase):
        return criteria.SUMS.get(phase.criterion) if isinstance(phase.criterion, str) else None
    return "gradient" if phase.regrow_fraction < 1 else None


def length_text(phase: Phase) -> str:
    """Returns the length of a phase as text, such as `"at most 10 epochs"`."""
    number, unit = phase.steps or phase.epochs, "epoch" if phase.steps is None else "step"
    length = f"{number} {unit}" if number == 1 else f"{number} {unit}s"
    return length if phase.until is None else f"at most {length}"


def _length(phase: Phase) -> str:
    length = length_text(phase)
    return length if phase.until is None else f"{length} ({phase.until})"


def learning_rate_of(phase: Phase) -> LearningRate:
    """Returns the learning rate of a phase, as `checked` returned it."""
    return cast("LearningRate", phase.lr)
