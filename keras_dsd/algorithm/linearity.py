"""Detection of linear maps among the weights of unknown layers: by shape and by name.

A kernel has an axis of the length of the input features, and sums over it. A weight with one value
per feature, or with the shape of one example, is added to the input or multiplied with it
elementwise. If a shape allows both, common names decide.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from keras_dsd.algorithm.selection import NOT_A_KERNEL, NOT_LINEAR, NOT_LINEAR_BY_SHAPE

Shape = tuple[int | None, ...]

_BIASES = {"bias", "biases", "scale", "scales", "gamma", "beta", "alpha", "offset", "shift"}
_INPUTS = {"query", "queries", "token", "tokens", "cls", "latent", "latents", "prompt", "prompts"}
_POSITIONS = {"pos", "posemb", "position", "positions", "positional"}
_TABLES = {
    "emb", "embed", "embeds", "embedding", "embeddings", "encoding", "encodings", "codebook",
}  # fmt: skip
_MATRICES = {"kernel", "kernels", "weight", "weights", "matrix", "projection", "proj"}


class Inputs(NamedTuple):
    """Known inputs of a layer.

    Attributes:
        examples: Shapes of its inputs, without the batch axis; None for a size that varies.
        features: Numbers of features; without examples, the sizes of the layer's vectors.
    """

    examples: Sequence[Shape]
    features: frozenset[int]

    @classmethod
    def of(cls, examples: Iterable[Shape], vectors: Iterable[int]) -> "Inputs":
        """Returns the inputs of `examples` or, without them, of the sizes of vectors."""
        found = [example for example in examples if example]
        last = [example[-1] for example in found]
        return cls(found, frozenset([size for size in last if size] if found else vectors))

    @property
    def rows(self) -> "Inputs":
        """Inputs that are rows of features, such as a sequence; ids and vectors are not."""
        return Inputs.of([example for example in self.examples if len(example) > 1], ())


def why_not_linear(
    name: str, owners: Sequence[str], shape: tuple[int, ...], inputs: Inputs
) -> str | None:
    """Returns the reason why a weight is not that of a linear map, or None if it is.

    Args:
        name: Name of the weight.
        owners: Names of its layer and of the layer's class.
        shape: Its shape, at least two axes.
        inputs: Inputs of the layer.

    Returns:
        `NOT_A_KERNEL` for a bias, `NOT_LINEAR_BY_SHAPE`, `NOT_LINEAR` by its name, or None.
    """
    names = words(name)
    is_matrix = bool(names & _MATRICES)
    sums = _sums_over_features(shape, inputs)
    if names & _BIASES and not is_matrix and not sums:
        return NOT_A_KERNEL
    if not is_matrix and not sums and _has_value_for_each(shape, inputs):
        return NOT_LINEAR_BY_SHAPE
    is_owned = is_of_positions(*map(words, owners)) and _may_be_table(shape, inputs)
    if is_of_positions(names) or is_owned:
        return None if _sums_over_features(shape, inputs.rows) else NOT_LINEAR
    if is_matrix or sums:
        return None
    is_asked = names & _INPUTS == {"query"} and shape[0] in inputs.features  # as are keys
    if names & _INPUTS and not is_asked:
        return NOT_LINEAR
    is_table = names & _TABLES and _has_rows_of_features(shape, inputs.rows)
    return NOT_LINEAR if is_table else None


def is_of_positions(*names: set[str]) -> bool:
    """Returns whether words name a value for each position of an input."""
    return any(each & _POSITIONS for each in names)


def words(name: str) -> set[str]:
    """Returns the words in a name: `pos` and `embedding` in `"posEmbedding_2"`."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def _sums_over_features(shape: tuple[int, ...], inputs: Inputs) -> bool:
    """Returns whether a shape can only be that of a kernel."""
    flat = {math.prod(size or 0 for size in example) for example in inputs.examples}
    if not {*shape[:-1]} & inputs.features and shape[0] not in flat:
        return False
    return not (_is_example(shape, inputs) or _has_rows_of_features(shape, inputs))


def _has_value_for_each(shape: tuple[int, ...], inputs: Inputs) -> bool:
    """Returns whether a shape can only be that of a value per feature or per input value."""
    if len(_significant(shape)) < 2:
        return True
    if math.prod(shape) in inputs.features:  # split, such as over heads
        return not {*shape} & inputs.features
    return _is_example(shape, inputs) and not {*shape[:-1]} & inputs.features


def _may_be_table(shape: tuple[int, ...], inputs: Inputs) -> bool:
    """Returns whether a shape may be that of a row of features per position."""
    if not inputs.features:
        return True
    lengths = {example[0] for example in inputs.rows.examples}
    is_long_enough = shape[0] not in inputs.features or bool(lengths & {None, shape[0]})
    return _has_rows_of_features(shape, inputs) and is_long_enough


def _has_rows_of_features(shape: tuple[int, ...], inputs: Inputs) -> bool:
    return math.prod(shape[1:]) in inputs.features


def _is_example(shape: tuple[int, ...], inputs: Inputs) -> bool:
    return _significant(shape) in inputs.examples


def _significant(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a shape without its leading axes of length 1."""
    first = next((axis for axis, size in enumerate(shape) if size > 1), len(shape))
    return shape[first:]
