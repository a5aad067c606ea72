"""apply, strip, weights and report: the functions on a model outside of `fit`."""

from collections.abc import Sequence
from typing import Any

from keras_dsd.adapters import registry
from keras_dsd.algorithm.patterns import Pattern
from keras_dsd.algorithm.selection import DEFAULT_SPARSITY, Selection, Sparsity
from keras_dsd.analysis.report import SparsityReport, make_report
from keras_dsd.protocols import PrunableWeight


def apply(
    model: Any,
    sparsity: Sparsity = DEFAULT_SPARSITY,
    *,
    exclude: Sequence[str] = (),
    pattern: Pattern = None,
    scope: str = "layer",
) -> Any:
    """Chooses the weights that DSD prunes and returns the model to compile and fit.

    The same model is returned. Of Keras 3 it is as it was; its selection is stored per model,
    outside of it. Of tf_keras, wrappers with their layers' names stand in its list of layers.
    Nothing is pruned yet: `DSDSchedule` does that. A model that was compiled stays compiled, with
    its optimizer's state. Whether a layer is frozen counts when a sparse phase begins. Weights
    that can't be pruned stay as they are; `report` lists them.

    Args:
        model: Any Keras 3 model or layer, built or not. Or a Sequential or functional tf_keras
            model, with others nested in it or not; or a single tf_keras layer, for use inside a
            subclassed model.
        sparsity: Share of each weight tensor to prune, a fraction in [0, 1). Or a dict
            `{regular expression on the weight's path: fraction}`, where the first that `re.search`
            finds in the path, with or without the model's own name, counts, 0 leaves the weight
            dense and so does a path that none matches; what is left dense by default, such as a
            frozen weight, needs its full path, as it is or as `"^" + re.escape(path) + "$"`.
            Or a callable from a `PrunableWeight` to a fraction. Defaults to `0.3`.
        exclude: Regular expressions on paths; weights whose path one matches stay dense.
            `exclusions.published(model)` has those of the first convolution and of embeddings,
            which are pruned by default.
        pattern: `None` prunes single weights; `Block(height, width)` blocks of them, ranked by
            their pooled magnitude; `NM(n, m)` all but the `n` largest of every `m` consecutive
            inputs, which fixes the sparsity. Defaults to `None`.
        scope: `"layer"`: each tensor is pruned to its own sparsity. `"global"`: one ranking over
            all, pruned by as many in sum; each keeps a tenth of what it would by itself, at least.

    Returns:
        The same model, to train; of a tf_keras layer, its wrapper.

    Raises:
        TypeError: `model` is no Keras model or layer, or holds layers of the other Keras, or
            another argument is of the wrong type.
        ValueError: A fraction is outside [0, 1), a pattern matches no weight, nothing is left
            to prune, `scope` is unknown, `sparsity` or `scope="global"` is given with an `NM`,
            `model` is of a tf_keras subclass, or has been through `apply` before. `model` is as
            it was then.

    Examples:
        >>> model = apply(model, {"conv": 0.3, "dense": 0.5}, exclude=["predictions/"])

    Reference:
        Han et al., 2017, arXiv:1607.04381.
    """
    return registry.adapter_of(model).apply(model, Selection(sparsity, exclude, pattern, scope))


def strip(model: Any) -> Any:
    """Returns the model without DSD: layers, names, weights and config as before `apply`.

    The same model is returned, without the wrappers of a tf_keras one. A compiled model stays
    compiled. Strip after training; weights that are
    pruned at that moment stay zero.

    Args:
        model: A model, or a layer, that `apply` returned; of tf_keras, also one loaded from its
            file.

    Returns:
        The same model; of a tf_keras wrapper, its layer.

    Raises:
        TypeError: `model` is no Keras model or layer.
        ValueError: `model` holds nothing that `apply` returned.
    """
    return registry.adapter_of(model).strip(model)


def weights(model: Any) -> list[PrunableWeight]:
    """Returns the weights of `model` that DSD prunes, in the model's order.

    Args:
        model: A model, or a layer, that `apply` returned; a subclassed one with such layers.

    Returns:
        A list of `PrunableWeight`: `.path`, `.shape`, `.sparsity` (target), `.mask` (boolean array,
        or None in dense phases) and `.numpy()`.

    Raises:
        TypeError: `model` is no Keras model or layer.
        ValueError: `model` holds nothing that `apply` returned.
    """
    return list(registry.adapter_of(model).weights(model))


def report(model: Any) -> SparsityReport:
    """Measures how sparse each weight is now, and lists weights that are never pruned and why.

    Args:
        model: A model, or a layer, that `apply` returned; a subclassed one with such layers.

    Raises:
        TypeError: `model` is no Keras model or layer.
        ValueError: `model` holds nothing that `apply` returned.
    """
    adapter = registry.adapter_of(model)
    return make_report(adapter.weights(model), adapter.skipped(model))
