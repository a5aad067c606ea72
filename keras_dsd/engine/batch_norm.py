"""BatchNormalization statistics after pruning, estimated from a few batches."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, SupportsIndex, cast

import numpy as np

from keras_dsd.protocols import BatchNormalization
from keras_dsd.utils import checks


class IndexedBatches(Protocol):
    """Batches that are read by index, such as a Keras `PyDataset`."""

    def __len__(self) -> int:
        """Number of batches."""

    def __getitem__(self, index: SupportsIndex) -> object:
        """Batch of that index."""


BatchSource = Iterable[object] | IndexedBatches


class Batches(NamedTuple):
    """Batches for estimating statistics: at most the first `number` of `data`."""

    data: BatchSource
    number: int

    def inputs(self) -> Iterator[object]:
        """Yields the model inputs of each batch."""
        batches = self.data
        if hasattr(batches, "__getitem__"):  # a Keras PyDataset can't be iterated
            indexed = cast("IndexedBatches", batches)
            batches = map(indexed.__getitem__, range(len(indexed)))
        for batch in itertools.islice(batches, self.number):
            yield batch[0] if isinstance(batch, tuple | list) else batch


def check_batches(data: object, number: object) -> Batches | None:
    """Returns the checked `batch_norm_data` and `batch_norm_batches` of `DSDSchedule`.

    Raises:
        TypeError: `data` is not a collection of batches (`(x, y)` is not one), or can be read only
            once; or `number` is not an integer.
        ValueError: `number` is below 1.
    """
    number = checks.whole_number("batch_norm_batches", number, least=1, unit="batches")
    if data is None:
        return None
    # An array would pass as a list of batches; an iterator is exhausted after one phase.
    is_array = hasattr(data, "shape") or isinstance(data, str | bytes | dict | tuple)
    if is_array or (not isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        advice = "Split it into batches, such as [x[i : i + 32] for i in range(0, len(x), 32)]."
    elif isinstance(data, Iterator):
        advice = "Pass a collection that can be read in each sparse phase, such as list(batches)."
    else:
        return Batches(cast("BatchSource", data), number)
    raise TypeError(
        f"Expected `batch_norm_data` to be batches that can be read again: a list, a "
        f"tf.data.Dataset, a PyDataset or a DataLoader. Received: batch_norm_data of type "
        f"{type(data).__name__}. {advice}"
    )


def estimate(
    layers: Sequence[BatchNormalization],
    forward: Callable[[object], object],
    batches: Batches,
    advance: Callable[[str], None],
) -> int:
    """Sets the moving mean and variance of layers to the averages over batches.

    Args:
        layers: The layers.
        forward: Runs the model in training mode on the inputs of a batch.
        batches: The batches.
        advance: Called after each batch with a text for the progress bar.

    Returns:
        The number of batches.

    Raises:
        ValueError: There are no batches. Statistics are unchanged.
    """
    statistics = [each for layer in layers for each in (layer.moving_mean, layer.moving_variance)]
    found = [np.array(each.numpy()) for each in statistics]
    momenta = [layer.momentum for layer in layers]
    try:
        number, sums = 0, [np.zeros(each.shape) for each in found]
        for layer in layers:
            layer.momentum = 0.0  # moving statistics become those of the batch
        for inputs in batches.inputs():
            try:
                forward(inputs)
            except Exception as error:
                error.add_note("Raised for a batch of DSDSchedule's batch_norm_data.")
                raise
            number += 1
            advance("batches for BatchNormalization")
            for total, each in zip(sums, statistics, strict=True):
                total += each.numpy()
        if not number:
            raise ValueError(
                "Expected `batch_norm_data` to hold batches. Received: none. Pass batches of the "
                "training data."
            )
        found = [total / number for total in sums]
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for each, value in zip(statistics, found, strict=True):
            each.assign(value)
    return number
