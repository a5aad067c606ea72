"""apply, strip, weights and report: functions of a model outside of `fit`."""

from collections.abc import Sequence
from typing import Any

from keras_dsd.adapters import registry
from keras_dsd.algorithm.patterns import Pattern
from keras_dsd.algorithm.selection import DEFAULT_SPARSITY, Selection, Sparsity
from keras_dsd.analysis import exclusions
from keras_dsd.analysis.report import SparsityReport, make_report
from keras_dsd.protocols import PrunableWeight


def apply(
    model: Any,
    sparsity: Sparsity = DEFAULT_SPARSITY,
    *,
    exclude: str | Sequence[str] = (),
    pattern: Pattern = None,
    scope: str = "layer",
) -> Any:
    """Chooses the weights that DSD prunes and returns the model to compile and fit.

    Returns the same model. A Keras 3 model is unchanged; the selection is stored per model, outside
    of it. In a tf_keras model, prunable layers are replaced by wrappers with the same names.
    `apply` prunes nothing; `DSDSchedule` does. A compiled model stays compiled, with its optimizer
    state. Layers that are frozen when a sparse phase starts are not pruned. Weights that can't be
    pruned are left alone; `report` lists them.

    Args:
        model: A Keras 3 model or layer, built or not. Or a Sequential or functional tf_keras
            model, with or without nested models; or a single tf_keras layer, for use inside a
            subclassed model.
        sparsity: Fraction of each weight tensor to prune, in [0, 1). Or a dict
            `{regular expression on the weight's path: fraction}`: the first expression that
            `re.search` finds in the path, with or without the model name, counts. A weight with
            fraction 0 or without a match stays dense. A weight that is dense by default, such as a
            frozen one, needs its full path, verbatim or as `"^" + re.escape(path) + "$"`.
            Or a callable from a `PrunableWeight` to a fraction. Defaults to `0.3`.
        exclude: Regular expressions on paths; weights whose path matches one stay dense. Or the
            name of a function in `exclusions`, for a built model: `"first_conv"`, `"embeddings"`,
            `"convolutions"`, or `"published"`, the first two of these. By default all of them are
            pruned. Defaults to `()`.
        pattern: `None` prunes single weights; `Block(height, width)` prunes blocks, ranked by their
            pooled magnitude; `NM(n, m)` prunes all but the `n` largest of every `m` consecutive
            inputs, which fixes the sparsity. Defaults to `None`.
        scope: `"layer"` prunes each tensor to its own sparsity. `"global"` prunes the same total
            number in one ranking over all tensors, each of which keeps at least a tenth of the
            weights that it would keep alone. Defaults to `"layer"`.

    Returns:
        The same model, to train; of a tf_keras layer, its wrapper.

    Raises:
        TypeError: `model` is not a Keras model or layer, or holds layers of the other Keras, or
            another argument is of the wrong type.
        ValueError: A fraction is outside [0, 1), an expression matches no weight, no weight is
            selected, `scope` is unknown, `sparsity` or `scope="global"` is given with an `NM`,
            `model` is a subclassed tf_keras model, or was passed through `apply` before. `model` is
            unchanged.

    Examples:
        >>> model = apply(model, {"conv": 0.3, "dense": 0.5}, exclude=["predictions/"])

    Reference:
        Han et al., 2017, arXiv:1607.04381.
    """
    adapter = registry.adapter_of(model)
    patterns = exclusions.patterns_of(model, exclude)
    return adapter.apply(model, Selection(sparsity, patterns, pattern, scope))


def strip(model: Any) -> Any:
    """Returns the model without DSD: layers, names, weights and config as before `apply`.

    Returns the same model, a tf_keras model without the wrappers. A compiled model stays compiled.
    Strip after training: weights that are pruned at that moment stay zero.

    Args:
        model: A model or layer that `apply` returned; for tf_keras, also one loaded from its file.

    Returns:
        The same model; of a tf_keras wrapper, its layer.

    Raises:
        TypeError: `model` is not a Keras model or layer.
        ValueError: `model` was not passed through `apply`.
    """
    return registry.adapter_of(model).strip(model)


def weights(model: Any) -> list[PrunableWeight]:
    """Returns the weights of `model` that DSD prunes, in the model's order.

    Args:
        model: A model or layer that `apply` returned, or a subclassed model with such layers.

    Returns:
        A list of `PrunableWeight`: `.path`, `.shape`, `.sparsity` (target), `.mask` (boolean array,
        or None in dense phases) and `.numpy()`.

    Raises:
        TypeError: `model` is not a Keras model or layer.
        ValueError: `model` was not passed through `apply`.
    """
    return list(registry.adapter_of(model).weights(model))


def report(model: Any) -> SparsityReport:
    """Measures the sparsity of each weight, and lists weights that are never pruned, with reasons.

    Args:
        model: A model or layer that `apply` returned, or a subclassed model with such layers.

    Raises:
        TypeError: `model` is not a Keras model or layer.
        ValueError: `model` was not passed through `apply`.
    """
    adapter = registry.adapter_of(model)
    return make_report(adapter.weights(model), adapter.skipped(model))
