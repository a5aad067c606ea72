"""DSDWrapper: a TF-MOT pruning wrapper that looks like its layer."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.clustering.keras import clusterable_layer
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_wrapper
from tf_keras.src.engine import base_layer_utils

from keras_dsd.adapters.base.layers import WRAPPER
from keras_dsd.adapters.tf_keras import prunable_layers
from keras_dsd.adapters.tf_keras.weight import Candidate, Masks, candidates_of
from keras_dsd.algorithm.selection import Selection

# Structures of tensors and of shapes, as Keras nests them.
Tensors: TypeAlias = tf.Tensor | Sequence["Tensors"] | Mapping[str, "Tensors"]
Shape: TypeAlias = tf.TensorShape | Sequence[int | None] | Sequence["Shape"] | None
# Tools of TF-MOT read of each kernel: the variable, its mask and the smallest kept magnitude.
PruningVars: TypeAlias = list[tuple[tf.Variable, tf.Variable, tf.Variable]]

# Keras saves the state of a layer by its attributes. The attribute `layer` of the wrapped layer is
# hidden by that of the wrapper, so it has another name with the same meaning in a path.
_LAYER_OF_LAYER = "layer/"


def _nodes_of_layer(name: str) -> property:
    """Returns the property of a wrapper that is an attribute of its layer: a list of nodes."""

    def get(wrapper: "DSDWrapper") -> list[Any]:
        return getattr(wrapper.layer, name) if wrapper._is_made else []

    def put(wrapper: "DSDWrapper", nodes: list[Any]) -> None:
        setattr(wrapper.layer, name, nodes)

    return property(get, put)


tf_keras.saving.get_custom_objects().pop(WRAPPER, None)  # its placeholder so far
_registered = tf_keras.saving.register_keras_serializable(*WRAPPER.split(">"))


@_registered
class DSDWrapper(pruning_wrapper.PruneLowMagnitude):
    """A layer whose kernels DSD prunes.

    It has the name, the nodes, the state and the attributes of the wrapped layer, and a class of
    the same name: logs, summaries, files and checkpoints of the model are unchanged. So is the
    forward pass, as masks are applied to the variables right after each update. Masks are not
    saved, and not among the weights.

    Args:
        layer: The layer to wrap; shared, not copied.
        selection: The arguments of `apply`.
        sparsities: The sparsity of each kernel in the registry's order, if known. Defaults to
            `None`: `selection` decides when the layer is built.
        prefix: Prefix of paths: the names of the models that contain the layer's model.
        **kwargs: Arguments of a Keras layer.
    """

    _is_made = False

    def __new__(cls, layer: tf_keras.layers.Layer, *args: Any, **kwargs: Any) -> "DSDWrapper":
        """Returns a wrapper whose class has the name of the layer's class."""
        return super().__new__(_class_named(type(layer).__name__), layer, *args, **kwargs)

    def __init__(
        self,
        layer: tf_keras.layers.Layer,
        selection: Selection,
        sparsities: list[float] | None = None,
        prefix: str = "",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", getattr(layer, "_dtype_policy", None))
        kwargs.setdefault("autocast", getattr(layer, "_autocast", True))
        with _shows_kernels(layer):
            super().__init__(layer, **kwargs)
        self._name = layer.name
        self._call_spec = layer._call_spec
        self._build_input_shape = layer._build_input_shape
        self.built = layer.built
        self.selection = selection
        self.sparsities = sparsities
        self.prefix = prefix
        self.masks = Masks()
        self.supports_masking = layer.supports_masking
        self.was_unbuilt = sparsities is None
        self._is_made = True

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the layer that the wrapper lacks."""
        if not self._is_made or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.layer, name.rstrip("/"))

    def __setattr__(self, name: str, value: object) -> None:
        """Sets an attribute; of the layer if only the layer has it."""
        is_the_layers = self._is_made and name in vars(self.layer) and name not in vars(self)
        if is_the_layers and not hasattr(type(self), name):
            setattr(self.layer, name, value)
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> Iterable[str]:
        """Returns the layer's attributes, by which Keras saves and loads its state."""
        names = set(dir(self.layer))
        return names - {"layer"} | {_LAYER_OF_LAYER} if "layer" in names else names

    _inbound_nodes = _nodes_of_layer("_inbound_nodes")
    _outbound_nodes = _nodes_of_layer("_outbound_nodes")

    def _trackable_children(
        self, save_type: str = "checkpoint", **kwargs: Any
    ) -> dict[str, Any]:  # a checkpoint is that of the model without wrappers
        if save_type == "checkpoint":
            return self.layer._trackable_children(save_type, **kwargs)
        return super()._trackable_children(save_type, **kwargs)

    @property
    def _deferred_dependencies(self) -> dict[str, list[Any]]:
        return self.layer._deferred_dependencies if self._is_made else {}

    def save_own_variables(self, store: Any) -> None:
        """Saves the layer's variables."""
        self.layer.save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Loads the layer's variables."""
        self.layer.load_own_variables(store)

    @property
    def kernels(self) -> list[tuple[Candidate, float]]:
        """The kernels to prune with their sparsities; empty before all are built."""
        if not self.sparsities or prunable_layers.is_unbuilt(self.layer):
            return []
        candidates = candidates_of(self.layer, self.prefix)
        return [pair for pair in zip(candidates, self.sparsities, strict=True) if pair[1]]

    def build(self, input_shape: Shape) -> None:
        """Builds the layer if it is not built, and selects its kernels."""
        if not self.layer.built and not hasattr(self.layer.build, "_is_default"):
            with _outer_name_scope(), tf.name_scope(self.layer.name):
                self.layer.build(input_shape)
            tf_keras.layers.Layer.build(self.layer, input_shape)
        if not prunable_layers.is_unbuilt(self.layer):  # some create weights in their first call
            self._select()
        self._build_input_shape = input_shape
        self.built = True

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds the layer from a config, in which JSON has turned tuples into lists."""
        shape = config["input_shape"]
        if isinstance(shape, list) and not isinstance(shape[0], list | tuple):
            shape = tuple(shape)
        if shape is not None:
            self.build(shape)

    def _select(self) -> None:
        if self.sparsities is None:
            candidates = candidates_of(self.layer, self.prefix)
            self.sparsities = [self.selection.choose(each)[0] for each in candidates]

    def call(self, inputs: Tensors, *args: object, **kwargs: object) -> Tensors:
        """Calls the layer, by name, as recurrent layers have another order of arguments.

        Raises:
            ValueError: A TF-MOT wrapper calls it, which needs a layer without DSD.
        """
        caller = base_layer_utils.call_context().layer
        if caller is not self and tool_of(caller):
            raise ValueError(_wrapped_twice(self.layer.name, type(caller).__name__))
        names = self._call_spec.arg_names[1:]
        if len(args) <= len(names):
            args, kwargs = (), {**dict(zip(names, args, strict=False)), **kwargs}
        with _outer_name_scope():
            outputs = self.layer(inputs, *args, **kwargs)
        if self.sparsities is None:
            with tf.init_scope():
                self._select()
        return outputs

    def get_clusterable_weights(self) -> NoReturn:
        """Refuses clustering: TF-MOT calls this first.

        Raises:
            ValueError: Always.
        """
        raise ValueError(_wrapped_twice(self.layer.name, "ClusterWeights"))

    def compute_mask(self, inputs: Tensors, mask: Tensors | None = None) -> Tensors | None:
        """Returns the layer's output mask."""
        return self.layer.compute_mask(inputs, mask)

    @property
    def stateful(self) -> bool:
        """True if the layer carries state from batch to batch."""
        return getattr(self.layer, "stateful", False)

    @stateful.setter
    def stateful(self, value: bool) -> None:
        pass  # decided by the layer

    def reset_states(self, *args: object, **kwargs: object) -> None:
        """Resets the layer's state."""
        self.layer.reset_states(*args, **kwargs)

    def _pruning_vars(self) -> PruningVars:
        return [self._pruning_vars_of(kernel.variable) for kernel, _ in self.kernels]

    def _pruning_vars_of(self, kernel: tf.Variable) -> tuple[tf.Variable, tf.Variable, tf.Variable]:
        values, kept = kernel.numpy(), self.masks.to_numpy(kernel)
        threshold = 0.0 if kept is None or not kept.any() else np.abs(values[kept]).min()
        mask = np.ones(values.shape) if kept is None else kept
        name = kernel.name.rpartition(":")[0]
        made = [
            tf.Variable(value.astype(values.dtype), trainable=False, name=f"{name}/{part}")
            for part, value in (("mask", mask), ("threshold", np.asarray(threshold)))
        ]
        return kernel, made[0], made[1]

    def _pruning_obj(self) -> pruning_impl.Pruning:
        return pruning_impl.Pruning(
            lambda: self.pruning_step, self.pruning_vars, self.pruning_schedule,
            self.block_size, self.block_pooling_type,
        )  # fmt: skip

    def _pruning_step(self) -> tf.Variable:
        return tf.Variable(-1, trainable=False, dtype=tf.int64, name="pruning_step")

    def _ignore(self, value: object) -> None:
        """Does nothing: the value is computed when tools of TF-MOT read it."""

    pruning_vars = property(_pruning_vars, _ignore)
    pruning_obj = property(_pruning_obj, _ignore)
    pruning_step = property(_pruning_step, _ignore)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's config with the DSD settings.

        Raises:
            ValueError: `sparsity` is a callable, and the layer has not been built.
        """
        config = super().get_config()
        for name in ("pruning_schedule", "block_size", "block_pooling_type"):
            del config[name]
        if self.sparsities is None and callable(self.selection.sparsity):
            raise ValueError(
                f"Expected the layer to be built before it is saved, as `sparsity` is a callable. "
                f"Received: layer={self.layer.name!r}, not built. Call the model once first."
            )
        return {
            **config,
            "selection": self.selection.get_config(),
            "sparsities": self.sparsities,
            "prefix": self.prefix,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DSDWrapper":
        """Returns a wrapper from its config."""
        config = dict(config)
        layer = tf_keras.layers.deserialize(config.pop("layer"))
        selection = Selection.from_config(config.pop("selection"))
        return DSDWrapper(layer, selection, **config)


@functools.cache
def _class_named(name: str) -> type[DSDWrapper]:
    """Returns a class of that name for summaries, which is saved as `DSDWrapper`."""
    kind = type(name, (DSDWrapper,), {"__doc__": DSDWrapper.__doc__, "__module__": __name__})
    _registered(kind)
    _registered(DSDWrapper)  # the class that files are loaded with
    return kind


# TF-MOT calls the wrapper, instead of refusing its type for a wrong reason.
clusterable_layer.ClusterableLayer.register(DSDWrapper)


def tool_of(layer: object) -> str | None:
    """Returns the class name of a TF-MOT wrapper, or None for other layers and for `DSDWrapper`."""
    is_theirs = type(layer).__module__.startswith("tensorflow_model_optimization.")
    return type(layer).__name__ if is_theirs else None


def _wrapped_twice(name: str, tool: str) -> str:
    return (
        f"Expected a layer without DSD to quantize or cluster. Received: layer={name!r}, which "
        f"apply() has wrapped, in {tool} of TF-MOT. Call strip() after DSD training: "
        f"quantize_model(keras_dsd.strip(model))."
    )


def _outer_name_scope() -> contextlib.AbstractContextManager[str]:
    """Leaves the wrapper's name scope, so that weights are named as without the wrapper."""
    outer = tf.get_current_name_scope().rpartition("/")[0]
    return tf.name_scope(f"{outer}/" if outer else "")


@contextlib.contextmanager
def _shows_kernels(layer: tf_keras.layers.Layer) -> Iterator[None]:
    """Sets the method that TF-MOT expects of a layer on `layer`, within the block."""
    no_kernels: Callable[[], list[tf.Variable]] = list
    vars(layer)["get_prunable_weights"] = no_kernels
    try:
        yield
    finally:
        del vars(layer)["get_prunable_weights"]
