"""DSDWrapper: TF-MOT's pruning wrapper, with masks that DSD sets and a call that adds nothing."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.clustering.keras import clusterable_layer
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper
from tf_keras.src.engine import base_layer_utils

from keras_dsd.adapters.base.layers import WRAPPER
from keras_dsd.adapters.tf_keras import prunable_layers
from keras_dsd.adapters.tf_keras.weight import Candidate, frozen
from keras_dsd.algorithm.selection import Selection

# Structures of tensors and of shapes, as Keras nests them.
Tensors: TypeAlias = tf.Tensor | Sequence["Tensors"] | Mapping[str, "Tensors"]
Shape: TypeAlias = tf.TensorShape | Sequence[int | None] | Sequence["Shape"] | None

tf_keras.saving.get_custom_objects().pop(WRAPPER, None)  # what stood in for it so far


@tf_keras.saving.register_keras_serializable(package="keras_dsd")
class DSDWrapper(pruning_wrapper.PruneLowMagnitude):
    """A layer whose kernels DSD prunes.

    The forward pass is the wrapped layer's own: masks act on the variables, right after each
    update. Per kernel the wrapper keeps TF-MOT's `mask` and `threshold` variables.

    Args:
        layer: The layer to wrap; shared, not copied.
        selection: The arguments of `apply`.
        sparsities: The sparsity of each kernel in the registry's order, where it is known
            already. Defaults to `None`: `selection` decides when the layer is built.
        prefix: The start of paths: the names of the models that contain the layer's model.
        **kwargs: As for a Keras layer.
    """

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
        with _shows_kernels(layer, list):
            super().__init__(layer, **kwargs)
        self.selection = selection
        self.sparsities = sparsities
        self.prefix = prefix
        self.untrained: set[int] = set()
        self.supports_masking = layer.supports_masking
        self.was_unbuilt = sparsities is None
        self.has_masks = False
        self._num_added: dict[str | None, int] = {}

    def build(self, input_shape: Shape) -> None:
        """Builds the layer where it has not been, then the mask of each kernel chosen."""
        if not self.layer.built:
            with _outer_name_scope(), tf.name_scope(self.layer.name):
                self.layer.build(input_shape)
            self.layer.built = True
        self._build_masks(input_shape)
        self.built = True

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds from what a file says; JSON makes lists, which mean several inputs, of tuples."""
        shape = config["input_shape"]
        if isinstance(shape, list) and not isinstance(shape[0], list | tuple):
            shape = tuple(shape)
        if shape is not None:
            self.build(shape)

    def _build_masks(self, input_shape: Shape) -> None:
        kernels = prunable_layers.kernels_of(self.layer)
        if not kernels:  # some layers make their weights in their first call
            return
        self.has_masks = True
        if self.sparsities is None:
            self.sparsities = [self._sparsity_of(kernel) for kernel in kernels]
        chosen = [k for k, sparsity in zip(kernels, self.sparsities, strict=True) if sparsity]
        with _shows_kernels(self.layer, lambda: chosen):
            super().build(input_shape)

    def _sparsity_of(self, kernel: tf.Variable) -> float:
        candidate = Candidate(kernel, self.layer, self.prefix)
        return self.selection.choose(candidate, frozen(self.layer))[0]

    def add_weight(self, name: str | None = None, **kwargs: Any) -> tf.Variable:
        """Adds a variable; a layer with several kernels needs a name for each one's mask."""
        count = self._num_added[name] = self._num_added.get(name, 0) + 1
        return super().add_weight(name if count == 1 else f"{name}_{count - 1}", **kwargs)

    def call(self, inputs: Tensors, *args: object, **kwargs: object) -> Tensors:
        """Calls the layer.

        Raises:
            ValueError: A wrapper of TF-MOT's calls it, which needs a layer without DSD.
        """
        caller = base_layer_utils.call_context().layer
        if caller is not self and tool_of(caller):
            raise ValueError(_wrapped_twice(self.layer.name, type(caller).__name__))
        kwargs.pop("training", None)  # the layer takes it from the call context, as without us
        if not self.layer._expects_mask_arg:
            kwargs.pop("mask", None)
        if self.has_masks:
            return self.layer(inputs, *args, **kwargs)
        with _outer_name_scope():
            outputs = self.layer(inputs, *args, **kwargs)
        with tf.init_scope():
            self._build_masks(None)
        return outputs

    def get_clusterable_weights(self) -> NoReturn:
        """Refuses to be clustered: TF-MOT asks for this first.

        Raises:
            ValueError: Always.
        """
        raise ValueError(_wrapped_twice(self.layer.name, "ClusterWeights"))

    def compute_mask(self, inputs: Tensors, mask: Tensors | None = None) -> Tensors | None:
        """Returns the layer's output mask."""
        return self.layer.compute_mask(inputs, mask)

    @property
    def stateful(self) -> bool:
        """Whether the layer carries state from batch to batch."""
        return getattr(self.layer, "stateful", False)

    @stateful.setter
    def stateful(self, value: bool) -> None:
        pass  # the layer's to say

    def reset_states(self, *args: object, **kwargs: object) -> None:
        """Resets the layer's state."""
        self.layer.reset_states(*args, **kwargs)

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
        """Returns a wrapper from what `get_config` gave."""
        config = dict(config)
        layer = tf_keras.layers.deserialize(config.pop("layer"))
        selection = Selection.from_config(config.pop("selection"))
        return cls(layer, selection, **config)


# So TF-MOT asks the wrapper, and does not refuse its type for a reason that is none.
clusterable_layer.ClusterableLayer.register(DSDWrapper)


def tool_of(layer: object) -> str | None:
    """Returns the name of the wrapper of TF-MOT's that a layer is, or None; ours is none."""
    is_theirs = type(layer).__module__.startswith("tensorflow_model_optimization.")
    return type(layer).__name__ if is_theirs else None


def _wrapped_twice(name: str, tool: str) -> str:
    return (
        f"Expected a layer without DSD to quantize or cluster. Received: layer={name!r}, which "
        f"apply() has wrapped, in TF-MOT's {tool}. Call model = keras_dsd.strip(model) first, when "
        f"DSD training is over: quantize_model(keras_dsd.strip(model))."
    )


def _outer_name_scope() -> contextlib.AbstractContextManager[str]:
    """Leaves the wrapper's name scope: weights are named as they would be without the wrapper."""
    outer = tf.get_current_name_scope().rpartition("/")[0]
    return tf.name_scope(f"{outer}/" if outer else "")


@contextlib.contextmanager
def _shows_kernels(
    layer: tf_keras.layers.Layer, kernels: Callable[[], list[tf.Variable]]
) -> Iterator[None]:
    """Gives `layer` the method that TF-MOT asks a layer for, and takes it away again."""
    vars(layer)["get_prunable_weights"] = kernels
    try:
        yield
    finally:
        del vars(layer)["get_prunable_weights"]
