"""Dense-Sparse-Dense training for Keras (Han et al., ICLR 2017, arXiv:1607.04381).

Importing this package imports no framework: public names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from keras_dsd.loading import register_with_tf_keras

if TYPE_CHECKING:
    from keras_dsd import plots as plots
    from keras_dsd import timelines as timelines
    from keras_dsd.api import apply, report, strip, weights
    from keras_dsd.comparison import compare
    from keras_dsd.loop import DSDLoop
    from keras_dsd.patterns import NM, Block
    from keras_dsd.plateau import Plateau
    from keras_dsd.schedule import DSDSchedule
    from keras_dsd.sensitivity_scan import sensitivity
    from keras_dsd.tensorboard_writer import DSDTensorBoard
    from keras_dsd.timeline import DensePhase, SparsePhase
    from keras_dsd.weight_history import WeightHistory

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
    "NM": "keras_dsd.patterns",
    "Block": "keras_dsd.patterns",
    "DSDLoop": "keras_dsd.loop",
    "DSDSchedule": "keras_dsd.schedule",
    "DSDTensorBoard": "keras_dsd.tensorboard_writer",
    "DensePhase": "keras_dsd.timeline",
    "Plateau": "keras_dsd.plateau",
    "SparsePhase": "keras_dsd.timeline",
    "WeightHistory": "keras_dsd.weight_history",
    "apply": "keras_dsd.api",
    "compare": "keras_dsd.comparison",
    "report": "keras_dsd.api",
    "sensitivity": "keras_dsd.sensitivity_scan",
    "strip": "keras_dsd.api",
    "weights": "keras_dsd.api",
}
_MODULES = {"plots": "keras_dsd.plots", "timelines": "keras_dsd.timelines"}


register_with_tf_keras()


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
