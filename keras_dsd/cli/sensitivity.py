"""`keras-dsd sensitivity`: cost of pruning each weight of a model."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np
from absl import flags

from keras_dsd import api
from keras_dsd.adapters import registry
from keras_dsd.algorithm.plateau import is_larger_better
from keras_dsd.analysis.sensitivity import sensitivity
from keras_dsd.cli import files
from keras_dsd.cli.command import Command, CommandError, Result, UsageError, one_line
from keras_dsd.utils import figures

_DESCRIPTION = """
Prunes each weight of a trained model alone, at each level, and evaluates the model on your data:
keras_dsd.sensitivity. Can recommend a sparsity for each weight, as keras-dsd inspect --sparsity
and keras_dsd.apply take them. The model is compiled in its file, or --loss names a loss.
"""


def _define(values: flags.FlagValues) -> None:
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    text(
        "data",
        None,
        "Arrays x_val and y_val, or x_test and y_test, or x and y.",
    )
    text("loss", None, "Name of a Keras loss, instead of that in the file.")
    define_metric(values, "measure")
    flags.DEFINE_list(
        "levels", [f"0.{tenth}" for tenth in range(1, 10)], "Sparsities to try.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_integer("batch_size", 32, "Number of examples in a batch.", 1, flag_values=values)
    number = functools.partial(flags.DEFINE_float, lower_bound=0.0, flag_values=values)
    number(
        "max_drop",
        None,
        "Recommends the largest levels with at most this cost.",
    )
    number(
        "overall",
        None,
        "Recommends sparsities that prune this fraction of all weights.",
        upper_bound=1.0,
    )
    text("path", None, "Writes every value to this file, and resumes the scan in it.")
    files.define_flags(values)


def define_metric(values: flags.FlagValues, verb: str) -> None:
    """Defines the flags of commands that evaluate a model and draw the results."""
    flags.DEFINE_string(
        "metric", "loss", f"Metric to {verb}: the loss or a metric of the model.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_enum(
        "mode", "auto", ["auto", "min", "max"],
        "Whether smaller or larger is better; auto: by its name.", flag_values=values,
    )  # fmt: skip
    flags.DEFINE_string(
        "plot", None, "Draws a figure to this file; needs matplotlib.", flag_values=values
    )


def mode_of(values: flags.FlagValues) -> str:
    """Returns `"min"` or `"max"`, set or inferred from the name of the metric."""
    if values.mode != "auto":
        return str(values.mode)
    return "max" if is_larger_better(values.metric) else "min"


def _run(values: flags.FlagValues, path: str) -> Result:
    levels, metric = _check(values), values.metric
    check_plot(values.plot)
    data = files.load_data(values.data)
    names = " and ".join(data.names)
    print(f"Evaluates on {names} of {values['data'].value}: {len(data.x):,} examples")
    model = _load(path, values, metric)
    measure = Measure(metric, values.batch_size)
    found = sensitivity(
        api.apply(model), lambda model: measure(model, data[:2]), levels,
        mode=mode_of(values), path=values.path,
    )  # fmt: skip
    if values.plot is not None:
        found.plot().savefig(values.plot)
    told = {"model": path, "data": values.data, "metric": metric, "scan": found.to_dict()}
    if values.overall is None and values.max_drop is None:
        more = "--overall=0.3 or --max_drop=0.01 recommend a sparsity for each weight."
    else:
        told["recommended"] = found.recommend(values.max_drop, values.overall)
        more = f"recommended, for --sparsity:\n{json.dumps(told['recommended'])}"
    return Result(told, f"{found.render()}\n\n{more}")


def _check(values: flags.FlagValues) -> list[float]:
    """Returns the levels, after checking the flags that need no file."""
    if values.data is None:
        raise UsageError(
            "expected --data=FILE.npz, to evaluate the model on. Received: none. Write one by "
            "numpy.savez('data.npz', x=x, y=y)."
        )
    if None not in (values.overall, values.max_drop):
        raise UsageError("expected --overall or --max_drop. Received: both.")
    if values.overall == 1:
        raise UsageError("expected --overall to be below 1. Received: 1.")
    try:
        levels = sorted({float(level) for level in values.levels})
    except ValueError:
        levels = []
    if not levels or not all(0 < level < 1 for level in levels):
        given = ",".join(values.levels)
        raise UsageError(
            f"expected --levels to be fractions between 0 and 1. Received: --levels={given}. "
            f"Write such as --levels=0.3,0.5,0.7."
        )
    return levels


def check_plot(plot: str | None) -> None:
    """Checks, before the scan, that the figure can be written, if there is one."""
    if plot is None:
        return
    figure, _ = figures.new_figure(1, 1)
    kinds = figure.canvas.get_supported_filetypes()
    file = pathlib.Path(plot)
    if file.suffix.lstrip(".") not in kinds or not file.parent.is_dir():
        raise CommandError(
            f"--plot={plot}: expected a file in a folder that exists, whose name ends in one of "
            f"{', '.join(sorted(kinds))}."
        )


def _load(path: str, values: flags.FlagValues, metric: str) -> Any:
    loss = values.loss
    model = files.plain(files.load_model(path, values, compiled=loss is None))
    if loss is not None:
        try:
            model.compile(loss=loss, metrics=[] if metric == "loss" else [metric])
        except Exception as error:  # Keras raises many types
            raise CommandError(f"--loss={loss}: {one_line(error)}") from error
    if not registry.adapter_of(model).is_compiled(model):
        raise CommandError(
            f"{path} holds a model that is not compiled, so it has no loss. Name one: "
            f"--loss=sparse_categorical_crossentropy."
        )
    return model


@dataclasses.dataclass(frozen=True)
class Measure:
    """Evaluates a model by the name of a compiled metric, or `"loss"`."""

    metric: str
    batch_size: int

    @property
    def __name__(self) -> str:
        """Name of the metric in results."""
        return self.metric

    def __call__(self, model: Any, data: tuple[np.ndarray, np.ndarray]) -> float:
        """Returns the value of the metric on inputs and targets."""
        x, y = data
        try:
            found = model.evaluate(x, y, batch_size=self.batch_size, verbose=0, return_dict=True)
        except Exception as error:  # every backend has other exceptions
            raise CommandError(
                f"the model can't be evaluated on inputs of shape {x.shape} and targets of shape "
                f"{y.shape}: {one_line(error)}"
            ) from error
        if self.metric not in found:
            raise CommandError(
                f"expected --metric to be one of {', '.join(found)}, which the model was "
                f"compiled with. Received: --metric={self.metric}."
            )
        return float(found[self.metric])


COMMAND = Command(
    name="sensitivity",
    summary="Cost of pruning each weight, measured on your data; recommended sparsities.",
    description=_DESCRIPTION,
    define=_define,
    values={"data": "FILE.npz", "loss": "NAME", "metric": "NAME", "path": "SCAN.json",
            "plot": "SCAN.png", "levels": "NUMBERS"},
    groups=files.GROUPS,
    example="keras-dsd sensitivity model.keras --data=mnist.npz --metric=accuracy --max_drop=0.01",
    run=_run,
    needed="--data=FILE.npz",
)  # fmt: skip
