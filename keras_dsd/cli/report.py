"""`keras-dsd report`: the sparsity of the weights in a file."""

import dataclasses
import math
from typing import Any

from absl import flags

from keras_dsd import api
from keras_dsd.adapters import registry
from keras_dsd.algorithm.masks import num_zeros
from keras_dsd.analysis.report import SparsityReport
from keras_dsd.cli import files
from keras_dsd.cli.command import Command, Result
from keras_dsd.protocols import PrunableWeight

_DESCRIPTION = """
Measures how sparse the weights in a file are: of a final model, or of a checkpoint from any phase.
For each weight: its shape, share of all values, target sparsity where the file has it, measured
sparsity, and where it has zeros its threshold, the smallest other magnitude.
"""


def _run(values: flags.FlagValues, path: str) -> Result:
    model = files.load_model(path, values)
    is_applied = registry.adapter_of(model).is_applied(model)
    found = api.report(model) if is_applied else _measured(model)
    return Result({"model": path, **found.to_dict()}, found.render())


def _measured(model: Any) -> SparsityReport:
    """Returns the report of a model, with its measured sparsity as the target."""
    found = api.report(api.apply(model, _share_of_zeros))
    bare = (
        dataclasses.replace(w, target=None, threshold=w.threshold if w.measured else None)
        for w in found.weights
    )
    return dataclasses.replace(found, weights=tuple(bare))


def _share_of_zeros(weight: PrunableWeight) -> float:
    values = weight.numpy()
    share = num_zeros(values, None) / max(values.size, 1)
    # A target of 0 would exclude the weight, and 1 is invalid. Counts do not depend on it.
    return min(max(share, math.ulp(0.0)), math.nextafter(1.0, 0.0))


COMMAND = Command(
    name="report",
    summary="Measured sparsity of the weights in a file.",
    description=_DESCRIPTION,
    define=files.define_flags,
    values={},
    groups=files.GROUPS,
    example="keras-dsd report checkpoint.keras",
    run=_run,
)
