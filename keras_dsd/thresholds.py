"""The smallest magnitude of each weight that a sparse phase keeps."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from keras_dsd import masks, pruning
from keras_dsd.patterns import NM, Block
from keras_dsd.seam import PrunableWeight


def thresholds(weights: Sequence[PrunableWeight]) -> Iterator[float | None]:
    """Yields, for each weight, the smallest magnitude that is kept.

    Under a mask, of what the mask keeps; otherwise of what a sparse phase would keep if it began
    now. With a `Block`, the smallest pooled magnitude of a block. None with an `NM`, whose groups
    have none in common, and where nothing can be ranked, as with NaN in the weight.

    One tensor is read at a time, but for those that are ranked together.

    Args:
        weights: What DSD prunes.
    """
    # In a sparse phase of tf_keras, a weight that keeps all has a mask of ones, and shows None.
    is_held = any(weight.mask is not None for weight in weights)
    together = [weight for weight in weights if weight.scope == "global" and not is_held]
    of_all = _ranked(together)
    for weight in weights:
        if isinstance(weight.pattern, NM):
            yield None
        elif is_held:
            mask = weight.mask
            yield _smallest(weight, np.ones(weight.shape, bool) if mask is None else mask)
        elif weight.scope == "global":
            yield of_all.get(id(weight))
        else:
            yield _ranked([weight]).get(id(weight))


def _ranked(weights: Sequence[PrunableWeight]) -> dict[int, float | None]:
    """Returns the thresholds of weights that are ranked together, by identity."""
    try:
        return {id(w): _smallest(w, mask) for w, mask in pruning.masks_for(weights, None)}
    except ValueError:  # not finite, or so few would be left that a tensor had none
        return {}


def _smallest(weight: PrunableWeight, mask: np.ndarray) -> float | None:
    values = masks.comparable(weight.numpy())
    if isinstance(weight.pattern, Block):
        kept = weight.pattern.magnitudes(values, weight.layout)
        kept = kept[weight.pattern.scores(mask.astype(np.float32), weight.layout) > 0]
    else:
        kept = np.abs(values[mask])
    smallest = float(kept.min()) if kept.size else math.nan
    return smallest if math.isfinite(smallest) else None
