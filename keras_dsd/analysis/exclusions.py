"""Weights that are often left dense, found by the types of their layers, for `exclude=`.

By default `apply` selects every kernel, so that a sparsity has the same meaning in every model;
`sensitivity` measures which layers are sensitive. The paper leaves the first convolution of its
networks dense, and the word embedding of NeuralTalk.
"""

from collections.abc import Sequence
from typing import Any

from keras_dsd.adapters import registry
from keras_dsd.algorithm.selection import EXCLUSIONS, exact

__all__ = ["convolutions", "embeddings", "first_conv", "published"]

_CONVOLUTIONS = {"Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D"}
_TRANSPOSED = {"Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"}


def first_conv(model: Any) -> list[str]:
    """Returns the kernel of the first convolution, which has few input channels and is sensitive.

    Args:
        model: A built model of either Keras, before or after `apply`.

    Returns:
        A list of one regular expression, for `exclude=`; empty without a convolution.

    Raises:
        TypeError: `model` is not a Keras model or layer.
        ValueError: `model` has not been built.

    Examples:
        >>> model = apply(model, exclude=[*exclusions.first_conv(model), "predictions/"])
    """
    found = _kernels(model)
    return [path for path, kinds in found if kinds & _CONVOLUTIONS and not kinds & _TRANSPOSED][:1]


def convolutions(model: Any) -> list[str]:
    """Returns the kernels of all convolutions: the paper's speech networks leave them dense.

    Args:
        model: A model of either Keras that has been built, before `apply` or after it.

    Returns:
        A list of regular expressions, for `exclude=`; empty without a convolution.

    Raises:
        TypeError: `model` is not a Keras model or layer.
        ValueError: `model` has not been built.
    """
    return [path for path, kinds in _kernels(model) if kinds & (_CONVOLUTIONS | _TRANSPOSED)]


def embeddings(model: Any) -> list[str]:
    """Returns the tables of the model's Embedding layers.

    Args:
        model: A built model of either Keras, before or after `apply`.

    Returns:
        A list of regular expressions, for `exclude=`; empty without an Embedding.

    Raises:
        TypeError: `model` is not a Keras model or layer.
        ValueError: `model` has not been built.
    """
    return [path for path, kinds in _kernels(model) if "Embedding" in kinds]


def published(model: Any) -> list[str]:
    """Returns the weights that the paper leaves dense: the first convolution, and embeddings.

    Args:
        model: A built model of either Keras, before or after `apply`.

    Returns:
        A list of regular expressions, for `exclude=`; empty with neither.

    Raises:
        TypeError: `model` is not a Keras model or layer.
        ValueError: `model` has not been built.

    Examples:
        >>> model = apply(model, exclude=exclusions.published(model))

    Reference:
        Han et al., 2017, arXiv:1607.04381.
    """
    return [*first_conv(model), *embeddings(model)]


def patterns_of(model: Any, exclude: str | Sequence[str]) -> str | Sequence[str]:
    """Returns the regular expressions that a name stands for; anything else as it is.

    Raises:
        ValueError: It is a name, and `model` has not been built.
    """
    if not isinstance(exclude, str) or exclude not in EXCLUSIONS:
        return exclude
    found: list[str] = globals()[exclude](model)
    return found


def _kernels(model: Any) -> list[tuple[str, frozenset[str]]]:
    """Returns an expression for each kernel, and the names of its layer's classes."""
    adapter = registry.adapter_of(model)
    if not adapter.training_state.is_built(model):
        raise ValueError(
            f"Expected a built model. Received: model={model.name!r}, not built. Start it with an "
            f"Input, or call model.build(input_shape)."
        )
    return [(exact(path), kinds) for path, kinds in adapter.layers_of_kernels(model)]
