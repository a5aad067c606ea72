"""What the training steps of a phase do besides updates and masks."""

from keras_dsd.algorithm.timeline import DensePhase, Phase, Timeline
from keras_dsd.protocols import StepExtras


def extras_of(phase: Phase) -> StepExtras:
    """Returns what each step of a phase does besides."""
    return StepExtras(ema=phase.ema) if isinstance(phase, DensePhase) else StepExtras()


def extras_in(timeline: Timeline) -> set[StepExtras]:
    """Returns what steps of any phase do besides."""
    return {extras_of(phase) for phase in timeline.phases} - {StepExtras()}
