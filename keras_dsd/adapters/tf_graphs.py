"""TensorFlow for the adapters of both Kerases: traces, placement, XLA, replicas."""

import contextlib
import platform
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_dsd.adapters.base.factors import Values
from keras_dsd.adapters.base.private_names import COUNT, gradient_functions, is_debugged
from keras_dsd.protocols import Step
from keras_dsd.utils.patches import Patch, patched

# The learning rate factors of a model. They live as long as the model: a custom function that a
# step calls keeps its trace, with the variables that it read first, for later runs.
_FACTORS: "weakref.WeakKeyDictionary[Any, Factors]" = weakref.WeakKeyDictionary()
_TRACES: "weakref.WeakKeyDictionary[Any, Traces]" = weakref.WeakKeyDictionary()
# Graphs of branches and loops, which belong to the function in which they are traced.
_CONTROL_FLOW = {"CondBranchFuncGraph", "WhileCondFuncGraph", "WhileBodyFuncGraph"}
# Their operations.
_BRANCHING = {"If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile"}


class Factors:
    """Factors of the learning rates of a model in the steps to come, where the model trains.

    Updates read one variable, the factor of the step. If learning rates change inside phases, a
    step ends by setting it to the next one in a table. So no step waits for the host, and several
    run in one call.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        # On a TPU all shapes are static: all steps have the first factor, of the epoch's start.
        self._is_fixed = isinstance(strategy, tf.distribute.TPUStrategy)
        shape = tf.TensorShape([1 if self._is_fixed else None])
        kind = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        with strategy.scope():
            self.variable = tf.Variable(1.0, name="dsd_learning_rate_factor", **kind)
            self._table = tf.Variable([1.0], shape=shape, name="dsd_learning_rate_factors", **kind)
            self._position = tf.Variable(0, dtype=tf.int64, name="dsd_position", **kind)
        self._counts = False

    def set(self, values: Values) -> None:
        """Sets the factors of the next steps, in order; the last one stays."""
        table = np.asarray(values[:1] if self._is_fixed else values, np.float32)
        self._counts = len(table) > 1
        if self._counts:
            self._position.assign(0)
            self._table.assign(table)
        self.variable.assign(table[0])

    def now(self) -> tf.Variable:
        """Returns the factor of the current step."""
        return self.variable

    def count(self) -> None:
        """Advances to the next step, if there is more than one factor."""
        if self._counts:
            table = tf.convert_to_tensor(self._table)
            position = tf.minimum(self._position + 1, tf.size(table, tf.int64) - 1)
            self._position.assign(position)
            self.variable.assign(tf.gather(table, position))

    def use(self, factor: object) -> contextlib.AbstractContextManager[None]:
        """Does nothing: a traced function reads the factor of its step itself."""
        del factor
        return contextlib.nullcontext()

    def are_read(self) -> bool:
        """Returns whether what is traced now reads a factor, itself or in a function it calls."""
        return _reads(self.variable)


def factors_of(model: Any) -> Factors:
    """Returns the factors of a model's learning rates; 1.0 outside of runs."""
    if model not in _FACTORS:
        strategy = getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
        _FACTORS[model] = Factors(strategy)
    return _FACTORS[model]


def traces_of(model: Any) -> "Traces":
    """Returns the traces of a model's training steps."""
    return _TRACES.setdefault(model, Traces())


def observed_in_its_thread(
    step: Step, model: Any, active: Callable[[], contextlib.AbstractContextManager[None]]
) -> Step:
    """Returns a training function that is observed also in its own thread, if there are replicas.

    Their threads trace the step, which observes itself, and this one updates all of them.

    Args:
        step: The training function of the model.
        model: The model.
        active: Returns the block in which updates are observed.
    """
    traces = traces_of(model)
    observed = active if _has_replicas(model) else contextlib.nullcontext

    def train_function(iterator: object) -> object:
        try:
            with observed():
                return step(iterator)
        finally:
            traces.remove()

    return train_function


def _has_replicas(model: Any) -> bool:
    with model.distribute_strategy.scope():
        return bool(tf.distribute.has_strategy())


def is_chief(model: Any) -> bool:
    """Returns whether this process is the worker that writes, of those that train a model."""
    strategy = getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
    return bool(strategy.extended.should_save_summary)


def num_workers(model: Any) -> int:
    """Returns the number of workers that mirror the variables of a model."""
    strategy = getattr(model, "distribute_strategy", None)  # of a model, not of a layer
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return int(strategy.extended._num_workers)
    return 1


def is_same(model: Any, digest: bytes) -> bool:
    """Returns whether all workers, which all call it, have the same digest of 8 bytes."""
    if num_workers(model) == 1:
        return True
    strategy = model.distribute_strategy
    number = np.frombuffer(digest, np.int64)
    on_replicas = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(number)
    )
    return bool((strategy.gather(on_replicas, axis=0).numpy() == number).all())


def current() -> tf.Graph | None:
    """Returns the graph that is being traced; None in eager execution."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def is_within(outer: tf.Graph | None) -> bool:
    """Returns whether the current operations become part of the graph `outer`.

    A `tf.function` that is called within a step has its own graph, which outlives the step.
    """
    graph: Any = current()
    while graph is not outer and type(graph).__name__ in _CONTROL_FLOW:
        graph = graph.outer_graph
    return graph is outer


class Traces:
    """Graphs of the traces of a training step, which would stay in memory.

    TensorFlow's gradient registry keeps a function for each operation with a custom gradient until
    the process ends, and by it the graph with the variables that it reads. Each training step has
    such operations: the optimizer sums gradients over replicas by one. They are removed, as no one
    differentiates a training step.
    """

    def __init__(self) -> None:
        self._graphs: list[tf.Graph] = []

    def add(self) -> None:
        """Adds the graph that is being traced, if any."""
        graph = current()
        if graph is not None:
            self._graphs.append(graph)

    def remove(self) -> None:
        """Removes the gradients of the graphs."""
        while self._graphs:
            for name in _custom_gradients(self._graphs.pop()):
                gradient_functions().pop(name, None)


def _custom_gradients(graph: tf.Graph) -> Iterator[str]:
    """Yields the names of the custom gradients in a graph, without those of functions it calls.

    A function that it calls may be the user's, who may differentiate it later.
    """
    given = graph.as_graph_def()
    branches = {each.signature.name: each.node_def for each in given.library.function}
    waiting = [given.node]
    while waiting:
        for node in waiting.pop():
            if "_gradient_op_type" in node.attr:
                name = node.attr["_gradient_op_type"].s.decode()
                if name.startswith("CustomGradient-"):  # others were registered by name
                    yield name
            if node.op in _BRANCHING:
                called = (f for a in node.attr.values() for f in (a.func, *a.list.func))
                waiting += [branches.pop(f.name) for f in called if f.name in branches]


def _reads(variable: Any) -> bool:
    """Returns whether the current graph, or a function that it calls, reads a variable.

    Args:
        variable: A variable, or the distributed variable of a strategy.
    """
    graph: Any = current()
    copies = getattr(variable, "values", None) or [variable]
    handles = {id(each.handle) for each in copies}
    return graph is not None and any(id(outer) in handles for outer, _ in graph.captures)


def may_use_xla(jit_compile: object) -> bool:
    """Returns whether XLA may compile updates, which hides them from debuggers.

    Args:
        jit_compile: The user's argument of `compile`; False forbids XLA.
    """
    return jit_compile is not False and platform.system() != "Darwin" and not is_debugged()


def are_together(variables: Iterable[tf.Variable]) -> bool:
    """Returns whether variables are on one device, so that one XLA program can update them."""
    return len({each.device for each in variables}) <= 1


class CountReadOnce:
    """Reads the count of an optimizer's updates once for all variables of an update.

    Keras reads it for each variable, and computes from it what depends on nothing else, such as
    Adam's bias correction. TensorFlow merges these operations if they have the same input. In
    networks of many small layers that saves about as much time as masks take.
    """

    def __init__(self, optimizer: Any) -> None:
        self._held = vars(optimizer)
        self._graph: tf.Graph | None = None

    @contextlib.contextmanager
    def for_all(self) -> Iterator[None]:
        """Reads the count at the start of the block, in which no update changes it."""
        if COUNT in self._held and (graph := current()) is not None:
            self._graph, self._count = graph, tf.convert_to_tensor(self._held[COUNT])
        try:
            yield
        finally:
            self._graph = None

    def update(self, make: Callable[..., None], *arguments: Any) -> None:
        """Runs the update of a variable."""
        if self._graph is not None and current() is self._graph:
            make = patched(make, [Patch(self._held, COUNT, self._count)])
        make(*arguments)


def put_mask(
    mask: tf.Tensor, strategy: tf.distribute.Strategy, earlier: tf.Variable | None
) -> tf.Variable:
    """Returns a variable with a mask: `earlier`, which traced steps read, or a new one."""
    if earlier is not None:
        earlier.assign(mask)
        return earlier
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)  # where all shapes are static
    with strategy.scope():
        shape = tf.TensorShape(mask.shape if is_tpu else [None] * len(mask.shape))
        return tf.Variable(mask, trainable=False, name="dsd_mask", shape=shape)


def empty_mask(mask: tf.Variable) -> None:
    """Frees the memory of a mask, and keeps its variable for the next mask.

    Deleting the variable would not free the memory, as long as a step lives that reads it.
    """
    if not mask.shape.is_fully_defined():
        mask.assign(np.zeros([0] * mask.shape.rank, bool))


def zero(variable: tf.Variable, mask: tf.Variable | tf.Tensor) -> None:
    """Sets a variable to zero where its mask is False."""
    value = tf.convert_to_tensor(variable)
    kept = tf.convert_to_tensor(mask)
    # ensure_shape would make the XLA program dynamic, in which dropout is many times slower.
    kept.set_shape(value.shape)
    variable.assign(tf.where(kept, value, tf.zeros([], value.dtype)))


def update_replicas(
    variable: tf.Variable, update: Callable[[tf.Variable, Any], None], argument: tf.Variable
) -> None:
    """Calls `update` with a variable and an argument, on each replica separately."""

    def on_all(strategy: tf.distribute.Strategy, variable: tf.Variable, given: Any) -> None:
        strategy.extended.update(variable, update, args=(given,), group=False)

    # A custom training loop may be outside of the variable's strategy scope.
    strategy = getattr(variable, "distribute_strategy", None) or tf.distribute.get_strategy()
    tf.__internal__.distribute.interim.maybe_merge_call(on_all, strategy, variable, argument)
