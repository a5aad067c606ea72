"""Phases of published schedules for `DSDSchedule(phases=...)`, and the paper's settings."""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

from keras_dsd.algorithm.learning_rates import Decay, GivenLearningRate, checked, divided
from keras_dsd.algorithm.phases import DensePhase, Phase, SparsePhase, epochs_of
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid, invalid_type

__all__ = ["Preset", "acdc", "dsd", "dsdsd", "for_epochs", "iterated", "one_run", "paper"]

_MOST_CYCLES = 10**5  # more phases than any run has, and few enough for memory


def dsd(
    dense: int, sparse: int, redense: int, *, redense_lr: GivenLearningRate = 0.1
) -> list[Phase]:
    """Returns Dense, Sparse, re-Dense: the phases of `DSDSchedule(dense, sparse, redense)`.

    Args:
        dense: Epochs of ordinary training; `0` starts from a trained model.
        sparse: Epochs under a fixed mask. At least 1.
        redense: Epochs in which pruned weights regrow from zero. At least 1.
        redense_lr: Learning rate in the re-dense phase, as `lr` of `DensePhase`. Defaults to `0.1`.

    Raises:
        TypeError: Epochs are not integers, or `redense_lr` is not a learning rate.
        ValueError: Epochs are too few, or `redense_lr` is not above 0, or an unknown name.

    Reference:
        Han et al., 2017, arXiv:1607.04381, Algorithm 1.
    """
    first: list[Phase] = [DensePhase(dense)] if checks.whole_number("dense", dense, least=0) else []
    checks.whole_number("sparse", sparse, least=1)
    checks.whole_number("redense", redense, least=1)
    lr = checked("redense_lr", redense_lr)
    return [*first, SparsePhase(sparse), DensePhase(redense, lr=lr)]


def for_epochs(epochs: int, *, decay: str | Decay | None = "steps") -> list[Phase]:
    """Returns DSD split over a number of epochs: three fifths dense, a fifth sparse, a fifth again.

    In every phase the learning rate restarts and decays: in the dense and the sparse phase from the
    initial one, in the re-dense phase from a tenth of it. These are the lengths and learning rates
    of the tasks in docs/results.md, which has what they show; none is known to be best. The paper's
    ResNets have 2:1:1 and start the sparse phase at a tenth. Use `compare`.

    Args:
        epochs: All epochs together. At least 3.
        decay: How the learning rate decays inside each phase: `"steps"`, `"cosine"`, `"linear"` or
            a `Decay`, multiplied by 1, 1 and 0.1. `None` leaves it at these, for an optimizer with
            a learning rate schedule. Defaults to `"steps"`: to a hundredth, in two steps.

    Raises:
        TypeError: `epochs` is not an integer, or `decay` no name or `Decay`.
        ValueError: `epochs` is below 3, or `decay` is unknown.

    Examples:
        >>> print(*timelines.for_epochs(30, decay=None), sep=", ")
        dense for 18 epochs, sparse for 6 epochs, dense for 6 epochs at 0.1 times the learning rate
    """
    dense, sparse, redense = _split("epochs", epochs, (3, 1, 1))
    lr, redense_lr = _decaying(1.0, decay), _decaying(0.1, decay)
    return [
        DensePhase(dense, lr=lr),
        SparsePhase(sparse, lr=lr),
        DensePhase(redense, lr=redense_lr),
    ]


def one_run(epochs: int, *, decay: str | Decay | None = "steps") -> list[Phase]:
    """Returns DSD within one conventional run, whose learning rate decays once, over all epochs.

    Three tenths are dense, two tenths sparse, and half dense again, with the learning rates that
    plain training of as many epochs has: of `"steps"`, the sparse phase ends where the rate first
    falls. This is the arm `dsd in one run` of docs/results.md, which has what it shows. The paper
    prunes after training has converged, as `for_epochs` does.

    Args:
        epochs: All epochs together. At least 3.
        decay: How the learning rate decays over all epochs: `"steps"`, `"cosine"`, `"linear"` or a
            `Decay`. `None` leaves it to the optimizer and to callbacks. Defaults to `"steps"`: to a
            tenth after half of the epochs, and to a hundredth after eight tenths.

    Raises:
        TypeError: `epochs` is not an integer, or `decay` no name or `Decay`.
        ValueError: `epochs` is below 3, or `decay` is unknown.

    Examples:
        >>> print(*timelines.one_run(50, decay=None), sep=", ")
        dense for 15 epochs, sparse for 10 epochs, dense for 25 epochs
    """
    lengths = _split("epochs", epochs, (3, 2, 5))
    if isinstance(decay, str) and decay == "steps":
        decay = Decay("steps", boundaries=(0.5, 0.8))
    rates = divided(_decaying(1.0, decay), lengths)
    return [
        DensePhase(lengths[0], lr=rates[0]),
        SparsePhase(lengths[1], lr=rates[1]),
        DensePhase(lengths[2], lr=rates[2]),
    ]


def dsdsd(
    dense: int,
    sparse: int,
    redense: int,
    sparse_again: int,
    redense_again: int,
    *,
    sparsities: tuple[float, float] = (0.5, 0.25),
    redense_lr: float = 0.1,
) -> list[Phase]:
    """Returns DSDSD: a second sparse phase of lower sparsity, as in the paper's speech networks.

    Args:
        dense: Epochs of ordinary training; `0` starts from a trained model.
        sparse: Epochs of the first sparse phase. At least 1.
        redense: Epochs of the first re-dense phase. At least 1.
        sparse_again: Epochs of the second sparse phase. At least 1.
        redense_again: Epochs of the second re-dense phase. At least 1.
        sparsities: Fractions of each tensor to prune in the two sparse phases, in [0, 1). Defaults
            to `(0.5, 0.25)`.
        redense_lr: Factor of the learning rate from the first re-dense phase on, applied again in
            the second. Defaults to `0.1`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: Epochs are too few, or a number is out of its range.

    Reference:
        Han et al., 2017, arXiv:1607.04381, section on DSDSD.
    """
    is_list = isinstance(sparsities, tuple | list)
    given = checks.items("sparsities", sparsities) if is_list else []
    if len(given) != 2:
        hint = "Give a tuple, such as (0.5, 0.25)."
        raise invalid_type("sparsities", sparsities, "to be two fractions", hint)
    share, share_again = (checks.fraction(f"sparsities[{i}]", s) for i, s in enumerate(given))
    factor = checks.positive("redense_lr", redense_lr)
    *first, _, regrown = dsd(dense, sparse, redense, redense_lr=factor)
    checks.whole_number("sparse_again", sparse_again, least=1)
    checks.whole_number("redense_again", redense_again, least=1)
    last = checks.positive("redense_lr ** 2", factor * factor)
    return [
        *first,
        SparsePhase(sparse, sparsity=share),
        regrown,
        SparsePhase(sparse_again, sparsity=share_again, lr=factor),
        DensePhase(redense_again, lr=last),
    ]


def iterated(
    epochs: int, *, sparsities: Sequence[float] = (0.5, 0.25), redense_lr: float = 0.1
) -> list[Phase]:
    """Returns DSD iterated with falling sparsity, where every phase has its full length.

    Args:
        epochs: Epochs of each phase. At least 1.
        sparsities: Share of each tensor to prune in each round, fractions in [0, 1), in order.
            Defaults to `(0.5, 0.25)`.
        redense_lr: Factor of the learning rate as each re-dense phase starts; it stays in the next
            sparse one. Defaults to `0.1`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: Epochs are too few, `sparsities` is empty, or a number is out of its range.

    Examples:
        >>> print(len(timelines.iterated(20, sparsities=(0.5, 0.25))))
        5

    Reference:
        Han et al., 2017, arXiv:1607.04381: its speech networks.
    """
    hint = "Give a list, such as (0.5, 0.25)."
    given = checks.listed("sparsities", sparsities, "to be a list of fractions", hint)
    shares = [checks.fraction(f"sparsities[{i}]", share) for i, share in enumerate(given)]
    if not shares:
        raise invalid("sparsities", sparsities, "to hold at least one fraction", hint)
    factor, lr = checks.positive("redense_lr", redense_lr), 1.0
    phases: list[Phase] = [DensePhase(epochs)]
    for index, share in enumerate(shares):
        sparse = SparsePhase(epochs, sparsity=share, lr=lr)
        lr = checks.positive(f"redense_lr ** {index + 1}", lr * factor)
        phases += [sparse, DensePhase(epochs, lr=lr)]
    return phases


def acdc(
    warmup: int,
    cycles: int,
    sparse: int,
    dense: int,
    *,
    sparsity: float | None = None,
    end: str = "dense",
    last: int | None = None,
) -> list[Phase]:
    """Returns AC/DC: dense training, then alternating sparse and dense phases.

    Args:
        warmup: Epochs of dense training before the first cycle. At least 1.
        cycles: Number of cycles of a sparse and a dense phase. At least 1.
        sparse: Epochs of each sparse phase. At least 1.
        dense: Epochs of each dense phase. At least 1.
        sparsity: Fraction of each tensor to prune, in [0, 1). Defaults to `None`: the sparsity
            that `apply` set for each weight.
        end: `"dense"` ends with the last cycle; `"sparse"` with one more sparse phase, as the
            published schedule does, so that the network stays sparse. Defaults to `"dense"`.
        last: Epochs of the last phase. Defaults to `None`: those of the others of its kind.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: Epochs are too few, or `end` is unknown.

    Reference:
        Peste et al., AC/DC, NeurIPS 2021, arXiv:2106.12379.
    """
    checks.choice("end", end, ("dense", "sparse"))
    checks.whole_number("cycles", cycles, least=1, unit="cycles", most=_MOST_CYCLES)
    checks.whole_number("warmup", warmup, least=1)
    checks.whole_number("sparse", sparse, least=1)
    checks.whole_number("dense", dense, least=1)
    if last is not None:
        checks.whole_number("last", last, least=1)
    pair: list[Phase] = [SparsePhase(sparse, sparsity=sparsity), DensePhase(dense)]
    phases: list[Phase] = [DensePhase(warmup), *pair * cycles]
    if end == "sparse":
        phases.append(SparsePhase(sparse if last is None else last, sparsity=sparsity))
    elif last is not None:
        phases[-1] = DensePhase(last)
    return phases


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings of one of the paper's networks: phases for `DSDSchedule`, arguments for `apply`.

    Attributes:
        phases: The phases, for `DSDSchedule(phases=preset.phases)`. They have their sparsities.
        sparsity: Share of each selected weight tensor that the first sparse phase prunes.
        exclude: What is left dense, a name that `apply` knows.
        learning_rate: The learning rate that the factors of the phases refer to: the first one that
            the paper gives, for the optimizer.

    Examples:
        >>> preset = timelines.paper("resnet", epochs=6)
        >>> model = apply(model, **preset.apply)
        >>> model.optimizer.learning_rate = preset.learning_rate
        >>> model.fit(x, y, epochs=6, callbacks=[DSDSchedule(phases=preset.phases)])
    """

    phases: tuple[Phase, ...]
    sparsity: float
    exclude: str
    learning_rate: float

    @property
    def apply(self) -> dict[str, Any]:
        """The arguments of `apply`."""
        return {"sparsity": self.sparsity, "exclude": self.exclude}

    @property
    def epochs(self) -> int:
        """Total number of epochs of all phases."""
        return epochs_of(self.phases)


@dataclasses.dataclass(frozen=True)
class _Published:
    """Settings as the paper gives them; phases are dense and sparse in turn.

    Attributes:
        epochs: Epochs of each phase.
        rates: Learning rates of each phase, as factors of the first.
        sparsities: Share of each tensor that each sparse phase prunes.
        exclude: What is left dense.
        learning_rate: The first learning rate.
    """

    epochs: tuple[float, ...]
    rates: tuple[float, ...]
    sparsities: tuple[float, ...]
    exclude: str
    learning_rate: float


_PAPER = {
    "googlenet": _Published((60, 11, 22), (1, 0.1, 0.01), (0.3,), "first_conv", 1e-2),
    "vgg": _Published((74, 1.25, 18), (1, 0.01, 0.001), (0.3,), "first_conv", 1e-2),
    "resnet": _Published((90, 45, 45), (1, 0.1, 0.01), (0.3,), "first_conv", 1e-1),
    "neuraltalk": _Published((19, 10, 6), (1, 0.1, 0.01), (0.8,), "embeddings", 1e-2),
    "deepspeech": _Published(
        (50,) * 5, (1, 0.625, 0.375, 0.125, 0.0375), (0.5, 0.25), "convolutions", 8e-4
    ),
    "deepspeech2": _Published((20,) * 5, (1, 1, 0.1, 0.1, 0.02), (0.5, 0.25), "convolutions", 3e-4),
}


def paper(name: str, *, epochs: int | None = None, decay: str | Decay | None = None) -> Preset:
    """Returns the paper's settings for one of its networks.

    Of `"googlenet"`, `"vgg"` and `"resnet"` the first convolution stays dense, of `"neuraltalk"`
    the word embedding, of `"deepspeech"` and `"deepspeech2"`, which are pruned twice, all
    convolutions. NeuralTalk's convolutional network is frozen, so it stays dense too.

    Args:
        name: `"resnet"`, `"vgg"`, `"googlenet"`, `"neuraltalk"`, `"deepspeech"` or
            `"deepspeech2"`.
        epochs: All epochs together, which are split as the paper's are; at least one a phase.
            Defaults to `None`: as many as in the paper. (VGG's sparse phase has 1.25 there, and 1
            here.)
        decay: How the learning rate decays inside each phase: `"steps"`, `"cosine"`, `"linear"` or
            a `Decay`, multiplied by the factor of each phase. The paper's decays in each phase "as
            in conventional training", which for its networks is in steps. Defaults to `None`: it
            stays at each phase's factor, for an optimizer with a learning rate schedule.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `name` or `decay` is unknown, or `epochs` fewer than phases.

    Examples:
        >>> print(*timelines.paper("resnet", epochs=60).phases, sep="; ")
        dense for 30 epochs; sparse for 15 epochs at sparsity 0.3 at 0.1 times the learning rate; \
dense for 15 epochs at 0.01 times the learning rate

    Reference:
        Han et al., 2017, arXiv:1607.04381, tables 1 to 9.
    """
    hint = f"Give one of {', '.join(map(repr, _PAPER))}."
    published = _PAPER[checks.choice("name", name, tuple(_PAPER), hint)]
    lengths = [max(round(each), 1) for each in published.epochs]
    if epochs is not None:
        lengths = _split("epochs", epochs, published.epochs)
    rates = [_decaying(rate, decay) for rate in published.rates]
    phases: list[Phase] = [DensePhase(lengths[0], lr=rates[0])]
    for i, share in enumerate(published.sparsities):
        sparse, dense = 2 * i + 1, 2 * i + 2
        phases.append(SparsePhase(lengths[sparse], sparsity=share, lr=rates[sparse]))
        phases.append(DensePhase(lengths[dense], lr=rates[dense]))
    return Preset(
        tuple(phases), published.sparsities[0], published.exclude, published.learning_rate
    )


def _decaying(factor: float, decay: str | Decay | None) -> float | Decay:
    """Returns the learning rate of a phase that decays from a factor, or stays at it."""
    if not isinstance(decay, str | Decay | None):
        hint = "Give 'steps', 'cosine', 'linear', a Decay, or None."
        raise invalid_type("decay", decay, "to be a name, a Decay or None", hint)
    shape = 1.0 if decay is None else checked("decay", decay)
    if isinstance(shape, Decay):
        return shape.times(factor)
    return factor * cast("float", shape)  # a constant one


def _split(name: str, total: int, parts: Sequence[float]) -> list[int]:
    """Returns whole numbers, at least 1 each, that add up to `total`, in the ratio of `parts`."""
    rest = checks.whole_number(name, total, least=len(parts))
    lengths = []
    for index, part in enumerate(parts):  # each takes its share of what is left
        others = len(parts) - index - 1
        share = round(rest * part / sum(parts[index:]))
        lengths.append(min(max(share, 1), rest - others))
        rest -= lengths[-1]
    return lengths
