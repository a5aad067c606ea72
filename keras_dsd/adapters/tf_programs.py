"""XLA programs that models share: TensorFlow keeps each one until the process ends."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import tensorflow as tf

# By the operations, with the shapes of their values. None is removed: XLA would keep it all the
# same, and compile another one for the next model.
_PROGRAMS: dict[tuple[bytes, tuple[str, ...]], Callable[..., None]] = {}
# Attributes of operations that name variables, without effect on what is computed.
_NAMES = ("_class", "_user_specified_name")


def run(function: Callable[..., None], *arguments: Any) -> None:
    """Runs a function in the XLA program of all functions with the same operations.

    The variables of the function are inputs of the program, so equal layers have one program, and
    so have equal models.

    Args:
        function: A function of tensors that reads and assigns variables, and returns nothing.
        *arguments: The tensors, or structures of them.
    """
    traced = tf.function(function).get_concrete_function(*arguments)
    graph = traced.graph.as_graph_def(add_shapes=True)
    if graph.library.function:  # with other names in each trace
        tf.function(function, jit_compile=True)(*arguments)
        return
    names = _rename(graph)
    inputs = tuple(names[each.op.name] for each in traced.inputs)
    _remove(graph, inputs)
    key = graph.SerializeToString(deterministic=True), inputs
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _compiled(graph, inputs)
    given = tf.nest.flatten(arguments, expand_composites=True)
    _PROGRAMS[key](*given, *traced.captured_inputs)


def _rename(graph: Any) -> dict[str, str]:
    """Names the operations of a graph by their positions; returns the new names by the old ones."""
    names = {node.name: f"operation_{index}" for index, node in enumerate(graph.node)}
    for node in graph.node:
        node.name = names[node.name]
        node.ClearField("experimental_debug_info")
        for index, read in enumerate(node.input):
            control, name = ("^", read[1:]) if read.startswith("^") else ("", read)
            name, *output = name.split(":")
            node.input[index] = control + ":".join([names[name], *output])
        for attribute in _NAMES:
            node.attr.pop(attribute, None)
    return names


def _remove(graph: Any, names: Collection[str]) -> None:
    """Removes operations from a graph."""
    for index in reversed(range(len(graph.node))):
        if graph.node[index].name in names:
            del graph.node[index]


def _compiled(graph: Any, inputs: Sequence[str]) -> Callable[..., None]:
    """Returns a graph as a function of its inputs that XLA compiles."""
    read = {name for node in graph.node for name in node.input}

    def program(*given: tf.Tensor) -> None:
        tensors = zip(inputs, given, strict=True)
        used = {name: tensor for name, tensor in tensors if name in read}
        tf.graph_util.import_graph_def(graph, used, name="")

    compiled: Callable[..., None] = tf.function(program, jit_compile=True)
    return compiled
