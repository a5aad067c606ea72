"""A model, its optimizer and their adapter in NumPy: the engine's tests import no framework."""

import contextlib

import numpy as np

from keras_dsd.adapters.base.factors import HostFactors
from keras_dsd.algorithm.kernel_layout import Layout
from keras_dsd.protocols import StepExtras, UpdateCount, WeightCopies
from tests.helpers.numpy_arrays import NumPyArrays


class FakeWeight:
    """A prunable kernel: values, mask, momentum and moving average."""

    pattern = None
    layout = Layout((), (0,), (1,))
    arrays = NumPyArrays()

    def __init__(self, name, values, sparsity, scope="layer"):
        self.path, self.short_path = f"net/{name}", name
        self.shape, self.sparsity, self.scope = values.shape, sparsity, scope
        self.values, self.mask, self.is_dense, self.is_trained = values, None, False, True
        self.is_frozen = False
        self.momentum, self.average = np.zeros_like(values), values.copy()

    def numpy(self):
        return self.values.copy()

    copy = tensor = numpy

    @property
    def is_masked(self):
        return self.mask is not None

    def mask_tensor(self):
        return self.mask

    def assign(self, value):
        self.values = np.array(value, self.values.dtype)

    def apply_mask(self, mask):
        self.mask = np.array(mask)

    def remove_mask(self):
        self.mask = None

    def leave_dense(self):
        self.mask, self.is_dense = None, True

    def zero(self, mask):
        self.values[~mask] = 0

    def reset_slots(self, mask):
        self.momentum[~mask] = 0
        self.reset_averages(mask)

    def reset_averages(self, mask):
        self.average[~mask] = 0

    def apply_active_mask(self):
        if self.mask is not None:
            self.values *= self.mask
            self.average *= self.mask


class FakeNorm:
    """A BatchNormalization layer whose batch statistics are the mean and variance of its inputs."""

    def __init__(self):
        self.momentum = 0.99
        self.moving_mean, self.moving_variance = FakeVariable(5.0), FakeVariable(7.0)

    def __call__(self, inputs):
        for each, now in ((self.moving_mean, inputs.mean()), (self.moving_variance, inputs.var())):
            each.assign(self.momentum * each.numpy() + (1 - self.momentum) * now)


class FakeVariable:
    """A variable of rank 0."""

    def __init__(self, value):
        self.assign(value)

    def numpy(self):
        return self.value.copy()

    def assign(self, value):
        self.value = np.array(value)


class FakeModel:
    """Two kernels and a bias, trained by gradients that depend on values and step number alone."""

    def __init__(self, sparsity=0.5, scope="layer"):
        random = np.random.default_rng(0)
        sizes = {"a/kernel": (6, 4), "b/kernel": (4, 5)}
        self.name = "net"
        self.kernels = [
            FakeWeight(name, random.normal(size=size), sparsity, scope)
            for name, size in sizes.items()
        ]
        self.bias, self.bias_momentum = np.ones(5), np.zeros(5)
        self.norms, self.rate, self.factors, self.iterations = [], 0.1, HostFactors(), 0
        self.history = self.train_function = None
        self.stop_training, self.num_made, self.used = False, 0, []
        self.adapter = FakeAdapter(self)

    @property
    def learning_rate(self):
        """The learning rate in use."""
        return self.rate * self.factors.value

    def state(self):
        """All that decides how training continues, but for masks."""
        kernels = [a for k in self.kernels for a in (k.values, k.momentum, k.average)]
        rest = [self.bias, self.bias_momentum, self.iterations, self.rate]
        return [np.array(each) for each in (*kernels, *rest)]

    def copy(self, with_masks=True):
        """Another model as a file brings it, with or without masks."""
        other = FakeModel(self.kernels[0].sparsity, self.kernels[0].scope)
        other.load(self, with_masks)
        return other

    def load(self, other, with_masks=True):
        """Takes over what a file has of another model."""
        for ours, theirs in zip(self.kernels, other.kernels, strict=True):
            ours.values, ours.mask = theirs.values.copy(), theirs.mask if with_masks else None
            ours.momentum, ours.average = theirs.momentum.copy(), theirs.average.copy()
        self.bias, self.bias_momentum = other.bias.copy(), other.bias_momentum.copy()
        self.iterations, self.rate = other.iterations, other.rate

    def get_weights(self):
        return [*(kernel.numpy() for kernel in self.kernels), self.bias.copy()]

    def set_weights(self, weights):
        for kernel, value in zip(self.kernels, weights, strict=False):
            kernel.assign(value)
        self.bias = np.array(weights[-1])

    def make_train_function(self, force=False):
        """Keras calls it as training starts."""

    def train_step(self, masked):
        """One update by momentum, and by `weight * mask` where `masked`."""
        self.iterations += 1
        self.adapter.was_skipped = self.adapter.num_skipped > 0
        if self.adapter.was_skipped:
            self.adapter.num_skipped -= 1
            return
        self.adapter.is_observed = self.adapter.observes
        self.used.append(self.learning_rate)
        for kernel in self.kernels:
            if kernel.is_frozen or not kernel.is_trained:
                continue
            gradient = np.cos(3 * kernel.values + self.iterations)
            self.adapter.step_state.before_update(kernel, gradient)
            kernel.momentum = 0.9 * kernel.momentum + gradient
            kernel.values = kernel.values - self.learning_rate * kernel.momentum
            kernel.average = 0.5 * kernel.average + 0.5 * kernel.values
            if masked:
                kernel.apply_active_mask()
        self.bias_momentum = 0.9 * self.bias_momentum + np.sin(self.bias)
        self.bias = self.bias - self.learning_rate * self.bias_momentum

    def fit(
        self,
        schedule,
        epochs,
        *,
        initial_epoch=0,
        verbose=0,
        log=None,
        after=None,
        steps=2,
        steps_known=True,
        initial_batch=0,
        restore=None,
        after_batch=None,
    ):
        """Calls a callback as Keras does.

        Args:
            schedule: The callback.
            epochs: As for Keras's `fit`.
            initial_epoch: As for Keras's `fit`.
            verbose: As for Keras's `fit`.
            log: Logs of an epoch by its number. Defaults to none.
            after: Called with the number of each epoch after the callback saw its end.
            steps: Batches of an epoch, or of each epoch in a list.
            steps_known: Whether Keras knows their number.
            initial_batch: The first batch of the first epoch.
            restore: Called as another callback's `on_train_begin`, before the schedule's.
            after_batch: Called with the epoch and the number of batches made after each execution.

        Returns:
            The logs of each epoch.
        """
        self.history, self.stop_training, seen = object(), False, []
        lengths = {steps} if isinstance(steps, int) else set(steps)
        known = min(lengths) if steps_known and len(lengths) == 1 else None
        schedule.set_params({"epochs": epochs, "verbose": verbose, "steps": known})
        schedule.set_model(self)
        if restore:
            restore()
        schedule.on_train_begin()
        self.make_train_function()
        for epoch in range(initial_epoch, epochs):
            schedule.on_epoch_begin(epoch)
            num_batches = steps if isinstance(steps, int) else steps[epoch]
            first = initial_batch if epoch == initial_epoch else 0
            for batch in range(first, num_batches, self.adapter.batches_per_execution):
                schedule.on_train_batch_begin(np.int64(batch))  # from tf_keras, where it resumes
                end = min(batch + self.adapter.batches_per_execution, num_batches)
                for _ in range(batch, end):
                    self.train_function()
                if after_batch:
                    after_batch(epoch, end)
                if self.stop_training:
                    break
            seen.append(dict(log(epoch)) if log else {})
            schedule.on_epoch_end(epoch, seen[-1])
            if after:
                after(epoch)
            if self.stop_training:
                break
        schedule.on_train_end()
        return seen


def copies_of(model, process=None):
    """Copies of a model's weights; of a process, as if it had all of them alone."""
    arrays = {f"arr_{i}": np.array(each) for i, each in enumerate(model.get_weights())}
    if process is not None:
        arrays = {f"{name}[0:{each.shape[0]}]": each for name, each in arrays.items()}
    return WeightCopies(arrays, process)


class FakeAdapter:
    """The training adapter of a `FakeModel`."""

    def __init__(self, model):
        self.model = model
        self.error, self.interactive, self.scheduled, self.tracing = None, True, False, False
        self.observes, self.is_observed, self.has_own_train_step = True, False, False
        self.num_skipped, self.was_skipped = 0, False
        self.counts, self.per_step, self.batches_per_execution, self.num_readings = True, 1, 1, 0
        self.num_batches, self.updates_of = 0, lambda batch: 1
        self.unscaled_optimizers = []
        self.is_chief, self.process, self.arguments = True, None, None
        self.divided, self.digests, self.is_same_digest = [], [], True
        self.frozen, self.extras = [], []
        self.step_state = FakeStepState(model)

    @property
    def weights(self):
        kernels = [kernel for kernel in self.model.kernels if not kernel.is_dense]
        return [each for each in kernels if not each.is_frozen or each.mask is not None]

    def get_weights(self):
        return copies_of(self.model, self.process)

    def set_weights(self, copies):
        self.model.set_weights(list(copies.arrays.values()))

    def check_same(self, arguments):
        self.arguments = arguments

    def is_same(self, digest):
        self.digests.append(digest)
        return self.is_same_digest

    def open(self):
        self.is_observed = False
        for kernel in self.model.kernels:
            kernel.is_dense = False

    def close(self):
        self.set_factors([1.0])

    def forget_updates(self):
        self.is_observed = False

    def untrained(self):
        return [each for each in self.weights if self.is_observed and not each.is_trained]

    @property
    def batch_norms(self):
        return self.model.norms

    def check(self):
        if self.error:
            raise self.error

    def reset_optimizers(self):
        self.model.bias_momentum = np.zeros(5)
        for kernel in self.model.kernels:
            kernel.momentum = np.zeros_like(kernel.values)

    def forward(self, inputs):
        for norm in self.model.norms:
            norm(inputs)

    def set_factors(self, factors):
        self.model.factors.set(factors)

    def count_step(self):
        self.model.factors.count()

    @contextlib.contextmanager
    def observing(self, factors):
        self.set_factors(factors)
        try:
            yield
        finally:
            self.set_factors([1.0])

    def update_count(self):
        self.num_readings += 1
        return UpdateCount(self.model.iterations, self.per_step) if self.counts else None

    def learning_rates(self):
        return [self.model.rate]

    def prints(self):
        return self.interactive

    def masking(self):
        return lambda: [kernel.apply_active_mask() for kernel in self.model.kernels]

    def is_tracing(self):
        return self.tracing

    def is_scheduled(self):
        return self.scheduled is not False

    def scheduled_rate(self, step):
        return self.scheduled(step) if callable(self.scheduled) else None

    def masks_of(self, variables):
        chosen = self.model.kernels if variables is None else variables
        return [kernel.mask for kernel in chosen]

    def check_extras(self, extras):
        self.extras.append(extras)

    def make_step(self, masked, extras):
        self.model.num_made += 1

        def step():
            self.step_state.extras = extras
            for _ in range(self.updates_of(self.num_batches)):
                self.model.train_step(masked)
                self.step_state.end_step()
            self.num_batches += 1
            self.model.factors.count()

        return {"train_function": step}


class FakeStepState:
    """State of the steps of a `FakeModel`'s kernels and bias."""

    def __init__(self, model):
        self.model, self.extras = model, StepExtras()

    def values(self):
        return [*(kernel.values for kernel in self.model.kernels), self.model.bias]

    def start_averages(self):
        self._averages = [each.copy() for each in self.values()]

    def set_averages(self, values):
        self._averages = [each.copy() for each in values]

    def apply_averages(self):
        self.model.set_weights(self._averages)

    def start_sums(self):
        self._sums = {id(each): np.zeros(each.shape, np.float32) for each in self.model.kernels}

    def sums(self):
        return [self._sums[id(each)].copy() for each in self.model.adapter.weights]

    def set_regrown(self, masks):
        self._regrown = {id(each): np.array(mask) for each, mask in masks}

    def kept(self, extras):
        averages = self._averages if extras.ema is not None else []
        regrown = self._regrown.values() if extras.regrow_decay else []
        return WeightCopies.complete([each.copy() for each in (*averages, *regrown)])

    def set_kept(self, extras, copies):
        values = list(copies.arrays.values())
        if extras.regrow_decay:
            keys, found = list(self._regrown), values[-len(self._regrown) :]
            self._regrown = dict(zip(keys, found, strict=True))
        if extras.ema is not None:
            self.set_averages(values[: len(self._averages)])

    def before_update(self, kernel, gradient):
        if self.extras.sums is not None:
            is_movement = self.extras.sums == "movement"
            self._sums[id(kernel)] += -gradient * kernel.values if is_movement else gradient
        if self.extras.regrow_decay:
            share = self.model.learning_rate * self.extras.regrow_decay
            kernel.values = kernel.values * np.where(self._regrown[id(kernel)], 1, 1 - share)

    def end_step(self):
        if self.extras.ema is not None:
            pairs, m = zip(self._averages, self.values(), strict=True), self.extras.ema
            self._averages = [a * m + v * (1 - m) for a, v in pairs]


def fit(model, schedule, epochs, **arguments):
    """Calls `model.fit`."""
    return model.fit(schedule, epochs, **arguments)
