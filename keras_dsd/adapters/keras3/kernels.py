"""Variables of a Keras 3 model that may be pruned, and reasons why others stay dense."""

import collections
from collections.abc import Iterator
from typing import NamedTuple

import keras

from keras_dsd.adapters.base.layers import preparing_inputs
from keras_dsd.algorithm import linearity
from keras_dsd.algorithm import selection as reasons

# Names of the weights of linear maps in Keras layers. An embedding is one: a linear map of the
# one-hot vector of its input.
_KERNELS = {
    "kernel", "recurrent_kernel", "pointwise_kernel", "embeddings", "reverse_embeddings",
}  # fmt: skip
_DEPTHWISE_KERNELS = {"depthwise_kernel"}
# Keras layers with the method `enable_lora`.
_LORA = (
    keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding, keras.layers.Conv1D,
    keras.layers.Conv2D, keras.layers.Conv3D,
)  # fmt: skip
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
# These hold a model of another library, with its own names of variables.
_FOREIGN = {"TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer"}


class Found(NamedTuple):
    """A variable that a layer trains, frozen or not.

    Attributes:
        variable: The variable.
        path: Its Keras path. Equal paths of two variables are prefixed by the names of the models
            that hold them.
        barred: Reason why it is never pruned, or None.
        unless_named: Reason why it is pruned only if its full path is given, or None.
        layer: The layer that holds it.
    """

    variable: keras.Variable
    path: str
    barred: str | None
    unless_named: str | None
    layer: keras.Layer


def find(model: keras.Layer) -> list[Found]:
    """Returns the built variables of `model`, without duplicates, in the model's order."""
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
    """Returns `model` and every layer in it, at any depth, without duplicates."""
    return [part for part, _ in _walk(model)]


def is_built(model: keras.Layer) -> bool:
    """Returns whether all layers that train are built; preprocessing layers may never be."""
    prepare = preparing_inputs(model, keras.layers)
    others = {id(part) for layer in prepare for part in layer._flatten_layers()}
    return all(part.built or id(part) in others for part in parts_of(model))


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
        barred, unless_named = _reasons(layer, variable)
        if kernels is not None:
            barred = None if id(variable) in kernels else reasons.NOT_A_KERNEL
            unless_named = None
        is_trained = any(variable is each for each in layer._trainable_variables)
        if has_lora and len(variable.shape) > 1:
            yield Found(variable, variable.path, reasons.LORA, None, layer)
        elif is_quantised and not is_trained and len(variable.shape) > 1:
            yield Found(variable, variable.path, reasons.QUANTISED, None, layer)
        elif not is_trained:
            continue  # a statistic or a counter
        elif barred is not None:
            yield Found(variable, variable.path, barred, None, layer)
        else:
            frozen = None if variable.trainable else reasons.FROZEN
            yield Found(variable, variable.path, None, frozen or unless_named, layer)


def _quantization_mode(layer: keras.Layer) -> str | None:
    """Returns the quantization mode of `layer`; a custom attribute may have that name."""
    mode: str | None = keras.layers.Layer.quantization_mode.fget(layer)
    return mode


def _reasons(layer: keras.Layer, variable: keras.Variable) -> tuple[str | None, str | None]:
    """Returns reasons why a variable is never pruned, and why only if its full path is given."""
    shape = tuple(variable.shape)
    is_float = keras.backend.is_float_dtype(variable.dtype)
    is_state = getattr(variable, "overwrite_with_gradient", False)
    if len(shape) < 2 or not is_float or is_state:
        return reasons.NOT_A_KERNEL, None
    is_depthwise = isinstance(layer, _DEPTHWISE) and variable.name == "kernel"
    if is_depthwise or variable.name in _DEPTHWISE_KERNELS:
        return None, reasons.DEPTHWISE
    if _is_kerass_own(layer) or (variable.name in _KERNELS and _extends_kerass_own(layer)):
        if variable.name not in _KERNELS:
            return reasons.NOT_A_KERNEL, None
        return None, None
    owners = [layer.name, type(layer).__name__]
    reason = linearity.why_not_linear(variable.name, owners, shape, _inputs_of(layer))
    return (reason, None) if reason == reasons.NOT_A_KERNEL else (None, reason)


def _is_kerass_own(layer: keras.Layer) -> bool:
    """Returns whether the class of a layer is one of Keras, which names all its variables."""
    return type(layer).__module__.startswith("keras.") and type(layer).__name__ not in _FOREIGN


def _extends_kerass_own(layer: keras.Layer) -> bool:
    """Returns whether a class extends a Keras layer, which may have named a variable."""
    own = (base for base in type(layer).__mro__ if base.__module__.startswith("keras.src.layers."))
    return any(base is not keras.layers.Layer for base in own)


def _inputs_of(layer: keras.Layer) -> linearity.Inputs:
    config = layer.get_build_config() if layer.built else None
    shapes = list(_shapes_in(config))
    if not shapes:  # of a layer without its own build()
        nodes = getattr(layer, "_inbound_nodes", ())
        shapes = [tuple(each.shape) for node in nodes for each in node.input_tensors]
    vectors = (variable.shape[0] for variable in layer.variables if len(variable.shape) == 1)
    return linearity.Inputs.of([shape[1:] for shape in shapes], vectors)


def _shapes_in(config: object) -> Iterator[tuple[int | None, ...]]:
    """Yields the input shapes with which a layer was built."""
    if isinstance(config, dict):
        config = list(config.values())
    if isinstance(config, list | tuple):
        if config and all(isinstance(size, int | None) for size in config):
            yield tuple(config)
        else:
            for each in config:
                yield from _shapes_in(each)
