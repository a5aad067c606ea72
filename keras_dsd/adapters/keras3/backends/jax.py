"""Masks on JAX: arguments of the step, which is stateless."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import jax
import keras
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.experimental import multihost_utils

from keras_dsd.adapters.base import private_names
from keras_dsd.adapters.base.factors import HostFactors, Values
from keras_dsd.adapters.base.observation import Observation
from keras_dsd.adapters.base.step_state import StepState, averaged
from keras_dsd.adapters.base.weight import Weight
from keras_dsd.adapters.keras3.backends import Backend, ObservedStep, TrainStep, sync
from keras_dsd.adapters.keras3.backends.jax_arrays import ARRAYS, has_all
from keras_dsd.protocols import Step, StepExtras
from keras_dsd.utils.patches import Patch

# Where a part of an array is.
Index: TypeAlias = tuple[slice, ...]
# Trainable variables, then further lists of values.
State: TypeAlias = tuple[Sequence[jax.Array], ...]
# Masks of up to so many weights become one argument of a step.
_SMALL = 2**16
# Part of the key of compiled functions: the learning rate factor of a custom training loop.
_FACTOR = jax.make_user_context(1.0) if hasattr(jax, "make_user_context") else None


class JaxBackend(Backend[jax.Array]):
    """Masks as arguments: XLA fuses them into the update."""

    arrays = ARRAYS
    _last_factor = 1.0  # of the last epoch of any custom training loop

    def check_readable(self, value: jax.Array, path: str) -> None:
        """Checks that no part of an array is on devices of other processes alone."""
        if not has_all(value):
            raise ValueError(
                f"Expected a weight that this process can read. Received: {path}, sharded over "
                f"devices of {jax.process_count()} processes. Training, report and observers of "
                f"keras_dsd need no copy of it. For its values or its mask, call "
                f"jax.experimental.multihost_utils.process_allgather(tensor, tiled=True) in all "
                f"processes; run sensitivity and compare where each process has all of it."
            )

    def make_step_state(
        self, model: keras.Model, weights: Callable[[], Sequence[Any]]
    ) -> "JaxStepState":
        """Returns what the steps of a model keep of variables."""
        return JaxStepState(model, weights)

    def has_all(self, variable: keras.Variable) -> bool:
        """Returns whether no part of a variable is on devices of other processes alone."""
        return bool(has_all(variable.value))

    def is_same(self, model: keras.Model, digest: bytes) -> bool:
        """Returns whether all processes whose devices have the weights have the same digest."""
        if all(each.value.is_fully_addressable for each in model.trainable_variables):
            return True  # this process trains alone
        return _are_equal(digest)

    def parts_of(self, variable: keras.Variable) -> dict[str, np.ndarray] | None:
        """Returns copies of this process's parts of a variable, by index; None if it has all."""
        return _parts_of(variable.value)

    def set_parts(self, variable: keras.Variable, parts: Mapping[str, np.ndarray]) -> None:
        """Sets the values of a variable, of which each process gives its parts."""
        variable.assign(_of_parts(parts, variable.value))

    def process(self) -> tuple[int, int]:
        """Returns the index of this process, and the number of processes."""
        return jax.process_index(), jax.process_count()

    def check_same(self, variables: Sequence[keras.Variable], arguments: str) -> None:
        """Checks that processes that have parts of variables were given the same arguments."""
        values: list[jax.Array] = [each.value for each in variables]
        if all(each.is_fully_addressable or each.is_fully_replicated for each in values):
            return  # each process can do without the others
        if not _are_equal(hashlib.blake2b(arguments.encode(), digest_size=8).digest()):
            raise ValueError(
                f"Expected the same arguments of DSDSchedule and apply in all processes, which "
                f"measure the weights together. Received: others than in process 0, in one of "
                f"{jax.process_count()}; in process {jax.process_index()} {arguments}. Give all "
                f"the same observers too: those of keras_dsd write in process 0 alone, and your "
                f"own can, where self.is_chief."
            )

    def put_mask(self, mask: jax.Array, model: keras.Layer, earlier: jax.Array | None) -> jax.Array:
        """Returns `mask`, which has the variable's sharding."""
        del model, earlier
        return mask

    def mask_to_numpy(self, mask: jax.Array) -> np.ndarray:
        """Returns the mask as a boolean array."""
        return np.asarray(mask)

    def mask_to_tensor(self, mask: jax.Array) -> jax.Array:
        """Returns the mask as a boolean tensor."""
        return mask

    def apply_masks(self, pairs: Sequence[tuple[keras.Variable, jax.Array]]) -> None:
        """Sets each variable to zero where its mask is False."""
        for variable, mask in pairs:
            variable.assign(_masked(variable.value, mask))

    def train_step(self, plain: TrainStep, step: ObservedStep) -> TrainStep:
        """Returns a `train_step` whose data include the factor and the masks.

        `train_step` is `(state, data) -> (logs, state)`. A step that masks everything at its end
        masks the trainable variables that it returns.
        """
        observation, masked, ends_in_masks = step.observation, step.masked, step.ends_in_masks

        def train_step(
            state: State, arguments: "tuple[jax.Array, _PackedMasks, object]"
        ) -> tuple[object, State]:
            factor, packed, data = arguments
            masks = packed.masks()
            use_masks = masked.use_masks(masks) if masked else contextlib.nullcontext()
            held, factors = _Held(step), _factors(observation)
            with step.observed(), factors.use(factor), use_masks, held.traced(state) as state:
                logs, state = plain(state, data)
                if masked and ends_in_masks:
                    first = _mask_all(state[0], step.model, masked.variables, masks)
                    state = (first, *state[1:])
                variables = map(id, step.model.trainable_variables)
                step.state.end_step(step.extras, dict(zip(variables, state[0], strict=True)))
                state = held.added(state)
            return logs, state

        return train_step

    def train_function(self, plain: Step, step: ObservedStep) -> Step:
        """Returns a `train_function` that adds the factor and the masks to the data."""
        masked, factors = step.masked, cast("_JaxFactors", step.observation.factors)
        no_masks = _PackedMasks.of(())

        def packed() -> _PackedMasks:
            assert masked is not None
            return _PackedMasks.of(masked.masks())

        def with_arguments(iterator: Iterator[object]) -> Iterator[object]:
            masks = no_masks if masked is None else masked.derived(masked, packed)
            for data in iterator:
                yield factors.take(), masks, data

        def train_function(state: State, iterator: Iterator[object]) -> object:
            return plain(state, with_arguments(iterator))

        def train_function_with_state(
            state: State, iterator: Iterator[object]
        ) -> tuple[object, State]:
            held = _Held(step)
            made = train_function(held.added(state), iterator)
            logs, state = cast("tuple[object, State]", made)
            return logs, held.taken(state)

        return train_function if step.extras == StepExtras() else train_function_with_state

    def step_patches(self, step: ObservedStep) -> list[Patch]:
        """Returns the patches under which Keras makes a step: its arguments have shardings."""
        name = private_names.STATE_SHARDINGS
        if not _Held(step).boxes or not hasattr(step.model, name):
            return []
        shardings = getattr(step.model, name)

        def with_held() -> State:
            return _Held(step).added(shardings(), lambda box: box.value.sharding)

        return [Patch(vars(step.model), name, with_held)]

    def factors_of(self, model: keras.Layer) -> HostFactors:
        """Returns the factors of a model's learning rates, 1.0 at first."""
        del model
        return _JaxFactors()

    @contextlib.contextmanager
    def loop_hooks(self, observation: Observation) -> Iterator[None]:
        """Makes JAX trace the user's functions again for another factor, a constant in them."""
        factors = _factors(observation)
        factor = factors.value if factors.are_constant else -1.0  # an argument of each function
        if _FACTOR is not None:
            with _FACTOR(factor):
                yield
            return
        if self._last_factor != factor:
            jax.clear_caches()  # a version without user contexts
        self._last_factor = factor
        yield


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["small", "others"], meta_fields=["shapes"]
)
@dataclasses.dataclass(frozen=True)
class _PackedMasks:
    """Masks as arguments of a step, small ones in one array: each argument takes time.

    Attributes:
        small: The small masks, flat, one after another; None if there are none.
        others: The other masks.
        shapes: The shape of each mask; None of the others.
    """

    small: jax.Array | None
    others: tuple[jax.Array, ...]
    shapes: tuple[tuple[int, ...] | None, ...]

    @classmethod
    def of(cls, masks: Sequence[jax.Array]) -> "_PackedMasks":
        """Returns masks as arguments; those on several devices are not packed."""
        is_small = [each.size <= _SMALL and len(each.devices()) == 1 for each in masks]
        small = list(itertools.compress(masks, is_small))
        others = tuple(each for each, packs in zip(masks, is_small, strict=True) if not packs)
        shapes = (
            each.shape if packs else None for each, packs in zip(masks, is_small, strict=True)
        )
        return cls(_flat(small) if small else None, others, tuple(shapes))

    def masks(self) -> list[jax.Array]:
        """Returns the masks, in their order."""
        others, start, masks = iter(self.others), 0, []
        for shape in self.shapes:
            if self.small is None or shape is None:
                masks.append(next(others))
            else:
                end = start + math.prod(shape)
                masks.append(lax.slice(self.small, (start,), (end,)).reshape(shape))
                start = end
        return masks


@jax.jit
def _flat(masks: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate([each.ravel() for each in masks])


class _Box:
    """An array that is replaced by another one; within a step, by its tracer."""

    def __init__(self, value: jax.Array) -> None:
        self.value = value


class JaxStepState(StepState[_Box]):
    """Arrays that steps take and return, beside the variables of the optimizer."""

    def _sync(self) -> None:
        sync(self._model)

    def _copy(self, variable: keras.Variable) -> _Box:
        return _Box(jnp.copy(variable.value))

    def _zeros(self, variable: keras.Variable) -> _Box:
        return _Box(jnp.zeros_like(variable.value, dtype=jnp.float32))

    def _mask(self, weight: Weight, mask: jax.Array) -> _Box:
        return _Box(jnp.copy(mask))

    def _read(self, held: _Box) -> np.ndarray:
        BACKEND.check_readable(held.value, "what steps keep of a weight")
        return np.array(held.value)

    def _parts_of(self, held: _Box) -> Mapping[str, np.ndarray]:
        found = _parts_of(held.value)
        return super()._parts_of(held) if found is None else found

    def _set_parts(self, held: _Box, parts: Mapping[str, np.ndarray]) -> None:
        if "" in parts:
            super()._set_parts(held, parts)
        else:
            held.value = _of_parts(parts, held.value)

    def _process(self) -> tuple[int, int]:
        return BACKEND.process()

    def _clear(self, held: _Box) -> None:
        held.value = jnp.zeros_like(held.value)

    def _write(self, held: _Box, value: np.ndarray) -> None:
        held.value = jax.device_put(value, held.value.sharding)

    def _assign(self, variable: keras.Variable, held: _Box) -> None:
        variable.assign(held.value)

    def _average(self, held: _Box, value: jax.Array, momentum: float) -> None:
        held.value = averaged(held.value, value, momentum)

    def _add(self, variable: keras.Variable, held: _Box, gradient: Any, is_movement: bool) -> None:
        gradient = jnp.asarray(gradient, jnp.float32)
        held.value += -gradient * variable.value if is_movement else gradient

    def _decay(
        self, variable: keras.Variable, held: _Box, learning_rate: Any, decay: float
    ) -> None:
        value = variable.value
        decayed = value - value * jnp.asarray(learning_rate * decay, value.dtype)
        variable.assign(jnp.where(held.value, value, decayed))


class _Held:
    """State of a step, after the variables of the optimizer in the state of Keras."""

    def __init__(self, step: ObservedStep) -> None:
        self.boxes: list[_Box] = step.state.held(step.extras)

    def added(
        self, state: State, of: Callable[[_Box], Any] = operator.attrgetter("value")
    ) -> State:
        """Returns a state with it."""
        if not self.boxes:
            return state
        first, second, optimizer, *rest = state
        return first, second, [*optimizer, *map(of, self.boxes)], *rest

    def taken(self, state: State) -> State:
        """Returns a state without it, and keeps that."""
        if not self.boxes:
            return state
        first, second, optimizer, *rest = state
        size = len(optimizer) - len(self.boxes)
        for box, value in zip(self.boxes, optimizer[size:], strict=True):
            box.value = value
        return first, second, optimizer[:size], *rest

    @contextlib.contextmanager
    def traced(self, state: State) -> Iterator[State]:
        """Returns a state without it, which is there within the block."""
        outside = [box.value for box in self.boxes]
        try:
            yield self.taken(state)
        finally:
            for box, value in zip(self.boxes, outside, strict=True):
                box.value = value


BACKEND = JaxBackend()


class _JaxFactors(HostFactors):
    """Factors as arguments of the steps of `fit`, and of a custom training loop's functions."""

    def set(self, values: Values) -> None:
        """Sets the factors of the next steps, in order; the last one stays."""
        super().set(values)
        self._argument = _argument(self.value) if self.are_constant else None

    def take(self) -> object:
        """Returns the factor of the current step, an argument of it, and advances to the next."""
        if self._argument is not None:
            return self._argument
        factor = _argument(self.value)
        self.count()
        return factor

    def now(self) -> object:
        """Returns the factor of the current step, or the argument that a block uses for it.

        Raises:
            ValueError: A function is traced without that argument, and would keep one factor.
        """
        is_given = self._given is not None or self.are_constant
        if not is_given and isinstance(jnp.add(0, 0), jax.core.Tracer):
            raise ValueError(
                "Expected the factor of the learning rate as an argument of a compiled function, "
                "as a phase changes it from step to step. Received: a function that JAX traces "
                "without it. Pass loop.factor() to the function, and update the weights within "
                "`with loop.scaled(factor):` there."
            )
        return super().now()


def _argument(factor: float) -> jax.Array | np.float32:
    """Returns an argument of a step; processes give equal numbers where there are several."""
    value = np.float32(factor)
    return value if jax.process_count() > 1 else jax.device_put(value)


def _are_equal(digest: bytes) -> bool:
    """Returns whether all processes, which all call it, have the same digest of 8 bytes."""
    found = multihost_utils.process_allgather(np.frombuffer(digest, np.uint32))
    return bool((found == found[0]).all())


def _factors(observation: Observation) -> HostFactors:
    return cast("HostFactors", observation.factors)


def _parts_of(value: jax.Array) -> dict[str, np.ndarray] | None:
    """Returns copies of this process's parts of an array, by index; None if it has all."""
    if has_all(value):
        return None
    shards = value.addressable_shards
    return {_text(each.index, value.shape): np.array(each.data) for each in shards}


def _of_parts(parts: Mapping[str, np.ndarray], like: jax.Array) -> jax.Array:
    """Returns the array of which each process has given its parts, with a sharding like its own."""

    def part(index: Index | None) -> np.ndarray:
        return parts[_text(index or (), like.shape)]

    return jax.make_array_from_callback(like.shape, like.sharding, part)


def _text(index: Index, shape: Sequence[int]) -> str:
    """Returns where a part of an array is, such as `[0:64,8:16]`."""
    ranges = [each.indices(size) for each, size in zip(index, shape, strict=True)]
    return f"[{','.join(f'{start}:{stop}' for start, stop, _ in ranges)}]"


def _masked(value: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask, value, jnp.zeros((), value.dtype))


def _mask_all(
    values: Sequence[jax.Array],
    model: keras.Model,
    variables: Sequence[keras.Variable],
    masks: Sequence[jax.Array],
) -> list[jax.Array]:
    mask_of = {id(v): mask for v, mask in zip(variables, masks, strict=True)}
    return [
        _masked(value, mask_of[id(variable)]) if id(variable) in mask_of else value
        for variable, value in zip(model.trainable_variables, values, strict=True)
    ]
