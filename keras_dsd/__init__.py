"""Dense-Sparse-Dense training for Keras (Han et al., ICLR 2017, arXiv:1607.04381).

Importing this package imports no framework: public names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from keras_dsd.adapters.registry import register_wrapper

if TYPE_CHECKING:
    from keras_dsd.algorithm import presets as presets
    from keras_dsd.algorithm import presets as timelines  # noqa: F401
    from keras_dsd.algorithm.learning_rates import Decay
    from keras_dsd.algorithm.patterns import NM, Block
    from keras_dsd.algorithm.phases import DensePhase, SparsePhase
    from keras_dsd.algorithm.plateau import Plateau
    from keras_dsd.analysis import exclusions as exclusions
    from keras_dsd.analysis.comparison.compare import compare
    from keras_dsd.analysis.sensitivity import sensitivity
    from keras_dsd.api import apply, report, strip, weights
    from keras_dsd.callback import DSDSchedule
    from keras_dsd.custom_loop import DSDLoop
    from keras_dsd.engine import observers as observers
    from keras_dsd.visualization import plots as plots
    from keras_dsd.visualization.tensorboard import DSDTensorBoard
    from keras_dsd.visualization.weight_history import WeightHistory

__version__ = "0.1.0"

__all__ = [
    "NM", "Block", "DSDLoop", "DSDSchedule", "DSDTensorBoard", "Decay", "DensePhase", "Plateau",
    "SparsePhase", "WeightHistory", "apply", "compare", "report", "sensitivity", "strip", "weights",
]  # fmt: skip

_HOMES = {
    "algorithm.learning_rates": ("Decay",),
    "algorithm.patterns": ("NM", "Block"),
    "algorithm.phases": ("DensePhase", "SparsePhase"),
    "algorithm.plateau": ("Plateau",),
    "analysis.comparison.compare": ("compare",),
    "analysis.sensitivity": ("sensitivity",),
    "api": ("apply", "report", "strip", "weights"),
    "callback": ("DSDSchedule",),
    "custom_loop": ("DSDLoop",),
    "visualization.tensorboard": ("DSDTensorBoard",),
    "visualization.weight_history": ("WeightHistory",),
}
_MODULES = {
    "exclusions": "analysis.exclusions",
    "observers": "engine.observers",
    "plots": "visualization.plots",
    "presets": "algorithm.presets",
    "timelines": "algorithm.presets",
}

register_wrapper()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{_MODULES[name]}")
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
