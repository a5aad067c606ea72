"""`keras-dsd compare`: DSD against equal-budget baselines, for a model in a file."""

import functools
import importlib
from collections.abc import Callable
from typing import Any

from absl import flags

from keras_dsd.adapters import registry
from keras_dsd.algorithm import presets
from keras_dsd.algorithm.selection import DEFAULT_SPARSITY
from keras_dsd.analysis.comparison import compare
from keras_dsd.analysis.comparison.arms import ARMS
from keras_dsd.cli import files, inspect, sensitivity
from keras_dsd.cli.command import Command, CommandError, Result, UsageError

_DESCRIPTION = """
Trains the model in a file with DSD and with baselines of equal budget, from the same fresh weights,
over several seeds: keras_dsd.compare. Loss, optimizer and learning rate are those of the file.
"""


def _define(values: flags.FlagValues) -> None:
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    number = functools.partial(flags.DEFINE_integer, flag_values=values)
    share = functools.partial(
        flags.DEFINE_float, lower_bound=0.0, upper_bound=1.0, flag_values=values
    )
    text("data", None, "Arrays x_train, y_train, x_test, y_test, and x_val, y_val if there are.")
    share("validation_split", 0.2, "Fraction of training rows held out if no x_val.")
    for name in ("dense", "sparse", "redense"):
        number(name, 10, "Epochs of the phase.", lower_bound=1)
    flags.DEFINE_float(
        "redense_lr", 0.1, "Factor of the learning rate in the last phase.", flag_values=values
    )
    flags.DEFINE_list("arms", list(ARMS), "Arms to train.", flag_values=values)
    number("seeds", 5, "Number of seeds.", lower_bound=2)
    sensitivity.define_metric(values, "compare")
    number("batch_size", 32, "Number of examples in a batch.", lower_bound=1)
    share("max_shared_rows", 0.0, "Maximum fraction of rows that parts of the data share.")
    number("parallel", 1, "Seeds trained concurrently, each in a process.", lower_bound=1)
    text("path", None, "Writes every arm to this file, and resumes the comparison in it.")
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
    data, words = files.load_parts(values.data, values.validation_split)
    print(words)
    epochs = (values.dense, values.sparse, values.redense)
    found = compare.compare(
        _build(path, values), data, phases=presets.dsd(*epochs, redense_lr=values.redense_lr),
        sparsity=selection.pop("sparsity", DEFAULT_SPARSITY), apply_options=selection,
        fit_options={"batch_size": values.batch_size}, seeds=values.seeds, arms=values.arms,
        evaluate=sensitivity.Measure(values.metric, values.batch_size),
        mode=sensitivity.mode_of(values), path=values.path,
        max_shared_rows=values.max_shared_rows, parallel=values.parallel,
    )  # fmt: skip
    if values.plot is not None:
        found.plot().savefig(values.plot)
    told = {"model": path, "data": values.data, "comparison": found.to_dict()}
    return Result(told, f"{found.render()}\n{words}")


def _build(path: str, values: flags.FlagValues) -> Callable[[], Any]:
    """Returns a function that builds the model, after checking it."""
    model = files.load_model(path, values, compiled=True)
    adapter = registry.adapter_of(model)
    if not adapter.is_compiled(model):
        raise CommandError(
            f"{path} holds a model that is not compiled. Compile it and save it again."
        )
    named = tuple(values.custom_objects or ())
    return functools.partial(_renewed, path, adapter.__name__, values.safe_mode, named)


def _renewed(path: str, adapter: str, safe_mode: bool, named: tuple[str, ...]) -> Any:
    """Returns a new model like that of a file: compiled, with fresh weights."""
    package = importlib.import_module(adapter)
    package.register(files.custom_objects(named))  # in another process, they are not
    model = package.load_model(path, safe_mode=safe_mode, compiled=True)
    return package.training_state.renewed(files.plain(model))


COMMAND = Command(
    name="compare",
    summary="DSD against plain training of equal budget, on your data, with a verdict.",
    description=_DESCRIPTION,
    define=_define,
    values={"data": "FILE.npz", "metric": "NAME", "path": "RUNS.json", "plot": "RUNS.png",
            "arms": "NAMES", **inspect.VALUES},
    groups={("dense", "sparse", "redense"): "Epochs of each phase. Default: 10.",
            **inspect.GROUPS, **files.GROUPS},
    example="keras-dsd compare model.keras --data=mnist.npz --metric=accuracy --path=runs.json",
    run=_run,
    needed="--data=FILE.npz",
)  # fmt: skip
