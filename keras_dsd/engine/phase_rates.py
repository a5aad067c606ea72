"""Learning rates inside the phases of a run: factors of steps, conflicts with other schedules."""

from collections.abc import Callable, Sequence

import numpy as np

from keras_dsd.algorithm.learning_rates import Decay, LearningRate, StepFunction, factors
from keras_dsd.algorithm.phases import learning_rate_of, steps_of
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.engine.trainer import Trainer
from keras_dsd.protocols import UpdateCount

# Factors are passed to the device for so many batches at a time: few transfers, and little memory.
NUM_FACTORS = 1024
# A learning rate below this fraction of its largest value trains nothing.
_NOTHING = 1e-3


def check(timeline: Timeline, trainer: Trainer) -> None:
    """Checks the learning rates of the phases before a run.

    Raises:
        TypeError: A function of the step does not return a number.
        ValueError: It returns a negative number, or both the optimizer and a phase have a schedule.
    """
    for index, phase in enumerate(timeline.phases):
        lr = learning_rate_of(phase)
        if isinstance(lr, float):
            continue
        if trainer.is_scheduled():
            raise ValueError(
                f"Expected one learning rate schedule in a phase: the optimizer's or the phase's. "
                f"Received: phases[{index}] with lr={lr}, and an optimizer of "
                f"model={trainer.model.name!r} with a LearningRateSchedule. Compile the model with "
                f"a number, or use lr=0.1 (a factor) in this phase (of presets, decay=None)."
            )
        if isinstance(lr, StepFunction):
            lr(0)


def factors_of(
    lr: LearningRate, steps: Sequence[int], num_steps: int | None, fraction: float
) -> np.ndarray:
    """Returns the learning rate factors of the next batches.

    Args:
        lr: The learning rate of the phase.
        steps: The step of each batch, counted from the phase's start.
        num_steps: Number of steps of the phase; None if unknown. A shape then has the value of the
            epoch's start for all of these batches.
        fraction: The fraction of the phase's epochs that are over.
    """
    if num_steps is None and isinstance(lr, Decay):
        return np.full(len(steps), lr(fraction))
    return factors(lr, steps, num_steps or 1)


def run_down_message(timeline: Timeline, trainer: Trainer, num_batches: int | None) -> str | None:
    """Returns a warning if the optimizer's schedule runs down before a later phase, or None.

    None also if it is unknown: without a schedule, or without the number of batches of an epoch.
    """
    count = trainer.update_count() if trainer.is_scheduled() else None
    lengths = _lengths(timeline, num_batches, count)
    if count is None or lengths is None:
        return None
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    middles = [start + length // 2 for start, length in zip(starts, lengths, strict=True)]
    rates = [trainer.scheduled_rate(count.steps + step) for step in (*starts, *middles)]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        return None
    for index in range(1, len(lengths)):
        rate = max(known[index], known[index + len(lengths)])
        if rate <= _NOTHING * max(known):
            return ran_down_message(timeline, index, max(known), rate)
    return None


def ran_down_message(timeline: Timeline, index: int, before: float, rate: float) -> str:
    """Returns a warning that a phase has hardly any learning rate left."""
    return (
        f"The learning rate has run down before DSD phase {index + 1} of {len(timeline.phases)} "
        f"({timeline.kind(index)}): {rate:.3g}, after {before:.3g} before. Such a phase trains "
        f"nothing. Let the schedule of the optimizer last for all phases, or compile with a number "
        f"and give each phase its own, such as DensePhase(10, lr='cosine')."
    )


def is_at_end(lr: LearningRate, factor: float) -> bool:
    """Returns whether a shape that falls to nothing has done so: the last step is before that."""
    return isinstance(lr, Decay) and factor == 0.0 == lr(1.0)


def at_end_message(epoch: int) -> str:
    """Returns a warning that a shape of the learning rate is shorter than the run."""
    return (
        f"Epoch {epoch + 1} ended at a learning rate of 0: the phases are over, and the shape of "
        f"the last one has reached its end. Further epochs train nothing. End training with the "
        f"phases, give the last one more epochs, or a shape that does not end at 0, such as "
        f"Decay('cosine', end=0.01)."
    )


def has_run_down(rate: float, peak: float) -> bool:
    """Returns whether a learning rate is next to nothing, compared with the largest so far."""
    return rate <= _NOTHING * peak


def warn_if_set(
    before: Sequence[float],
    now: Sequence[float],
    lr: LearningRate,
    warn_once: Callable[[str, str], None],
) -> None:
    """Warns once if something sets the user's learning rate in a phase that changes it itself."""
    if isinstance(lr, float) or len(before) != len(now) or sorted(before) == sorted(now):
        return
    shown = (", ".join(f"{rate:.6g}" for rate in rates) for rates in (before, now))
    warn_once(
        "both change the learning rate",
        f"optimizer.learning_rate was set within a phase that changes the learning rate itself "
        f"({lr}): {' -> '.join(shown)}. Both act: the one is multiplied by the other. Remove the "
        f"callback that sets it (LearningRateScheduler, ReduceLROnPlateau), or use a number for "
        f"the lr of the phase.",
    )


def _lengths(
    timeline: Timeline, num_batches: int | None, count: UpdateCount | None
) -> list[int] | None:
    """Returns the lengths of the phases in steps, or None if they are unknown."""
    if count is None or (num_batches is None and timeline.epochs):
        return None
    per_epoch = (num_batches or 0) // count.per_step
    return [steps_of(phase, per_epoch) for phase in timeline.phases]
