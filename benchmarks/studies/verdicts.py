"""What a study's runs show: for each variant of DSD, what `dsd.compare` would of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from keras_dsd.analysis.comparison.arms import DSD
from keras_dsd.analysis.comparison.result import BEST, Comparison, Run
from keras_dsd.analysis.comparison.statistics import mean_and_sd


def of_each_variant(identity: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, Comparison]:
    """Returns, for each variant, the comparison of it with all controls.

    Args:
        identity: What a study's file says of it: its arms in words, which of them are variants of
            DSD, the metric and its mode.
        runs: Every arm of every seed.
    """
    variants, words = identity["variants"], identity["arms"]
    controls = [run for run in runs if run.arm not in variants]
    found = {}
    for variant in variants:
        ours = [dataclasses.replace(run, arm=DSD) for run in runs if run.arm == variant]
        of_both = sorted([*controls, *ours], key=lambda run: run.seed)
        arms = {name: words[name] for name in words if name not in variants}
        arms[DSD] = words[variant]
        found[variant] = Comparison(identity["metric"], identity["mode"], arms, tuple(of_both))
    return found


def best_variant(found: Mapping[str, Comparison]) -> str:
    """Returns the variant with the best mean on validation data, each run at its best epoch."""

    def cost(name: str) -> float:
        comparison = found[name]
        sign = 1.0 if comparison.mode == "min" else -1.0
        values = [run.chosen_on(BEST) for run in comparison.runs if run.arm == DSD]
        return sign * mean_and_sd(values)[0]

    return min(found, key=cost)
