"""The arms of a comparison as phases: DSD, and the controls that it is measured against."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from keras_dsd.algorithm.timeline import DensePhase, Phase, SparsePhase, Timeline
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid, shown

DSD = "dsd"
AT_ONCE = "llr at once"
CONTROLS = ("dense", "llr", AT_ONCE, "sparse")
ARMS = (*CONTROLS, DSD)
# The start of all arms, where it is trained once or was before: early stopping by the clock.
FIRST = "first dense"

Arms = dict[str, tuple[Phase, ...]]


def make_arms(phases: Sequence[Phase], names: Iterable[str] = ARMS) -> Arms:
    """Returns the phases of each arm, as `compare` describes them, all with as many epochs.

    A control that equals another arm is left out.
    """
    given = _check_names(names)
    timeline = Timeline(phases)
    _check_phases(timeline)
    every: Arms = {
        "dense": (DensePhase(timeline.epochs),),
        "llr": _merged(DensePhase(phase.epochs, lr=phase.lr) for phase in timeline.phases),
        AT_ONCE: _merged(lowered_at_once(timeline.phases)),
        "sparse": _merged(_pruned_for_good(timeline.phases)),
        DSD: timeline.phases,
    }
    chosen = [name for name in ARMS if name in given]
    arms = {name: every[name] for name in chosen if not _has_twin(name, every, chosen)}
    if set(arms) == {DSD}:
        raise ValueError(
            f"Expected a control that differs from DSD. Received: arms={shown(given)}, of which "
            f"none does with phases={shown(list(timeline.phases))}. Add 'dense' to the arms."
        )
    return arms


def lowered_at_once(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Returns plain training at DSD's last learning rate as soon as DSD prunes: literally LLR."""
    first = tuple(itertools.takewhile(lambda phase: isinstance(phase, DensePhase), phases))
    rest = sum(phase.epochs for phase in phases[len(first) :])
    return (*first, DensePhase(rest, lr=phases[-1].lr))


def num_shared(arms: Arms) -> int:
    """Returns the number of epochs of plain dense training that all arms start with."""
    starts = (
        itertools.takewhile(lambda phase: phase == DensePhase(phase.epochs), phases)
        for phases in arms.values()
    )
    return min(sum(phase.epochs for phase in start) for start in starts)


def _has_twin(name: str, every: Arms, chosen: Sequence[str]) -> bool:
    """Returns whether a control equals another arm that is chosen."""
    twins = {"llr": ("dense",), AT_ONCE: ("dense", "llr"), "sparse": (DSD,)}.get(name, ())
    return any(twin in chosen and _merged(every[twin]) == every[name] for twin in twins)


def _pruned_for_good(phases: Sequence[Phase]) -> Iterable[Phase]:
    """Returns the phases of a run that prunes once, where `phases` do first, and for good."""
    first = tuple(itertools.takewhile(lambda phase: isinstance(phase, DensePhase), phases))
    rest = phases[len(first) :]
    return (*first, *(dataclasses.replace(rest[0], epochs=p.epochs, lr=p.lr) for p in rest))


def _merged(phases: Iterable[Phase]) -> tuple[Phase, ...]:
    """Returns the phases, those in one that follow each other and differ only in length."""
    runs = itertools.groupby(phases, lambda phase: dataclasses.replace(phase, epochs=1))
    return tuple(
        dataclasses.replace(kind, epochs=sum(phase.epochs for phase in run)) for kind, run in runs
    )


def _check_phases(timeline: Timeline) -> None:
    for index, phase in enumerate(timeline.phases):
        if phase.until is not None:
            raise ValueError(
                f"Expected phases of fixed length, so that every arm trains as long. Received: "
                f"phases[{index}]={shown(phase)} with an `until`. Leave it out; every arm is "
                f"scored at its best epoch as well."
            )
    if not any(isinstance(phase, SparsePhase) for phase in timeline.phases):
        raise ValueError(
            f"Expected a sparse phase among `phases`. Received: phases="
            f"{shown(list(timeline.phases))}, which is plain training. Give "
            f"keras_dsd.timelines.dsd(10, 10, 10), or a list with a SparsePhase."
        )


def _check_names(names: Iterable[str]) -> tuple[str, ...]:
    hint = f"Give a list of some of {', '.join(ARMS)}."
    given = checks.listed("arms", names, "to be a list of names", hint, Iterable)
    for index, name in enumerate(given):
        checks.choice(f"arms[{index}]", name, ARMS)
    if DSD not in given or len(set(given)) != len(given) or len(given) < 2:
        hint = f"Leave it out for all: {', '.join(ARMS)}."
        raise invalid("arms", given, "to be 'dsd' and one control at least, each once", hint)
    return tuple(given)
