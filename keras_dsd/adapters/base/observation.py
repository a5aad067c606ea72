"""Observes what updates the weights of a model, where that happens: in the optimizers' classes.

Hooks stand in front of a few methods of the optimizer classes, but only while a training step runs
in Python; of a compiled step that is when it is traced. They act in the threads that run a step of
the observed model, and pass every other call on.
"""

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from keras_dsd.adapters.base.private_names import strategy_of

# An optimizer as observing it requires: Keras's own, or one of torch.optim.
AnyOptimizer: TypeAlias = object
# A method, or a property, of a class.
Member: TypeAlias = Any

# What each thread runs now: an observation, and the optimizers that are updating in it.
_thread = threading.local()
_of_strategy: dict[int, "Observation"] = {}


class UpdateHook(Protocol):
    """What acts on the updates of a step: it masks them."""

    def before(self, optimizer: AnyOptimizer) -> None:
        """Prepares for an update by `optimizer`."""

    def after(self, optimizer: AnyOptimizer, is_outermost: bool) -> None:
        """Follows an update by `optimizer`; one that others make for it is not the outermost."""

    def finish(self) -> None:
        """Takes back what `before` prepared, as a step ends."""


class Observation:
    """What is known of the updates of one model's weights. What was observed is of one run.

    Args:
        factor: Multiplies the learning rate of every optimizer: a number, a variable or, while a
            step is traced that takes it as an argument, its tracer.
        strategy: The `tf.distribute.Strategy` whose replica threads work for the model, or None.
        only: The optimizers to observe, with those that they make their updates through; None: all.
        loss_scales: The classes of optimizers that scale the loss: they hold no state of a weight.

    Attributes:
        optimizers: What updated weights, each once, in the order of the first update.
        is_factor_read: Whether a step was found to read the factor where no update was seen: the
            function that updates was traced in an earlier run of the model.
    """

    def __init__(
        self,
        factor: object = 1.0,
        strategy: object = None,
        only: Sequence[AnyOptimizer] | None = None,
        loss_scales: tuple[type, ...] = (),
    ) -> None:
        self.factor = factor
        self.optimizers: list[AnyOptimizer] = []
        self.is_factor_read = False
        self._strategy = strategy
        self._only = only
        self._loss_scales = loss_scales
        self._variables: dict[int, object] = {}
        self._wrappers: list[AnyOptimizer] = []
        self._scaled: list[AnyOptimizer] = []
        self._num_updating = 0
        self._num_active = 0
        self._hook: UpdateHook | None = None

    @contextlib.contextmanager
    def active(self, hook: UpdateHook | None = None) -> Iterator[None]:
        """Observes what the calling thread updates within the block, and lets `hook` act on it."""
        earlier = getattr(_thread, "observation", None), getattr(_thread, "updating", None)
        _thread.observation, _thread.updating = self, []
        outer, self._hook = self._hook, hook
        if self._num_active == 0:
            self._num_updating = 0  # an exception may have stopped an update
            if self._strategy is not None:
                _of_strategy[id(self._strategy)] = self
        self._num_active += 1
        try:
            yield
        finally:
            _thread.observation, _thread.updating = earlier
            self._hook = outer
            self._num_active -= 1
            if self._num_active == 0:
                _of_strategy.pop(id(self._strategy), None)
                if hook is not None:
                    hook.finish()

    def is_about(self, optimizer: AnyOptimizer) -> bool:
        """Returns whether updates by `optimizer` that start now are to be observed."""
        updating = [*_thread.updating, optimizer]
        return self._only is None or any(_holds(self._only, each) for each in updating)

    def forget(self) -> None:
        """Forgets what was observed."""
        self.optimizers, self._variables, self._wrappers, self._scaled = [], {}, [], []
        self.is_factor_read = False

    def has_updated(self, *variables: object) -> bool:
        """Returns whether an optimizer has updated one of `variables`."""
        return any(id(each) in self._variables for each in variables)

    @property
    def was_skipped(self) -> bool:
        """Whether updates were only skipped yet: a scaled loss has overflown."""
        return bool(self._variables) and not self.optimizers

    @property
    def updating_optimizers(self) -> list[AnyOptimizer]:
        """The optimizers that update by themselves, and not through others alone."""
        return [each for each in self.optimizers if not _holds(self._wrappers, each)]

    def scales(self, optimizer: AnyOptimizer) -> bool:
        """Returns whether `optimizer` has read its learning rate in an update, times the factor."""
        return _holds(self._scaled, optimizer)

    def update(
        self, optimizer: AnyOptimizer, variables: Iterable[object], make: Callable[[], object]
    ) -> object:
        """Makes an update of `variables`, and notes it.

        Args:
            optimizer: The one that makes it.
            variables: The variables that it has gradients for.
            make: Makes it.
        """
        self.begin(optimizer)
        try:
            result = make()
        except BaseException:
            self._leave()
            raise
        self.end(optimizer, variables)
        return result

    def begin(self, optimizer: AnyOptimizer) -> None:
        """Notes that an update by `optimizer` starts."""
        updating: list[AnyOptimizer] = _thread.updating
        if updating and not _holds(self._wrappers, updating[-1]):
            self._wrappers.append(updating[-1])
        if self._hook is not None:
            self._hook.before(optimizer)
        updating.append(optimizer)
        self._num_updating += 1

    def end(self, optimizer: AnyOptimizer, variables: Iterable[object]) -> None:
        """Notes that the update of `variables` is made."""
        self._leave()
        self._variables.update((id(each), each) for each in variables)
        is_scale = isinstance(optimizer, self._loss_scales)
        if not is_scale and not _holds(self.optimizers, optimizer):
            self.optimizers.append(optimizer)
        if self._hook is not None:
            self._hook.after(optimizer, not _thread.updating)

    def _leave(self) -> None:
        _thread.updating.pop()
        self._num_updating -= 1

    def factor_for(self, optimizer: AnyOptimizer) -> object | None:
        """Returns what multiplies the learning rate that `optimizer` reads now.

        None outside of an update, where the rate is read for other reasons.
        """
        if not self._num_updating or not self.is_about(optimizer):
            return None
        if not _holds(self._scaled, optimizer):
            self._scaled.append(optimizer)
        return self.factor


def current() -> Observation | None:
    """Returns the observation that is active in the calling thread, or None.

    TensorFlow may make a replica's update in a new thread: its strategy says whom it works for.
    """
    found: Observation | None = getattr(_thread, "observation", None)
    if found is None:
        strategy = strategy_of(threading.current_thread())
        found = None if strategy is None else _of_strategy.get(id(strategy))
        if found is not None:
            _thread.observation, _thread.updating = found, []
    return found


def observing(optimizer: AnyOptimizer) -> Observation | None:
    """Returns the observation that is to note an update by `optimizer`, which starts now.

    None where there is none, and where `optimizer` is within its update already.
    """
    found = current()
    if found is None or _holds(_thread.updating, optimizer):
        return None
    return found if found.is_about(optimizer) else None


def scaled_rate(
    optimizer: AnyOptimizer, read: Callable[[], Any], multiply: Callable[[Any, Any], Any]
) -> Any:
    """Returns the learning rate that `read` gives; during an update, times the factor.

    Where reading one rate reads another, as of an optimizer inside, it is multiplied once.

    Args:
        optimizer: The optimizer.
        read: Returns its learning rate.
        multiply: Returns the product of a learning rate and a factor.
    """
    observation = current()
    if observation is None or getattr(_thread, "is_reading", False):
        return read()
    _thread.is_reading = True
    try:
        rate = read()
    finally:
        _thread.is_reading = False
    factor = observation.factor_for(optimizer)
    return rate if factor is None else multiply(rate, factor)


class ClassHooks:
    """Members put in front of those of classes while a block lasts, counted over threads.

    Args:
        roots: Classes; all their subclasses are hooked too.
        hooks: For the name of a member, what makes the one in front of it.
    """

    def __init__(
        self, roots: Sequence[type], hooks: Mapping[str, Callable[[Member], Member]]
    ) -> None:
        self._roots = roots
        self._hooks = hooks
        self._lock = threading.Lock()
        self._count = 0
        self._put: dict[tuple[type, str], tuple[Member, Member]] = {}

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1
            for kind in _with_subclasses(self._roots):  # also those made since
                for name in self._hooks.keys() & vars(kind).keys():
                    original, hook = vars(kind)[name], self._put.get((kind, name), (None, None))[1]
                    if original is not hook:
                        hook = self._hooks[name](original)
                        self._put[kind, name] = (original, hook)
                        setattr(kind, name, hook)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                for (kind, name), (original, hook) in self._put.items():
                    if vars(kind).get(name) is hook:
                        setattr(kind, name, original)
                self._put.clear()


def observed_apply_gradients(apply: Callable[..., object]) -> Member:
    """Returns an optimizer's `apply_gradients`, which updates variables, observed."""

    def observed(
        self: AnyOptimizer,
        grads_and_vars: Iterable[tuple[object, object]],
        *args: object,
        **kwargs: object,
    ) -> object:
        make = bound(apply, self)
        observation = observing(self)
        if observation is None:
            return make(grads_and_vars, *args, **kwargs)
        pairs = list(grads_and_vars)
        updated = [variable for grad, variable in pairs if grad is not None]
        return observation.update(self, updated, lambda: make(pairs, *args, **kwargs))

    return observed


def bound(member: Member, owner: object) -> Callable[..., object]:
    """Returns a method of `owner`, given what its class has: a tf.function is no plain function."""
    if isinstance(member, types.FunctionType):
        return functools.partial(member, owner)  # torch.compile takes __get__ for a lookup by name
    method: Callable[..., object] = member.__get__(owner, type(owner))
    return method


def _with_subclasses(kinds: Sequence[type]) -> Iterator[type]:
    for kind in kinds:
        yield kind
        yield from _with_subclasses(kind.__subclasses__())


def _holds(optimizers: Sequence[AnyOptimizer], optimizer: AnyOptimizer) -> bool:
    return any(each is optimizer for each in optimizers)
