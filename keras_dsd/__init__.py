"""Dense-Sparse-Dense training for Keras (Han et al., ICLR 2017, arXiv:1607.04381).

Importing this package imports no framework: public names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from keras_dsd.adapters.registry import register_wrapper

if TYPE_CHECKING:
    from keras_dsd.algorithm import presets as timelines  # noqa: F401
    from keras_dsd.algorithm.patterns import NM, Block
    from keras_dsd.algorithm.timeline import DensePhase, Plateau, SparsePhase
    from keras_dsd.analysis.comparison.compare import compare
    from keras_dsd.analysis.sensitivity.scan import sensitivity
    from keras_dsd.api import apply, report, strip, weights
    from keras_dsd.callback import DSDSchedule
    from keras_dsd.custom_loop import DSDLoop
    from keras_dsd.engine import observers as observers
    from keras_dsd.visualization import plots as plots
    from keras_dsd.visualization.tensorboard import DSDTensorBoard
    from keras_dsd.visualization.weight_history import WeightHistory

__version__ = "0.1.0"

__all__ = [
    "NM",
    "Block",
    "DSDLoop",
    "DSDSchedule",
    "DSDTensorBoard",
    "DensePhase",
    "Plateau",
    "SparsePhase",
    "WeightHistory",
    "apply",
    "compare",
    "report",
    "sensitivity",
    "strip",
    "weights",
]

_HOMES = {
    "NM": "keras_dsd.algorithm.patterns",
    "Block": "keras_dsd.algorithm.patterns",
    "DSDLoop": "keras_dsd.custom_loop",
    "DSDSchedule": "keras_dsd.callback",
    "DSDTensorBoard": "keras_dsd.visualization.tensorboard",
    "DensePhase": "keras_dsd.algorithm.timeline",
    "Plateau": "keras_dsd.algorithm.timeline",
    "SparsePhase": "keras_dsd.algorithm.timeline",
    "WeightHistory": "keras_dsd.visualization.weight_history",
    "apply": "keras_dsd.api",
    "compare": "keras_dsd.analysis.comparison.compare",
    "report": "keras_dsd.api",
    "sensitivity": "keras_dsd.analysis.sensitivity.scan",
    "strip": "keras_dsd.api",
    "weights": "keras_dsd.api",
}
_MODULES = {
    "observers": "keras_dsd.engine.observers",
    "plots": "keras_dsd.visualization.plots",
    "timelines": "keras_dsd.algorithm.presets",
}


register_wrapper()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
