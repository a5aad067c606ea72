"""Phases of published schedules, as lists for `DSDSchedule(phases=...)`."""

from keras_dsd.algorithm.timeline import DensePhase, Phase, SparsePhase
from keras_dsd.utils import checks
from keras_dsd.utils.checks import invalid_type

__all__ = ["acdc", "dsd", "dsdsd"]

_MOST_CYCLES = 10**5  # more phases than any run has, and few enough for memory


def dsd(dense: int, sparse: int, redense: int, *, redense_lr: float = 0.1) -> list[Phase]:
    """Returns Dense, Sparse, re-Dense: the phases of `DSDSchedule(dense, sparse, redense)`.

    Args:
        dense: Epochs of ordinary training; `0` starts from a trained model.
        sparse: Epochs under a fixed mask. At least 1.
        redense: Epochs in which pruned weights regrow from zero. At least 1.
        redense_lr: Factor of the learning rate in the re-dense phase. Defaults to `0.1`.

    Raises:
        TypeError: Epochs are not integers, or `redense_lr` is not a number.
        ValueError: Epochs are too few, or `redense_lr` is not above 0.

    Reference:
        Han et al., 2017, arXiv:1607.04381, Algorithm 1.
    """
    first: list[Phase] = [DensePhase(dense)] if checks.whole_number("dense", dense, least=0) else []
    checks.whole_number("sparse", sparse, least=1)
    checks.whole_number("redense", redense, least=1)
    factor = checks.positive("redense_lr", redense_lr)
    return [*first, SparsePhase(sparse), DensePhase(redense, lr=factor)]


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
    *first, _, regrown = dsd(dense, sparse, redense, redense_lr=redense_lr)
    checks.whole_number("sparse_again", sparse_again, least=1)
    checks.whole_number("redense_again", redense_again, least=1)
    factor = checks.positive("redense_lr ** 2", regrown.lr * regrown.lr)
    return [
        *first,
        SparsePhase(sparse, sparsity=share),
        regrown,
        SparsePhase(sparse_again, sparsity=share_again, lr=regrown.lr),
        DensePhase(redense_again, lr=factor),
    ]


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
