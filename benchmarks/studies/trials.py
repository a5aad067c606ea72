"""Trains the arms of the protocol: for each seed and setting the first dense phase once.

An epoch is one call of the training step, which scans over the batches, so that `fit` adds nothing
to the time of small networks. It is Keras's own `train_step` and the library's own masks.
"""

import dataclasses
import gc
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import keras
import numpy as np
import protocol
from protocol import AVERAGED, FIRST, SAME, SINGLE, Arm, Lengths, Run, Setting

import keras_dsd as dsd
from keras_dsd.algorithm.masks import NotFiniteError

Part = tuple[Any, np.ndarray]  # what the model takes, an array or a dict of arrays, and labels
Base = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Split:
    """The data of a seed.

    Attributes:
        epoch: Takes the number of an epoch, and returns its examples in the order of training.
        validation: Data that epochs and settings are chosen by.
        test: Data that are reported.
    """

    epoch: Callable[[int], Part]
    validation: Part
    test: Part


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of the protocol.

    Attributes:
        name: The name of its file, its section and its command.
        words: Data, network and optimizer, in a sentence.
        data: The file that `--data` names, and where it is from.
        build: Takes a `Setting`; returns a compiled model, of the class that `scanned` made, with a
            metric `nll`, the loss without penalties, and for classes one named `accuracy`.
        read: Takes the file and a seed; returns its `Split`.
        batch_size: Examples a step.
        lengths: The epochs and learning rates of the phases.
        bases: The learning rates and L2 coefficients that are tried, as (lr, l2).
        sparsities: The sparsities that are tried.
        probed: Further learning rates and L2 coefficients, at which `one run` alone trains, on one
            tuning seed: they show that `bases` need no others. None of them is chosen.
        exclude: Regular expressions on the paths of the weights that stay dense.
        num_tuning_seeds: On how many seeds settings are chosen.
        num_seeds: How many seeds are reported.
    """

    name: str
    words: str
    data: str
    build: Callable[[Setting], keras.Model]
    read: Callable[[Any, int], Split]
    batch_size: int
    lengths: Lengths
    bases: Sequence[Base]
    sparsities: Sequence[float]
    exclude: Sequence[str]
    probed: Sequence[Base] = ()
    num_tuning_seeds: int = 3
    num_seeds: int = 30


def scanned(kind: type, batch_size: int) -> type:
    """Returns a model class whose training step takes the examples of several steps."""

    class Scanned(kind):
        def train_step(self, state: Any, data: Any) -> Any:
            """Trains on batches of `batch_size`, one after another."""

            def one(state: Any, batch: Any) -> Any:
                logs, state = super(Scanned, self).train_step(state, batch)
                return state, logs

            batches = jax.tree.map(lambda v: v.reshape(-1, batch_size, *v.shape[1:]), data[:2])
            state, logs = jax.lax.scan(one, state, batches)
            return jax.tree.map(lambda value: value[-1], logs), state

    return Scanned


class _Epochs(keras.utils.PyDataset):
    """The epochs of a split from a given one on, each of one item."""

    def __init__(self, split: Split, first: int) -> None:
        super().__init__()
        self._split, self._epoch = split, first

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Part:
        return self._split.epoch(self._epoch)

    def on_epoch_end(self) -> None:
        self._epoch += 1


class _Watch(keras.callbacks.Callback):
    """Sets the learning rate of each epoch, and measures the model after it."""

    def __init__(self, parts: Sequence[Part], rates: Sequence[float], keep: int) -> None:
        super().__init__()
        self._parts, self._rates, self._keep = parts, rates, keep
        self.curves = _Curves()
        self.weights: list[list[np.ndarray]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = self._rates[epoch]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.curves.train.append(float(logs["nll"]))
        self.curves.measure(self.model, self._parts)
        if epoch >= self._keep:
            self.weights.append(self.model.get_weights())


@dataclasses.dataclass
class _Curves:
    """Measurements after each epoch; of test data too where they are reported."""

    train: list[float] = dataclasses.field(default_factory=list)
    validation: list[float] = dataclasses.field(default_factory=list)
    test: list[float] = dataclasses.field(default_factory=list)
    error: list[float] = dataclasses.field(default_factory=list)

    def measure(self, model: keras.Model, parts: Sequence[Part]) -> None:
        for index, (x, y) in enumerate(parts):
            found = model.evaluate(x, y, batch_size=5000, verbose=0, return_dict=True)
            (self.test if index else self.validation).append(found["nll"])
            if index:
                self.error.append(1 - found.get("accuracy", np.nan))

    def fill(self, length: int, num_parts: int) -> None:
        """Adds NaN for the epochs that were not trained, of as many parts as are measured."""
        curves = (self.train, self.validation, self.test, self.error)
        for curve in curves if num_parts > 1 else curves[:2]:
            curve += [np.nan] * (length - len(curve))

    def after(self, other: "_Curves") -> "_Curves":
        """Returns these measurements after those of earlier epochs."""
        names = [field.name for field in dataclasses.fields(self)]
        return _Curves(*([*getattr(other, name), *getattr(self, name)] for name in names))


State = tuple[list[np.ndarray], list[np.ndarray]]


class Trainer:
    """Trains arms of one seed and one setting of learning rate and L2."""

    def __init__(self, task: Task, split: Split, seed: int, base: Base, is_tuning: bool) -> None:
        self._task, self._split, self._seed, self._base = task, split, seed, base
        self._parts = [split.validation] if is_tuning else [split.validation, split.test]
        self._first: dict[int, _Done] = {}

    def train(self, names: Iterable[tuple[str, float | None]]) -> Iterator[Run]:
        """Trains arms, named with their sparsities, and yields what they show."""
        for name, sparsity in names:
            arm = protocol.arms(self._task.lengths, sparsity or 0.0, self._seed)[name]
            if arm.shared == self._task.lengths.dense and arm.shared not in self._first:
                yield self._run(FIRST, None, self._first_epochs(arm.shared))
            first = self._first_epochs(arm.shared)
            done = self._fit(arm, name, sparsity, first)
            yield self._run(name, sparsity, done)
            if name == SAME:
                yield self._run(AVERAGED, sparsity, self._averaged(done))

    def _first_epochs(self, number: int) -> "_Done":
        """Returns the first dense phase after so many epochs, which are trained once."""
        if number not in self._first:
            start = max((each for each in self._first if each < number), default=0)
            rates = self._task.lengths.first[start:number]
            earlier = self._first.get(start)
            self._first[number] = self._fit(Arm(start, rates), FIRST, None, earlier)
        return self._first[number]

    def _fit(self, arm: Arm, name: str, sparsity: float | None, first: "_Done | None") -> "_Done":
        began, model = time.process_time(), self._build(first)
        start = len(first.curves.train) if first else 0
        callbacks = []
        if arm.phases:
            model = dsd.apply(model, sparsity, exclude=self._task.exclude)
            callbacks = [dsd.DSDSchedule(phases=list(arm.phases))]
        rates = [self._base[0] * rate for rate in arm.rates]
        watch = _Watch(self._parts, rates, len(rates) - self._task.lengths.redense)
        with warnings.catch_warnings():
            if name in protocol.PRUNED_ARMS:  # as it is meant to
                warnings.filterwarnings("ignore", message="Training ended with pruned weights")
            epochs = _Epochs(self._split, start)
            try:
                model.fit(epochs, epochs=len(rates), verbose=0, callbacks=[watch, *callbacks])
            except NotFiniteError:  # of pruning: a seed that fails counts where it ends
                watch.curves.fill(len(rates), len(self._parts))
        state = model.get_weights(), [v.numpy() for v in model.optimizer.variables]
        curves = watch.curves.after(first.curves) if first else watch.curves
        seconds = time.process_time() - began
        return _Done(model, state, curves, watch.weights, int(model.optimizer.iterations), seconds)

    def _build(self, first: "_Done | None") -> keras.Model:
        keras.utils.set_random_seed(self._seed)
        lr, l2 = self._base
        model = self._task.build(Setting(l2, lr))
        model.optimizer.build(model.trainable_variables)
        if first:
            weights, slots = first.state
            model.set_weights(weights)
            for variable, value in zip(model.optimizer.variables, slots, strict=True):
                variable.assign(value)
        return model

    def _averaged(self, done: "_Done") -> "_Done":
        """Returns the same run, scored by the mean of the weights at the last phase's epochs."""
        kept = len(done.weights)
        curves = _Curves(
            *(getattr(done.curves, f.name)[:-kept] for f in dataclasses.fields(_Curves))
        )
        curves.train = done.curves.train
        for number in range(1, kept + 1):
            pairs = zip(*done.weights[:number], strict=True)
            done.model.set_weights([np.mean(each, axis=0) for each in pairs])
            curves.measure(done.model, self._parts)
        return dataclasses.replace(done, curves=curves, seconds=0.0)

    def _run(self, name: str, sparsity: float | None, done: "_Done") -> Run:
        lr, l2 = self._base
        curves = done.curves
        best = protocol.best_epoch(curves.validation)
        errors = (curves.error[best], curves.error[-1]) if curves.error else (np.nan, np.nan)
        return Run(
            self._seed, name, Setting(l2, lr, sparsity), tuple(curves.validation),
            tuple(curves.test), tuple(curves.train), errors, done.num_updates, done.seconds,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Done:
    model: keras.Model
    state: State
    curves: _Curves
    weights: list[list[np.ndarray]]
    num_updates: int
    seconds: float


def train_tuning(task: Task, path: Any, seed: int, base: Base) -> list[Run]:
    """Trains every tuned arm of a tuning seed with one learning rate and L2."""
    plain = [(name, None) for name in (SAME, SINGLE, protocol.LOW, protocol.HIGH)]
    masked = (*protocol.PRUNED_ARMS, *protocol.DSD_ARMS)
    sparse = [(name, sparsity) for name in masked for sparsity in task.sparsities]
    return _trained(task, path, seed, base, [*plain, *sparse], is_tuning=True)


def train_probe(task: Task, path: Any, seed: int, base: Base) -> list[Run]:
    """Trains one conventional run of a tuning seed with one learning rate and L2."""
    return _trained(task, path, seed, base, [(SINGLE, None)], is_tuning=True)


def train_seed(
    task: Task, path: Any, seed: int, base: Base, chosen: Mapping[str, Setting]
) -> list[Run]:
    """Trains the arms of a reported seed for which tuning chose this learning rate and L2."""
    names = [
        (name, setting.sparsity) for name, setting in chosen.items()
        if (setting.lr, setting.l2) == base and name != AVERAGED
    ]  # fmt: skip
    return _trained(task, path, seed, base, names, is_tuning=False)


def _trained(
    task: Task, path: Any, seed: int, base: Base, names: list[tuple[str, float | None]],
    is_tuning: bool,
) -> list[Run]:  # fmt: skip
    trainer = Trainer(task, task.read(path, seed), seed, base, is_tuning)
    runs = list(trainer.train(names))
    del trainer
    keras.backend.clear_session()
    jax.clear_caches()
    gc.collect()
    return runs
