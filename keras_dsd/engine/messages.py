"""Log messages of a run: a phase change, and the learning rate of a phase."""

from collections.abc import Sequence

from keras_dsd.algorithm.timeline import Timeline, length_text


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


def learning_rate_text(learning_rates: Sequence[float], is_scheduled: bool, factor: float) -> str:
    """Describes the learning rate of a phase that multiplies `learning_rates` by `factor`."""
    if is_scheduled:
        times = "" if factor == 1.0 else f"{factor:g} times the "
        return f"{times}scheduled learning rate"
    scaled = (f"{rate * factor:.6g}" for rate in dict.fromkeys(learning_rates))
    return f"learning rate {', '.join(scaled)}"
