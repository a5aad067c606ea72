"""Learning rates inside a phase: factors of the user's learning rate, from its start to its end.

A factor is a number; a shape, which is a pure function of the fraction of the phase that is over;
or a function of the step, such as a Keras `LearningRateSchedule`. None of them needs a framework.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, SupportsFloat, TypeAlias

import numpy as np

from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid, invalid_type

SHAPES = ("constant", "cosine", "linear", "steps")
# ResNets on ImageNet: a tenth after 30 and after 60 of 90 epochs.
_BOUNDARIES = (1 / 3, 2 / 3)
_DROP = 0.1


@dataclasses.dataclass(frozen=True)
class Decay:
    """A learning rate that changes inside a phase, from the phase's start to its end.

    Its value is a factor of the user's learning rate, as the number is that `lr=` takes. Step `i`
    of a phase of `n` steps, counted from 0, is made at the fraction `t = i / n`, as Keras's
    `CosineDecay(decay_steps=n)` has it:

    - `"constant"`: `start`.
    - `"linear"`: `start + (end - start) * t`.
    - `"cosine"`: `end + (start - end) * (1 + cos(pi * t)) / 2`.
    - `"steps"`: `start * drop ** b`, with `b` of the `boundaries` passed, `boundary <= t`.

    Args:
        shape: `"constant"`, `"cosine"`, `"linear"` or `"steps"`.
        start: Factor at the phase's start. Defaults to `1.0`.
        end: Factor that `"cosine"` and `"linear"` approach at the phase's end; above `start`, it is
            a warm-up. Defaults to `0.0`.
        boundaries: Fractions of the phase, rising in (0, 1), at which `"steps"` drops. Defaults to
            `(1 / 3, 2 / 3)`.
        drop: Factor at each of these. Defaults to `0.1`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `shape` is unknown, has no such argument, or a number is out of its range.

    Examples:
        >>> DensePhase(10, lr=Decay("cosine", start=0.1, end=0.001))
    """

    shape: str
    _: dataclasses.KW_ONLY
    start: float = 1.0
    end: float | None = None
    boundaries: tuple[float, ...] | None = None
    drop: float | None = None

    def __post_init__(self) -> None:
        checks.choice("shape", self.shape, SHAPES)
        has_end, has_steps = self.shape in ("cosine", "linear"), self.shape == "steps"
        for name, is_known in (("end", has_end), ("boundaries", has_steps), ("drop", has_steps)):
            if not is_known and getattr(self, name) is not None:
                expected = f"to be left out for a learning rate of shape={self.shape!r}"
                raise invalid(name, getattr(self, name), expected, f"Leave `{name}` out.")
        if has_end:
            end = checks.not_negative("end", 0.0 if self.end is None else self.end)
            start = checks.not_negative if end else checks.positive
            checks.normalise(self, end=end, start=start("start", self.start))
            return
        checks.normalise(self, start=checks.positive("start", self.start))
        if has_steps:
            drop = checks.positive("drop", _DROP if self.drop is None else self.drop)
            checks.normalise(self, drop=drop, boundaries=_boundaries(self.boundaries))

    def __call__(self, fraction: float) -> float:
        """Returns the factor at a fraction of the phase, in [0, 1]."""
        if self.shape == "constant":
            return self.start
        if self.boundaries is not None and self.drop is not None:
            return self.start * self.drop ** sum(each <= fraction for each in self.boundaries)
        end = self.end or 0.0
        over = fraction if self.shape == "linear" else (1 - math.cos(math.pi * fraction)) / 2
        return self.start + (end - self.start) * over

    def times(self, factor: float) -> "Decay":
        """Returns the same shape with all of its values multiplied by `factor`."""
        end = None if self.end is None else self.end * factor
        return dataclasses.replace(self, start=self.start * factor, end=end)

    def part(self, first: float, last: float) -> "float | Decay":
        """Returns the learning rate of a part of the phase, for a separate phase.

        Args:
            first: Fraction of the phase at which the part starts.
            last: Fraction of the phase at which it ends.
        """
        start, length = self(first), last - first
        if self.boundaries is not None:
            # Less by a rounding error, so that the step at a boundary is not before it.
            inside = tuple(
                (each - first) / length - 1e-12 for each in self.boundaries if first < each < last
            )
            return dataclasses.replace(self, start=start, boundaries=inside) if inside else start
        if self.shape == "linear":
            return Decay("linear", start=start, end=self(last))
        return _CosinePart(self.shape, start=self.start, end=self.end, first=first, last=last)

    def __str__(self) -> str:
        where = ", ".join(f"{each:.3g}" for each in self.boundaries or ())
        return f"{self(0.0):g} to {self(1.0):g} ({self.shape}{where and ' at '}{where})"


@dataclasses.dataclass(frozen=True)
class _CosinePart(Decay):
    """A part of a cosine, which is none itself."""

    first: float = 0.0
    last: float = 1.0

    def __call__(self, fraction: float) -> float:
        return super().__call__(self.first + (self.last - self.first) * fraction)


@dataclasses.dataclass(frozen=True, eq=False)
class StepFunction:
    """A function of the step, such as a Keras `LearningRateSchedule`, as the factor of a phase.

    Attributes:
        function: Returns the factor of the user's learning rate at a step, counted from the
            phase's start.
    """

    function: Callable[[int], SupportsFloat]

    def __call__(self, step: int) -> float:
        """Returns the factor at a step.

        Raises:
            TypeError: `function` returned no number.
            ValueError: It returned a number that is negative or not finite.
        """
        name = f"lr({step})"
        hint = "Give a function from a step to a factor, such as a Keras LearningRateSchedule."
        try:
            value = float(self.function(step))
        except (TypeError, ValueError) as error:
            note = f": {error}"
            raise invalid_type(name, self.function, "to be a number", hint, note) from error
        if not 0.0 <= value < math.inf:
            raise invalid(name, value, "to be finite and at least 0", hint)
        return value

    @property
    def _config(self) -> dict[str, Any] | None:
        read = getattr(self.function, "get_config", None)
        return None if read is None else dict(read())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StepFunction):
            return NotImplemented
        if self.function == other.function:
            return True
        config, same = self._config, type(self.function) is type(other.function)
        return same and config is not None and config == other._config

    def __hash__(self) -> int:
        return hash(type(self.function))

    def __str__(self) -> str:
        config, function = self._config, self.function
        if config is None:
            return str(getattr(function, "__qualname__", type(function).__qualname__))
        given = (f"{key}={value!r}" for key, value in config.items() if value is not None)
        return f"{type(function).__qualname__}({', '.join(given)})"


# As a phase holds it; a constant shape is a number.
LearningRate: TypeAlias = float | Decay | StepFunction
# As `lr=` takes it.
GivenLearningRate: TypeAlias = float | str | Decay | Callable[[int], SupportsFloat]


def checked(name: str, value: object) -> LearningRate:
    """Returns what was given as the learning rate of a phase, checked.

    Raises:
        TypeError: It is not a number, a name, a `Decay` or a function.
        ValueError: The number is not finite and above 0, or the name unknown.
    """
    if isinstance(value, str):
        value = Decay(checks.choice(name, value, SHAPES, "Give one of them, a factor or a Decay."))
    if isinstance(value, Decay):
        return value.start if value.shape == "constant" else value
    if isinstance(value, StepFunction):
        return value
    if callable(value) and not isinstance(value, type):
        return StepFunction(value)
    if isinstance(value, type):
        hint = "Give an object of it, such as CosineDecay(1.0, decay_steps=1000)."
        raise invalid_type(name, value, "to be a factor, or a function of the step", hint)
    return checks.positive(name, value)


def factors(lr: LearningRate, steps: Sequence[int], num_steps: int) -> np.ndarray:
    """Returns the factors of some steps of a phase.

    Args:
        lr: The learning rate of the phase.
        steps: The steps, counted from 0 at the phase's start.
        num_steps: Number of steps of the phase. A shape keeps its last value after these.

    Returns:
        Array of shape `(len(steps),)` and dtype float64.
    """
    if isinstance(lr, Decay):
        return np.array([lr(min(step / num_steps, 1.0)) for step in steps], np.float64)
    if isinstance(lr, StepFunction):
        return np.array([lr(step) for step in steps], np.float64)
    return np.full(len(steps), lr, np.float64)


def curve(
    lr: LearningRate, num_steps: int = 0, points: int = 201
) -> tuple[list[float], list[float]]:
    """Returns fractions of a phase and the factors there, for a figure.

    Args:
        lr: The learning rate of the phase.
        num_steps: Number of steps of the phase, which a function of the step requires. Defaults to
            `0`, unknown: for such a function nothing is returned.
        points: Number of points of a curve. Defaults to `201`.
    """
    if isinstance(lr, StepFunction):
        if not num_steps:
            return [], []
        steps = sorted({round(i * num_steps / (points - 1)) for i in range(points)})
        return [step / num_steps for step in steps], [lr(step) for step in steps]
    if isinstance(lr, Decay) and not lr.boundaries:
        fractions = [i / (points - 1) for i in range(points)]
        return fractions, [lr(each) for each in fractions]
    if isinstance(lr, float):
        return [0.0, 1.0], [lr] * 2
    boundaries = lr.boundaries or ()
    edges = [0.0, *(edge for each in boundaries for edge in (each, each)), 1.0]
    levels = [lr(each) for each in (0.0, *boundaries)]
    return edges, [level for level in levels for _ in range(2)]


def divided(lr: float | Decay, lengths: Sequence[int]) -> list[float | Decay]:
    """Returns the learning rates of consecutive phases that together have that of one phase.

    Args:
        lr: The learning rate of the one phase.
        lengths: Lengths of the phases, in epochs or in steps.
    """
    ends = [end / sum(lengths) for end in itertools.accumulate(lengths, initial=0)]
    pairs = itertools.pairwise(ends)
    return [lr.part(*pair) if isinstance(lr, Decay) else lr for pair in pairs]


def describe(lr: LearningRate) -> str:
    """Describes the learning rate of a phase, for the end of a line; empty for a factor of 1."""
    return "" if lr == 1.0 else f" at {factor_text(lr)} times the learning rate"


def factor_text(lr: LearningRate) -> str:
    """Returns the factor of a learning rate as text, such as `"1 to 0 (cosine)"`."""
    return f"{lr:g}" if isinstance(lr, float) else str(lr)


def _boundaries(value: Sequence[float] | None) -> tuple[float, ...]:
    hint = "Give fractions of the phase, such as (0.5, 0.75)."
    if value is None:
        return _BOUNDARIES
    given = checks.listed("boundaries", value, "to be a list of fractions of the phase", hint)
    found = tuple(checks.fraction(f"boundaries[{i}]", each) for i, each in enumerate(given))
    if not found or found[0] == 0.0 or any(a >= b for a, b in itertools.pairwise(found)):
        raise invalid("boundaries", value, "to rise in (0, 1)", hint)
    return found
