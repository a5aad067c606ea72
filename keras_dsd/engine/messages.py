"""Log messages of a run: a phase change, and the learning rate of a phase."""

from collections.abc import Sequence

from keras_dsd.algorithm.learning_rates import Decay, LearningRate, StepFunction
from keras_dsd.algorithm.phases import length_text
from keras_dsd.algorithm.timeline import Timeline


def phase_message(
    timeline: Timeline,
    index: int,
    epoch: int,
    is_start: bool,
    changed: str,
    step: int | None = None,
) -> str:
    """Returns the log message of a phase that starts, or resumes, at an epoch counted from 0.

    `changed` describes the changes that come with it. `step` is the number of steps of the run
    before it, if they are counted.
    """
    phase, number = timeline.phases[index], f"{index + 1}/{len(timeline.phases)}"
    parts = [timeline.kind(index), length_text(phase)]
    if phase.until is not None:
        parts.append(str(phase.until))
    if not is_start:
        parts.append("resumed")
    after = "" if step is None else f", after {step:,} steps"
    return f"Epoch {epoch + 1}{after}: DSD phase {number} ({', '.join(parts)}): {changed}"


def learning_rate_text(
    learning_rates: Sequence[float], is_scheduled: bool, lr: LearningRate
) -> str:
    """Describes the learning rate of a phase whose `lr` multiplies `learning_rates`."""
    if is_scheduled and isinstance(lr, float):
        times = "" if lr == 1.0 else f"{lr:g} times the "
        return f"{times}scheduled learning rate"
    rates, shape = dict.fromkeys(learning_rates), ""
    if isinstance(lr, Decay):
        scaled = [f"{rate * lr(0.0):.6g} to {rate * lr(1.0):.6g}" for rate in rates]
        shape = f" ({lr.shape})"
    elif isinstance(lr, StepFunction):
        scaled = [f"{rate:.6g} times {lr}" for rate in rates]
    else:
        scaled = [f"{rate * lr:.6g}" for rate in rates]
    return f"learning rate {', '.join(scaled)}{shape}"
