"""Finds the variables of a Keras 3 model that may be pruned, and why others stay dense."""

import collections
import re
from collections.abc import Iterator
from typing import NamedTuple

import keras

from keras_dsd.algorithm import selection as reasons

# The names that Keras's own layers give to the weights of a linear map. An embedding is one: of
# the one-hot vector of its input.
_KERNELS = {
    "kernel", "recurrent_kernel", "pointwise_kernel", "embeddings", "reverse_embeddings",
}  # fmt: skip
_DEPTHWISE_KERNELS = {"depthwise_kernel"}
# Keras's layers with the method `enable_lora`.
_LORA = (
    keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding, keras.layers.Conv1D,
    keras.layers.Conv2D, keras.layers.Conv3D,
)  # fmt: skip
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
# These hold a model of another library, whose variables have names of its own.
_FOREIGN = {"TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer"}
# Names that custom layers give to a variable that has two axes, but multiplies nothing.
_BIASES = {"bias", "biases", "scale", "scales", "gamma", "beta", "alpha", "offset", "shift"}
_INPUTS = {"query", "queries", "token", "tokens", "cls", "latent", "latents", "prompt", "prompts"}
_POSITIONS = {"pos", "posemb", "position", "positions", "positional"}
_MATRICES = {"kernel", "kernels", "weight", "weights", "matrix", "projection", "proj"}


class Found(NamedTuple):
    """A variable that a layer trains, or would if it were not frozen.

    Attributes:
        variable: The variable.
        path: Keras's path of it. Where two variables have the same, the names of the models
            that hold them come first.
        barred: Why it is never pruned, or None.
        unless_named: Why it is pruned only where its whole path is given, or None.
        layer: The layer that holds it.
    """

    variable: keras.Variable
    path: str
    barred: str | None
    unless_named: str | None
    layer: keras.Layer


def find(model: keras.Layer) -> list[Found]:
    """Returns the variables of `model` that are built so far, each once, in the model's order."""
    found: dict[int, tuple[Found, str]] = {}
    for layer, prefix in _walk(model):
        for each in _find(layer):
            found.setdefault(id(each.variable), (each, prefix))
    times = collections.Counter(each.path for each, _ in found.values())
    order = {id(variable): index for index, variable in enumerate(model.variables)}
    return [
        each if times[each.path] == 1 else each._replace(path=prefix + each.path)
        for key, (each, prefix) in sorted(found.items(), key=lambda item: order.get(item[0], 0))
    ]


def parts_of(model: keras.Layer) -> list[keras.Layer]:
    """Returns `model` and every layer in it, however deep, each once."""
    return [part for part, _ in _walk(model)]


def _walk(model: keras.Layer) -> Iterator[tuple[keras.Layer, str]]:
    """Yields each part of `model` and the names of the models in `model` that hold it."""
    seen: set[int] = set()
    waiting = collections.deque([(model, "")])
    while waiting:
        part, prefix = waiting.popleft()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part, prefix
        named = isinstance(part, keras.Model) and part is not model
        inner = f"{prefix}{part.name}/" if named else prefix
        waiting.extend((layer, inner) for layer in part._flatten_layers(False, False))


def _find(layer: keras.Layer) -> Iterator[Found]:
    named = getattr(layer, "get_prunable_weights", None)
    kernels = {id(v) for v in named()} if callable(named) and layer.built else None
    is_quantised = _quantization_mode(layer) not in (None, "float8")
    has_lora = isinstance(layer, _LORA) and layer.lora_enabled
    for variable in layer._trainable_variables + layer._non_trainable_variables:
        kernel = _is_kernel(layer, variable) if kernels is None else id(variable) in kernels
        is_trained = any(variable is each for each in layer._trainable_variables)
        if has_lora and len(variable.shape) > 1:
            yield Found(variable, variable.path, reasons.LORA, None, layer)
        elif is_quantised and not is_trained and len(variable.shape) > 1:
            yield Found(variable, variable.path, reasons.QUANTISED, None, layer)
        elif not is_trained:
            continue  # a statistic or a counter
        elif not kernel:
            yield Found(variable, variable.path, reasons.NOT_A_KERNEL, None, layer)
        else:
            asked = _unless_named(layer, variable) if kernels is None else None
            frozen = None if variable.trainable else reasons.FROZEN
            yield Found(variable, variable.path, None, frozen or asked, layer)


def _quantization_mode(layer: keras.Layer) -> str | None:
    """Returns how Keras has quantised `layer`; an attribute of that name may be the user's."""
    mode: str | None = keras.layers.Layer.quantization_mode.fget(layer)
    return mode


def _is_kernel(layer: keras.Layer, variable: keras.Variable) -> bool:
    if len(variable.shape) < 2 or not keras.backend.is_float_dtype(variable.dtype):
        return False
    if getattr(variable, "overwrite_with_gradient", False):
        return False
    if _is_kerass_own(layer):
        return variable.name in _KERNELS | _DEPTHWISE_KERNELS
    return not _words(variable.name) & _BIASES


def _unless_named(layer: keras.Layer, variable: keras.Variable) -> str | None:
    depthwise = isinstance(layer, _DEPTHWISE) and variable.name == "kernel"
    if depthwise or variable.name in _DEPTHWISE_KERNELS:
        return reasons.DEPTHWISE
    words = _words(variable.name)
    if (words | _words(layer.name) | _words(type(layer).__name__)) & _POSITIONS:
        return reasons.NOT_LINEAR
    if words & _INPUTS and not words & _MATRICES:
        return reasons.NOT_LINEAR
    return None


def _is_kerass_own(layer: keras.Layer) -> bool:
    """Returns whether the layer's variables have been named by Keras, in a subclass as well."""
    return type(layer).__module__.startswith("keras.") and type(layer).__name__ not in _FOREIGN


def _words(name: str) -> set[str]:
    """Returns the words in a name: `"posEmbedding_2"` has `pos` and `embedding`."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
