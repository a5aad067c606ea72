"""The arms of a comparison as phases: DSD and its controls."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from keras_dsd.algorithm.learning_rates import Decay, divided
from keras_dsd.algorithm.phases import DensePhase, Phase, SparsePhase, epochs_of, sums_for
from keras_dsd.algorithm.timeline import Timeline
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid, shown

DSD = "dsd"
AT_ONCE = "llr at once"
CONTROLS = ("dense", "llr", AT_ONCE, "sparse")
ARMS = (*CONTROLS, DSD)
# The shared start of all arms as an arm, trained once or before: plain training of fewer epochs.
FIRST = "first dense"

# Further arms of the protocol in the paper's regime.
AVERAGED, RANDOM, ITERATED = "llr, averaged", "dsd, random masks", "dsd, iterated"
ONE_RUN, HIGH, LOW = "one run", "first rate", "low rate"
DSD_IN_RUN, SPARSE_IN_RUN = "dsd in one run", "sparse in one run"
_ITERATED = ((0.5, 1.0), (None, 0.3), (0.25, 0.3), (None, 0.1))  # sparsities, learning rates

Arms = dict[str, tuple[Phase, ...]]


def make_arms(phases: Sequence[Phase], names: Iterable[str] = ARMS) -> Arms:
    """Returns the phases of each arm, as described in `compare`, all with equal numbers of epochs.

    A control that equals another arm is left out.
    """
    given = _check_names(names)
    timeline = Timeline(phases)
    _check_phases(timeline)
    first = _dense_start(timeline.phases)
    rest = timeline.phases[len(first) :]
    pruned_for_good = _pruned_for_good(rest)
    every: Arms = {
        "dense": (DensePhase(timeline.epochs),),
        "llr": _merged(DensePhase(phase.epochs, lr=phase.lr) for phase in timeline.phases),
        AT_ONCE: _merged(lowered_at_once(timeline.phases)),
        "sparse": _merged([*first, *pruned_for_good]),
        DSD: timeline.phases,
    }
    # Of equal arms the last one here is kept.
    kept = {_merged(every[name]): name for name in (*CONTROLS[::-1], DSD) if name in given}
    arms = {name: every[name] for name in ARMS if name in kept.values()}
    if set(arms) == {DSD}:
        raise ValueError(
            f"Expected a control that differs from DSD. Received: arms={shown(given)}, which are "
            f"all equal with phases={shown(list(timeline.phases))}. Add 'dense' to the arms."
        )
    return arms


def make_paper_arms(phases: Sequence[Phase]) -> Arms:
    """Returns all arms of `make_arms`, and those that the protocol adds, all of equal length.

    `AVERAGED` has the learning rates of DSD and no masks; `RANDOM` the phases of DSD, with masks
    drawn at random; `ITERATED`, if the phases after the dense ones are one sparse and one dense
    phase of two epochs or more each, prunes half of the weights, then a quarter. Where the learning
    rate falls in the first dense phase, `HIGH` continues it at its first rate, in place of
    `"dense"`, `LOW` at its last one, and `ONE_RUN` stretches its decay over all epochs. So do
    `DSD_IN_RUN`, sparse from half of the first phase's epochs to half of all, and `SPARSE_IN_RUN`,
    whose weights never regrow.
    """
    arms = make_arms(phases)
    llr = _merged(DensePhase(phase.epochs, lr=phase.lr) for phase in phases)
    at_random = tuple(
        dataclasses.replace(phase, criterion="random") if isinstance(phase, SparsePhase) else phase
        for phase in phases
    )
    found = {**arms, AVERAGED: llr, RANDOM: at_random}
    first = _dense_start(phases)
    rest = phases[len(first) :]
    found |= {
        name: each for name, each in _after(first, epochs_of(rest)).items()
        if _merged(each) not in map(_merged, arms.values())
    }  # fmt: skip
    found |= _in_run(phases)
    if HIGH in found:
        del found["dense"]
    is_long = len(rest) == 2 and min(phase.epochs or 0 for phase in rest) > 1
    if is_long and isinstance(lr := rest[0].lr, float | Decay):
        found[ITERATED] = (*first, *_iterated(epochs_of(rest), lr))
    return {**{name: found[name] for name in found if name != DSD}, DSD: found[DSD]}


def _after(first: Sequence[Phase], epochs: int) -> Arms:
    """Returns plain arms of the first dense phases and of as many epochs that follow."""
    found: Arms = {}
    if not first:
        return found
    for name, phase, fraction in ((HIGH, first[0], 0.0), (LOW, first[-1], 1.0)):
        rate = phase.lr(fraction) if isinstance(phase.lr, Decay) else phase.lr
        if isinstance(rate, float) and rate > 0:
            found[name] = (*first, DensePhase(epochs, lr=rate))
    if isinstance(decay := first[0].lr, Decay):
        found[ONE_RUN] = (DensePhase(epochs_of(first) + epochs, lr=decay),)
    return found


def _in_run(phases: Sequence[Phase]) -> Arms:
    """Returns the arms that are sparse within one conventional run, if its rate decays."""
    first, number = _dense_start(phases), epochs_of(phases)
    ends = (0, round(epochs_of(first) / 2), round(number / 2), number)
    decay = first[0].lr if first else 1.0
    if not isinstance(decay, Decay) or not 0 < ends[1] < ends[2]:
        return {}
    lengths = [b - a for a, b in itertools.pairwise(ends)]
    rates = divided(decay, lengths)
    sparse = phases[len(first)]
    if isinstance(sparse, SparsePhase):
        sparse = dataclasses.replace(sparse, ramp=min(sparse.ramp, lengths[1]))
    sparse = dataclasses.replace(sparse, epochs=lengths[1], lr=rates[1])
    start, end = DensePhase(lengths[0], lr=rates[0]), DensePhase(lengths[2], lr=rates[2])
    return {
        DSD_IN_RUN: (start, sparse, end),
        SPARSE_IN_RUN: (start, *_pruned_for_good([sparse, end])),
    }


def _iterated(epochs: int, lr: float | Decay) -> list[Phase]:
    quarter = epochs // 4
    phases: list[Phase] = []
    for index, (sparsity, factor) in enumerate(_ITERATED):
        length = quarter if index else epochs - 3 * quarter
        scaled = lr.times(factor) if isinstance(lr, Decay) else factor * lr
        if sparsity is None:
            phases.append(DensePhase(length, lr=scaled))
        else:
            phases.append(SparsePhase(length, sparsity=sparsity, lr=scaled))
    return phases


def lowered_at_once(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Returns low learning rate (LLR) training from the first sparse epoch on."""
    first = _dense_start(phases)
    rest = epochs_of(phases[len(first) :])
    return (*first, DensePhase(rest, lr=phases[-1].lr))


def shared_start(arms: Arms) -> tuple[Phase, ...]:
    """Returns the dense training that all arms start with, or that most do.

    These are the plain epochs of all arms. Without any, they are the first dense phases of DSD if
    the learning rate decays inside them; see `starts_with`.
    """
    if number := num_shared(arms):
        return (DensePhase(number),)
    first = _dense_start(arms.get(DSD, ()))
    sums = any(map(sums_for, arms.get(DSD, ())[len(first) : len(first) + 1]))
    is_plain = all(phase == DensePhase(phase.epochs, lr=phase.lr) for phase in first)
    decays = any(isinstance(phase.lr, Decay) for phase in first)
    return first if decays and is_plain and not sums else ()


def starts_with(phases: Sequence[Phase], start: Sequence[Phase]) -> bool:
    """Returns whether an arm has a start that `shared_start` returned."""
    number = epochs_of(start)
    is_plain = tuple(start) == (DensePhase(number),)
    return _num_plain(phases) >= number if is_plain else phases[: len(start)] == start


def num_shared(arms: Arms) -> int:
    """Returns the number of epochs of plain dense training that all arms start with.

    An epoch that sums gradients for the next phase is not plain.
    """
    return min(map(_num_plain, arms.values()))


def _num_plain(phases: Sequence[Phase]) -> int:
    is_plain = [phase == DensePhase(phase.epochs) for phase in phases]
    start = phases[: [*is_plain, False].index(False)]
    after = phases[len(start) : len(start) + 1]
    return max(epochs_of(start) - any(map(sums_for, after)), 0)


def _pruned_for_good(phases: Sequence[Phase]) -> list[Phase]:
    """Returns the first phase, which is sparse, in place of all; masks grow in it alone."""
    made = list[Phase]()
    for phase in phases:
        sparse = dataclasses.replace(phases[0], lr=phase.lr)
        if made and isinstance(sparse, SparsePhase):
            sparse = dataclasses.replace(sparse, ramp=1)
        made.append(dataclasses.replace(sparse, epochs=phase.epochs))
    return made


def _dense_start(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    return tuple(itertools.takewhile(lambda phase: isinstance(phase, DensePhase), phases))


def _merged(phases: Iterable[Phase]) -> tuple[Phase, ...]:
    """Returns the phases, with consecutive ones merged if they differ only in length.

    A phase in which the learning rate changes, or masks grow, is not merged: they would over both.
    """

    def kind(numbered: tuple[int, Phase]) -> tuple[int, Phase]:
        number, phase = numbered
        if isinstance(phase, SparsePhase) and phase.ramp > 1:
            return number, phase
        is_constant = isinstance(phase.lr, float)
        return 0 if is_constant else number, dataclasses.replace(phase, epochs=1)

    runs = itertools.groupby(enumerate(phases, 1), kind)
    return tuple(
        dataclasses.replace(phase, epochs=epochs_of([each for _, each in run]))
        for (_, phase), run in runs
    )


def _check_phases(timeline: Timeline) -> None:
    for index, phase in enumerate(timeline.phases):
        if phase.steps is not None:
            raise ValueError(
                f"Expected phases in epochs, which every arm is trained and scored by. Received: "
                f"phases[{index}]={shown(phase)} in steps. Give each phase `epochs`."
            )
        if phase.until is not None:
            raise ValueError(
                f"Expected phases of fixed length, for arms of equal length. Received: "
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
