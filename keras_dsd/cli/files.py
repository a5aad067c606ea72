"""Models and data from files; other files, and files with code, are refused before loading."""

import builtins
import contextlib
import importlib
import json
import os
import pathlib
import re
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from numpy.lib.npyio import NpzFile

from keras_dsd.adapters import registry
from keras_dsd.adapters.base.layers import NAMES
from keras_dsd.cli.command import CommandError, UsageError, one_line
from keras_dsd.protocols import KerasAdapter
from keras_dsd.utils.quiet import quiet_stderr

_LEGACY = ("1", "true", "True")  # values that TensorFlow accepts as true
_H5 = (".h5", ".hdf5")
# Modules from which tf_keras may import; classes of other modules must be registered.
_MODULES = ("keras", "tf_keras", "keras_dsd", "builtins")
# Message of Keras for an unknown object.
_UNKNOWN = re.compile(r"(?:Could not locate|Unknown) \w+:? '?(\w+)'?")
# Data without training data come first.
_PAIRS = (("x_val", "y_val"), ("x_test", "y_test"), ("x", "y"))


# Flags that every command has; the help of `keras-dsd` describes them.
GROUPS: dict[tuple[str, ...], str] = {
    ("keras", "custom_objects", "safe_mode", "json", "help"): "as in keras-dsd --help",
}
VALUES = {"custom_objects": "MODULE:NAME", "safe_mode": "false"}


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of commands that load a model."""
    flags.DEFINE_enum(
        "keras", None, ["3", "2"],
        "Which Keras loads the model. Default: 3, or 2 if TF_USE_LEGACY_KERAS=1.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_multi_string(
        "custom_objects", None,
        "Imports a class or function of the model, such as my_layers:Attention. "
        "May be repeated.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "safe_mode", True,
        "Loads and runs code in the file, such as that of Lambda layers.",
        flag_values=values,
    )  # fmt: skip


def load_model(path: str, values: flags.FlagValues, compiled: bool = False) -> Any:
    """Returns the model in a file, compiled on demand; refuses files that carry code."""
    package = _package(values.keras)
    version, configs = _read(path)
    objects = custom_objects(values.custom_objects or ())
    known = _adapter(package).register(objects) if objects else ()
    if values.safe_mode:
        _refuse_code(path, configs, package, known)
    adapter = _adapter(package)
    try:
        return adapter.load_model(path, safe_mode=values.safe_mode, compiled=compiled)
    except Exception as error:  # Keras raises many types
        said, other = one_line(error), "3" if version.startswith("3") else "2"
        if version and (other == "3") != (package == "keras"):
            said += f" Keras {version} wrote it: add --keras={other}."
        elif unknown := _UNKNOWN.search(str(error)):
            said = f"it knows no {unknown[1]}. Import it: --custom_objects=MODULE:{unknown[1]}."
        raise CommandError(f"{path}: {NAMES[package]} can't load it: {said}") from error


def _adapter(package: str) -> KerasAdapter:
    """Returns the adapter of a Keras, and imports it without TensorFlow's log messages."""
    with quiet_stderr():
        return registry.adapter_for(package)


def custom_objects(named: Iterable[str]) -> dict[str, Any]:
    """Returns the objects that `--custom_objects` names, by their names."""
    return dict(_imported(each) for each in named)


def _imported(named: str) -> tuple[str, Any]:
    module, _, name = named.partition(":")
    if not module or not name.isidentifier():
        raise UsageError(
            f"expected --custom_objects to be MODULE:NAME. Received: --custom_objects={named}. "
            f"Write --custom_objects=my_layers:Attention for class Attention of my_layers.py."
        )
    # As `python -m` does, but last: a file here takes no other module's place.
    if (folder := str(pathlib.Path.cwd())) not in sys.path:
        sys.path.append(folder)
    try:
        return name, getattr(importlib.import_module(module), name)
    except Exception as error:  # importing the module may raise anything
        raise CommandError(f"--custom_objects={named}: {one_line(error)}") from error


def plain(model: Any) -> Any:
    """Returns a model without the wrappers that a tf_keras file from `apply` has."""
    adapter = registry.adapter_of(model)
    return adapter.strip(model) if adapter.is_applied(model) else model


def _package(asked: str | None) -> str:
    is_legacy = os.environ.get("TF_USE_LEGACY_KERAS") in _LEGACY
    return "tf_keras" if asked == "2" or (asked is None and is_legacy) else "keras"


def _read(path: str) -> tuple[str, list[dict[str, Any]]]:
    """Returns the version of Keras that wrote a file, and every dict in its configs."""
    file = pathlib.Path(path)
    try:
        if file.is_dir():
            raise CommandError(f"{path} is a folder. Give a .keras or .h5 file.")
        if not file.exists():
            raise CommandError(f"{path}: there is no such file.")
        if file.suffix not in (".keras", *_H5):
            raise CommandError(
                f"{path} is not called .keras or .h5, as files of models are. Save it by "
                f"model.save('model.keras')."
            )
        # tf_keras reads HDF5 from files that are called .keras, too.
        found = _of_zip(file) if zipfile.is_zipfile(file) else _of_hdf5(file)
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile) as error:
        raise CommandError(f"{path} can't be read as a model: {one_line(error)}") from error
    if found is None:
        kind = "empty" if not file.stat().st_size else "not a complete model file"
        raise CommandError(f"{path} is {kind}. Save it again with model.save('model.keras').")
    return found


def _of_zip(file: pathlib.Path) -> tuple[str, list[dict[str, Any]]] | None:
    with zipfile.ZipFile(file) as archive:
        if file.suffix != ".keras" or "config.json" not in archive.namelist():
            return None
        configs = _dicts(archive.read("config.json"))
        has_metadata = "metadata.json" in archive.namelist()
        metadata = json.loads(archive.read("metadata.json")) if has_metadata else {}
    return str(metadata.get("keras_version", "")), configs


def _of_hdf5(file: pathlib.Path) -> tuple[str, list[dict[str, Any]]] | None:
    import h5py

    if not h5py.is_hdf5(file):
        return None
    with h5py.File(file, "r") as opened:
        attributes = {
            name: value.decode() if isinstance(value, bytes) else str(value)
            for name, value in opened.attrs.items()
        }
    names = [name for name in ("model_config", "training_config") if name in attributes]
    if "model_config" not in names:
        raise ValueError("it holds only weights, without their model")
    configs = [part for name in names for part in _dicts(attributes[name])]
    return attributes.get("keras_version", ""), configs


def _dicts(text: str | bytes) -> list[dict[str, Any]]:
    """Returns every dict in a JSON text, at any depth."""
    found: list[dict[str, Any]] = []
    json.loads(text, object_hook=found.append)  # each without the dicts in it, which came before
    return found


def _refuse_code(
    path: str, configs: Iterable[Mapping[str, Any]], package: str, known: Collection[str]
) -> None:
    """Refuses configs that make Keras run code from the file, or import modules other than Keras.

    The safe mode of Keras checks less: tf_keras has none for HDF5. Objects under `known` names are
    registered: Keras does not import them.
    """
    for part in configs:
        kind, name, module = (part.get(key) for key in ("class_name", "config", "module"))
        # Functions of a tf_keras Lambda, such as its `function_type`.
        types = [value for key, value in part.items() if key.endswith("_type")]
        found, yours = None, ""
        if kind in ("Lambda", "__lambda__") or "lambda" in types:
            found = "a Lambda"
        elif package == "tf_keras" and kind is not None and isinstance(module, str):
            registered = name if kind == "function" else part.get("registered_name")
            if registered in known:
                continue
            if module.partition(".")[0] not in _MODULES:
                found = f"what is to be imported from {module!r}"
                own = name if kind == "function" else kind
                yours = f" If it is yours, add --custom_objects={module}:{own}."
            elif kind == "function" and module == "builtins" and hasattr(builtins, str(name)):
                found = f"a call of Python's {name}"
        if found is not None:
            raise CommandError(
                f"{path} carries code ({found}), which was not run.{yours} If you trust where the "
                f"file comes from, add --safe_mode=false."
            )


class Data(NamedTuple):
    """Inputs and targets, equal in number, and their names in the file."""

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, str]


def load_data(path: str) -> Data:
    """Returns the evaluation data in a file."""
    with _opened(path) as arrays:
        held = list(arrays.files)
        names = next((pair for pair in _PAIRS if {*pair} <= {*held}), None)
        if names is None:
            raise CommandError(
                f"{path} holds {', '.join(held) or 'nothing'}. Expected arrays x and y, or "
                f"x_val and y_val, or x_test and y_test."
            )
        return _pair(path, arrays, names)


def load_parts(path: str, share: float) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], str]:
    """Returns the training, validation and test data in a file, and a description.

    Without validation data, a fraction of the training rows is held out, always the same rows.
    """
    with _opened(path) as arrays:
        held = list(arrays.files)
        needed = [f"{axis}_{name}" for name in ("train", "test") for axis in "xy"]
        missing = [name for name in needed if name not in held]
        if missing:
            raise CommandError(
                f"{path} holds {', '.join(held) or 'nothing'}. Expected arrays "
                f"{', '.join(needed)}, and x_val and y_val if there are. Missing: "
                f"{', '.join(missing)}."
            )
        has_validation = {"x_val", "y_val"} <= {*held}
        names = {"train": "train", "test": "test"}
        names |= {"validation": "val"} if has_validation else {}
        found = {
            part: _pair(path, arrays, (f"x_{name}", f"y_{name}"))[:2]
            for part, name in names.items()
        }
    words = "test: x_test and y_test; validation: x_val and y_val"
    if not has_validation:
        x, y = found["train"]
        number = round(share * len(x))
        if not 0 < number < len(x):
            raise CommandError(
                f"{path}: expected x_val and y_val, or a share of the {len(x)} training rows that "
                f"leaves some for both. Received: --validation_split={share:g}."
            )
        order = np.random.default_rng(0).permutation(len(x))
        found["validation"] = x[order[:number]], y[order[:number]]
        found["train"] = x[order[number:]], y[order[number:]]
        words = f"test: x_test and y_test; validation: {number:,} of the {len(x):,} training rows"
    return found, words


@contextlib.contextmanager
def _opened(path: str) -> Iterator[NpzFile]:
    """Opens an .npz file; objects, which would need pickle, are not read."""
    file = pathlib.Path(path)
    if not file.is_file():
        raise CommandError(f"{path}: there is no such file.")
    if not zipfile.is_zipfile(file):
        raise CommandError(
            f"{path} is not a complete .npz file. Write one by numpy.savez('{file.stem}.npz', x=x, "
            f"y=y)."
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CommandError(f"{path} can't be read: {one_line(error)}") from error


def _pair(path: str, arrays: NpzFile, names: tuple[str, str]) -> Data:
    x, y = np.asarray(arrays[names[0]]), np.asarray(arrays[names[1]])
    if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
        raise CommandError(
            f"{path}: expected equal numbers of {names[0]} and {names[1]}, at least one. Received "
            f"the shapes {x.shape} and {y.shape}."
        )
    return Data(x, y, names)
