"""`keras-dsd compare`: DSD against plain training of the same budget, for a model in a file."""

import functools
import importlib
from collections.abc import Callable
from typing import Any

from absl import flags

from keras_dsd.adapters import registry
from keras_dsd.algorithm import presets
from keras_dsd.algorithm.selection import DEFAULT_SPARSITY
from keras_dsd.algorithm.timeline import is_larger_better
from keras_dsd.analysis.comparison import compare
from keras_dsd.analysis.comparison.arms import ARMS
from keras_dsd.cli import files, inspect, sensitivity
from keras_dsd.cli.command import Command, CommandError, Result, UsageError

_DESCRIPTION = """
Trains the model in a file with DSD and plainly, from the same fresh weights
and for as many epochs, at several seeds, and says in words whether a
difference is shown. Its layers, loss, optimizer and learning rate are those of
the file; its weights are not used, and the file is not changed.

The controls are plain training, plain training at DSD's learning rates, plain
training at the last of these as soon as the first phase ends, and training
that stays sparse. Each is scored at its last epoch and at its epoch best on
validation data; what is reported comes from test data alone.
"""


def _define(values: flags.FlagValues) -> None:
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    number = functools.partial(flags.DEFINE_integer, flag_values=values)
    share = functools.partial(
        flags.DEFINE_float, lower_bound=0.0, upper_bound=1.0, flag_values=values
    )
    text("data", None,
         "Needed. Arrays x_train, y_train, x_test and y_test, and x_val and y_val if there "
         "are.")  # fmt: skip
    share("validation_share", 0.2,
          "The share of the training rows that is held out, at random, where there are no x_val "
          "and y_val.")  # fmt: skip
    for name, words in (("dense", "first, dense"), ("sparse", "sparse"), ("redense", "last")):
        number(name, 10, f"Epochs of the {words} phase.", lower_bound=1)
    flags.DEFINE_float(
        "redense_lr", 0.1, "What the learning rate is multiplied by in the last phase.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_list(
        "arms", list(ARMS), "What to train: dsd, and some of the controls.", flag_values=values
    )
    number("seeds", 5, "How many seeds.", lower_bound=2)
    sensitivity.define_metric(values, "compare")
    number("batch_size", 32, "Examples trained and evaluated at a time.", lower_bound=1)
    share("max_shared_rows", 0.0,
          "Which share of the test or validation rows may be in other parts of the data "
          "too.")  # fmt: skip
    number("parallel", 1, "Seeds trained at a time, each in a process.", lower_bound=1)
    text("path", None,
         "Writes every arm here as it is trained, and goes on from it where that was "
         "interrupted.")  # fmt: skip
    inspect.define_selection(values)
    files.define_flags(values)


def _run(values: flags.FlagValues, path: str) -> Result:
    if values.data is None:
        raise UsageError(
            "expected --data=FILE.npz, to train on. Received: none. Write one by "
            "numpy.savez('data.npz', x_train=x, y_train=y, x_test=x_test, y_test=y_test)."
        )
    selection = inspect.asked(values)
    sensitivity.check_plot(values.plot)
    data, words = files.load_parts(values.data, values.validation_share)
    print(words)
    epochs = (values.dense, values.sparse, values.redense)
    found = compare.compare(
        _build(path, values), data, phases=presets.dsd(*epochs, redense_lr=values.redense_lr),
        sparsity=selection.pop("sparsity", DEFAULT_SPARSITY), apply_options=selection,
        fit_options={"batch_size": values.batch_size}, seeds=values.seeds, arms=values.arms,
        evaluate=sensitivity.Measure(values.metric, values.batch_size),
        mode="max" if is_larger_better(values.metric) else "min", path=values.path,
        max_shared_rows=values.max_shared_rows, parallel=values.parallel,
    )  # fmt: skip
    if values.plot is not None:
        found.plot().savefig(values.plot)
    told = {"model": path, "data": values.data, "comparison": found.to_dict()}
    return Result(told, f"{found.render()}\n{words}")


def _build(path: str, values: flags.FlagValues) -> Callable[[], Any]:
    """Returns a maker of the model, after a check that it can be made."""
    model = files.load_model(path, values, compiled=True)
    adapter = registry.adapter_of(model)
    if not adapter.is_compiled(model):
        raise CommandError(
            f"{path} holds a model that is not compiled. Compile it and save it anew."
        )
    return functools.partial(_renewed, path, adapter.__name__, not values.unsafe)


def _renewed(path: str, adapter: str, safe_mode: bool) -> Any:
    """Returns the model of a file anew: compiled as it was, with fresh weights."""
    package = importlib.import_module(adapter)
    model = package.load_model(path, safe_mode=safe_mode, compiled=True)
    return package.training_state.renewed(files.plain(model))


COMMAND = Command(
    name="compare",
    summary="DSD against plain training of the same length, on your data, with a verdict.",
    description=_DESCRIPTION,
    define=_define,
    values={"data": "FILE.npz", "metric": "NAME", "path": "COMPARISON.json",
            "plot": "COMPARISON.png", **inspect.VALUES},
    examples=[
        "keras-dsd compare model.keras --data=mnist.npz",
        "keras-dsd compare model.keras --data=mnist.npz --dense=20 --sparse=10 --redense=10",
        "keras-dsd compare model.keras --data=mnist.npz --metric=accuracy --path=runs.json",
    ],
    run=_run,
)  # fmt: skip
