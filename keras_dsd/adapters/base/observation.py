"""Observes the updates of a model's weights, by hooks in the optimizer classes.

Hooks replace a few methods of the optimizer classes, but only while a training step runs in Python;
for a compiled step, while it is traced. Where every step runs in Python, and Keras's own step has
one optimizer, they replace those of this instance. They act in the threads that run a step of the
observed model, and forward every other call.
"""

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from keras_dsd.adapters.base.factors import Factors, HostFactors
from keras_dsd.adapters.base.private_names import strategy_of
from keras_dsd.utils.patches import Patch

# An optimizer of Keras or of torch.optim.
AnyOptimizer: TypeAlias = object
# A method, or a property, of a class.
Member: TypeAlias = Any

# Per thread: the active observation, and the optimizers that are updating.
_thread = threading.local()
_of_strategy: dict[int, "Observation"] = {}


class UpdateHook(Protocol):
    """A hook that acts on the updates of a step, to mask them."""

    def before(self, optimizer: AnyOptimizer) -> None:
        """Prepares for an update by `optimizer`."""

    def after(self, optimizer: AnyOptimizer, is_outermost: bool) -> None:
        """Follows an update by `optimizer`; a nested update is not the outermost."""

    def finish(self) -> None:
        """Undoes `before` at the end of a step."""


# Called before an update: with the optimizer, and the variables and their gradients.
BeforeUpdate: TypeAlias = Callable[[AnyOptimizer, Sequence[object], Sequence[object]], None]


class Observation:
    """The observed updates of one model's weights in one run.

    Args:
        factors: Factors of the learning rates of all optimizers, step by step. Defaults to `None`:
            1.0.
        strategy: The `tf.distribute.Strategy` whose replica threads work for the model, or None.
        only: The optimizers to observe, including those inside of them; None for all.
        loss_scales: Classes of optimizers that scale the loss: they hold no state of a weight.

    Attributes:
        optimizers: The optimizers that updated weights, in the order of their first updates.
        is_factor_read: True if a step reads the factor although no update was seen: the function
            that updates was traced in an earlier run of the model.
    """

    def __init__(
        self,
        factors: Factors | None = None,
        strategy: object = None,
        only: Sequence[AnyOptimizer] | None = None,
        loss_scales: tuple[type, ...] = (),
    ) -> None:
        self.factors = HostFactors() if factors is None else factors
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
        self._rates: list[tuple[AnyOptimizer, object, Any]] = []
        self._before_update: BeforeUpdate | None = None

    @contextlib.contextmanager
    def active(
        self, hook: UpdateHook | None = None, before_update: BeforeUpdate | None = None
    ) -> Iterator[None]:
        """Observes updates of the calling thread within the block, and lets `hook` act on them."""
        earlier = getattr(_thread, "observation", None), getattr(_thread, "updating", None)
        _thread.observation, _thread.updating = self, []
        outer, self._hook = self._hook, hook
        outer_before, self._before_update = self._before_update, before_update
        if self._num_active == 0:
            self._num_updating = 0  # an exception may have interrupted an update
            if self._strategy is not None:
                _of_strategy[id(self._strategy)] = self
        self._num_active += 1
        try:
            yield
        finally:
            _thread.observation, _thread.updating = earlier
            self._hook, self._before_update = outer, outer_before
            self._num_active -= 1
            if self._num_active == 0:
                _of_strategy.pop(id(self._strategy), None)
                if hook is not None:
                    hook.finish()

    def is_about(self, optimizer: AnyOptimizer) -> bool:
        """Returns whether an update by `optimizer` that starts now is observed."""
        updating = [*_thread.updating, optimizer]
        return self._only is None or any(_holds(self._only, each) for each in updating)

    def forget(self) -> None:
        """Discards all observations."""
        self.optimizers, self._variables, self._wrappers, self._scaled = [], {}, [], []
        self.is_factor_read = False

    def has_updated(self, *variables: object) -> bool:
        """Returns whether an optimizer has updated one of `variables`."""
        return any(id(each) in self._variables for each in variables)

    @property
    def was_skipped(self) -> bool:
        """True if all updates so far were skipped, as the scaled loss overflowed."""
        return bool(self._variables) and not self.optimizers

    @property
    def updating_optimizers(self) -> list[AnyOptimizer]:
        """The optimizers that update themselves, not only through others."""
        return [each for each in self.optimizers if not _holds(self._wrappers, each)]

    def scales(self, optimizer: AnyOptimizer) -> bool:
        """Returns whether `optimizer` has read its learning rate in an update, times the factor."""
        return _holds(self._scaled, optimizer)

    def update(
        self,
        optimizer: AnyOptimizer,
        variables: Sequence[object],
        gradients: Sequence[object],
        make: Callable[[], object],
    ) -> object:
        """Runs an update of `variables`, and records it.

        Args:
            optimizer: The optimizer.
            variables: The variables with gradients.
            gradients: Their gradients.
            make: Runs the update.
        """
        self.begin(optimizer)
        try:
            if self._before_update is not None and self._is_outermost():
                self._before_update(optimizer, variables, gradients)
            result = make()
        except BaseException:
            self._leave()
            raise
        self.end(optimizer, variables)
        return result

    def begin(self, optimizer: AnyOptimizer) -> None:
        """Records that an update by `optimizer` starts."""
        self._rates = []
        updating: list[AnyOptimizer] = _thread.updating
        if updating and not _holds(self._wrappers, updating[-1]):
            self._wrappers.append(updating[-1])
        if self._hook is not None:
            self._hook.before(optimizer)
        updating.append(optimizer)
        self._num_updating += 1

    def end(self, optimizer: AnyOptimizer, variables: Iterable[object]) -> None:
        """Records that `variables` were updated."""
        self._leave()
        self._variables.update((id(each), each) for each in variables)
        is_scale = isinstance(optimizer, self._loss_scales)
        if not is_scale and not _holds(self.optimizers, optimizer):
            self.optimizers.append(optimizer)
        if self._hook is not None:
            self._hook.after(optimizer, not _thread.updating)

    def _is_outermost(self) -> bool:
        """Returns whether the update that runs is made by no other one, but for loss scaling."""
        *others, optimizer = _thread.updating
        scales = self._loss_scales
        return not isinstance(optimizer, scales) and all(isinstance(o, scales) for o in others)

    def _leave(self) -> None:
        self._rates = []
        _thread.updating.pop()
        self._num_updating -= 1

    def factor_for(self, optimizer: AnyOptimizer) -> object | None:
        """Returns the factor of the learning rate that `optimizer` reads now.

        None outside of an update, where the learning rate is read for other reasons.
        """
        if not self._num_updating or not self.is_about(optimizer):
            return None
        if not _holds(self._scaled, optimizer):
            self._scaled.append(optimizer)
        return self.factors.now()

    def rate_for(self, optimizer: AnyOptimizer, graph: object) -> Any:
        """Returns the scaled learning rate that `keep_rate` was given in this update, or None."""
        kept = (rate for each, of, rate in self._rates if each is optimizer and of is graph)
        return next(kept, None)

    def keep_rate(self, optimizer: AnyOptimizer, graph: object, rate: Any) -> None:
        """Keeps a scaled learning rate until an update starts or ends."""
        self._rates.append((optimizer, graph, rate))


def current() -> Observation | None:
    """Returns the observation that is active in the calling thread, or None.

    TensorFlow may run a replica's update in a new thread, whose strategy identifies the model.
    """
    found: Observation | None = getattr(_thread, "observation", None)
    if found is None:
        strategy = strategy_of(threading.current_thread())
        found = None if strategy is None else _of_strategy.get(id(strategy))
        if found is not None:
            _thread.observation, _thread.updating = found, []
    return found


def observing(optimizer: AnyOptimizer) -> Observation | None:
    """Returns the observation that records an update by `optimizer`, which starts now.

    None without an observation, and if `optimizer` is already within its update.
    """
    found = current()
    if found is None or _holds(_thread.updating, optimizer):
        return None
    return found if found.is_about(optimizer) else None


def scaled_rate(
    optimizer: AnyOptimizer,
    read: Callable[[], Any],
    multiply: Callable[[Any, Any], Any],
    graph: object = None,
) -> Any:
    """Returns the learning rate of `read`; during an update, times the factor.

    If reading one learning rate reads another, of an inner optimizer, it is multiplied once.

    Args:
        optimizer: The optimizer.
        read: Returns its learning rate.
        multiply: Returns the product of a learning rate and a factor.
        graph: The graph that is traced, where an update reads the rate for each variable: the
            product is then made once for each update and graph. None: made at each reading.
    """
    observation = current()
    if observation is None or getattr(_thread, "is_reading", False):
        return read()
    if graph is not None and (kept := observation.rate_for(optimizer, graph)) is not None:
        return kept
    _thread.is_reading = True
    try:
        rate = read()
    finally:
        _thread.is_reading = False
    factor = observation.factor_for(optimizer)
    if factor is None:
        return rate
    scaled = multiply(rate, factor)
    if graph is not None:
        observation.keep_rate(optimizer, graph, scaled)
    return scaled


class ClassHooks:
    """Members that replace those of classes within a block, counted over threads.

    Args:
        roots: Classes; all their subclasses are hooked too.
        hooks: For each name of a member, a function that makes its replacement.
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
            for kind in _with_subclasses(self._roots):  # also those defined since then
                for name in self._hooks.keys() & vars(kind).keys():
                    original, hook = vars(kind)[name], self._put.get((kind, name), (None, None))[1]
                    if original is not hook:
                        hook = self._hooks[name](original)
                        self._put[kind, name] = (original, hook)
                        setattr(kind, name, hook)

    def patches_of(self, owner: object) -> list[Patch] | None:
        """Returns patches that hook one instance; None if more than one class has a member.

        A member that is set on a class clears Python's caches of all of its attributes; in each
        step, that would take longer than the masks of a small network.
        """
        patches = []
        for name, hook in self._hooks.items():
            found = [vars(kind)[name] for kind in type(owner).__mro__ if name in vars(kind)]
            if len(found) > 1 or not all(isinstance(each, types.FunctionType) for each in found):
                return None
            hooked = (types.MethodType(hook(each), owner) for each in found)
            patches += [Patch(vars(owner), name, each) for each in hooked]
        return patches or None

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                for (kind, name), (original, hook) in self._put.items():
                    if vars(kind).get(name) is hook:
                        setattr(kind, name, original)
                self._put.clear()


def observed_apply_gradients(apply: Callable[..., object]) -> Member:
    """Returns the observed `apply_gradients` of an optimizer."""

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
        grads = [grad for grad, _ in pairs if grad is not None]
        return observation.update(self, updated, grads, lambda: make(pairs, *args, **kwargs))

    return observed


def bound(member: Member, owner: object) -> Callable[..., object]:
    """Returns a method of `owner` from its class attribute, which may be a tf.function."""
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
