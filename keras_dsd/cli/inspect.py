"""`keras-dsd inspect`: the weights that DSD would prune in a model."""

import functools
import json
import re
from typing import Any

import numpy as np
from absl import flags

from keras_dsd import api
from keras_dsd.adapters import registry
from keras_dsd.algorithm import masks
from keras_dsd.algorithm.patterns import NM, Block, Pattern
from keras_dsd.algorithm.selection import Selection
from keras_dsd.cli import files
from keras_dsd.cli.command import Command, Result, UsageError
from keras_dsd.utils.tables import num_tensors, percent

_DESCRIPTION = """
Shows what DSD would prune in a model: each weight with its target sparsity and threshold, what
stays dense and why, and the memory of the masks. Trains nothing, and changes no file. The flags
are the arguments of keras_dsd.apply.
"""


# Placeholders for the values of these flags in the help, and their line in other commands.
VALUES = {"sparsity": "NUMBER|JSON", "exclude": "REGEX", "pattern": "PATTERN"}
GROUPS: dict[tuple[str, ...], str] = {
    ("sparsity", "exclude", "pattern", "scope"): "as in keras-dsd inspect --help",
}


def define_selection(values: flags.FlagValues) -> None:
    """Defines the flags that are the arguments of `apply`."""
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    text("sparsity", None,
         "Fraction of each weight to prune, or a JSON object from regular expressions on paths to "
         "fractions: '{\"conv\": 0.3, \"dense\": 0.5}'. Default: 0.3.")  # fmt: skip
    flags.DEFINE_multi_string(
        "exclude", None, "Leaves weights dense whose path it matches. May be repeated.",
        flag_values=values,
    )  # fmt: skip
    text("pattern", None,
         "Pattern: block:4x2 or block:4x2:max (4 inputs by 2 outputs, by average "
         "or largest magnitude), nm:2:4 (keeps 2 of every 4 inputs). Default: single "
         "weights.")  # fmt: skip
    flags.DEFINE_enum(
        "scope", "layer", ["layer", "global"],
        "Ranks each weight alone, or all together.", flag_values=values,
    )  # fmt: skip


def _define(values: flags.FlagValues) -> None:
    define_selection(values)
    files.define_flags(values)


def _run(values: flags.FlagValues, path: str) -> Result:
    selection = asked(values)
    model = api.apply(files.plain(files.load_model(path, values)), **selection)
    found = api.report(model)
    pruned = {
        weight.path: int(np.count_nonzero(~mask))
        for weight, mask in masks.masks_for(api.weights(model), None)
    }
    adapter, num_pruned = registry.adapter_of(model), sum(pruned.values())
    data = {
        "model": path,
        "report": found.to_dict(),
        "would_prune": {"values": num_pruned, "by_weight": pruned},
        "mask_bytes": adapter.mask_bytes(model),
    }
    lines = [
        found.render(),
        "",
        f"would prune: {num_pruned:,} of {found.size:,} weights in "
        f"{num_tensors(len(found.weights))}, "
        f"{percent(num_pruned / max(found.total_size, 1))} of all {found.total_size:,}",
        f"memory: the masks take {data['mask_bytes']:,} bytes in a sparse phase",
    ]
    return Result(data, "\n".join(lines))


def asked(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of `apply`, checked before a model is loaded."""
    found: dict[str, Any] = {
        "exclude": values.exclude or [],
        "pattern": _pattern(values.pattern),
        "scope": values.scope,
    }
    if values.sparsity is not None:
        found["sparsity"] = _sparsity(values.sparsity)
    try:
        Selection(**found)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    return found


def _sparsity(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"expected --sparsity to be a fraction or a JSON object. Received: --sparsity={text}. "
            f"""Write --sparsity=0.3 or --sparsity='{{"conv": 0.3, "dense": 0.5}}'."""
        ) from error


def _pattern(text: str | None) -> Pattern:
    if text is None:
        return None
    block = re.fullmatch(r"block:(\d+)x(\d+)(?::(avg|max))?", text, re.ASCII)
    groups = re.fullmatch(r"nm:(\d+):(\d+)", text, re.ASCII)
    try:
        if block:
            return Block(int(block[1]), int(block[2]), block[3] or "avg")
        if groups:
            return NM(int(groups[1]), int(groups[2]))
    except ValueError as error:
        raise UsageError(f"--pattern={text}: {error}") from error
    raise UsageError(
        f"expected --pattern to be such as block:4x2, block:4x2:max or nm:2:4. Received: "
        f"--pattern={text}. Write one of these."
    )


COMMAND = Command(
    name="inspect",
    summary="Weights that DSD would prune, others with reasons, memory of the masks.",
    description=_DESCRIPTION,
    define=_define,
    values=VALUES,
    groups=files.GROUPS,
    example="keras-dsd inspect model.keras --sparsity=0.5 --exclude=predictions/",
    run=_run,
)
