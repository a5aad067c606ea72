"""Models from files; a file that is none, or carries code, is refused before Keras reads it."""

import builtins
import json
import os
import pathlib
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

from keras_dsd.adapters import registry
from keras_dsd.adapters.base.layers import NAMES
from keras_dsd.cli.command import CommandError, one_line

_LEGACY = ("1", "true", "True")  # what TensorFlow takes for yes
_H5 = (".h5", ".hdf5")
# Where a file of tf_keras may have it import from; classes of others have to be registered.
_MODULES = ("keras", "tf_keras", "keras_dsd", "builtins")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of commands that load a model."""
    flags.DEFINE_enum(
        "keras", None, ["3", "2"],
        "Which Keras loads the model; 2 is tf_keras. If left out: 3, unless TF_USE_LEGACY_KERAS=1.",
        flag_values=values,
    )  # fmt: skip
    flags.DEFINE_bool(
        "unsafe", False,
        "Loads files that carry code, such as Lambda layers, and so runs that code. For files "
        "whose source you trust.",
        flag_values=values,
    )  # fmt: skip


def load(path: str, values: flags.FlagValues, compiled: bool = False) -> Any:
    """Returns the model in a file, compiled on demand; refuses files that carry code."""
    package = _package(values.keras)
    version, configs = _read(path)
    if not values.unsafe:
        _refuse_code(path, configs, package)
    adapter = registry.adapter_for(package)
    try:
        return adapter.load_model(path, safe_mode=not values.unsafe, compiled=compiled)
    except Exception as error:  # Keras raises all kinds
        said, other = one_line(error), "3" if version.startswith("3") else "2"
        if version and (other == "3") != (package == "keras"):
            said += f" Keras {version} wrote it: add --keras={other}."
        raise CommandError(f"{path}: {NAMES[package]} can't load it: {said}") from error


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
        kind = "empty" if not file.stat().st_size else "not a whole file of a model"
        raise CommandError(f"{path} is {kind}. Save it anew by model.save('model.keras').")
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
        raise ValueError("it holds weights alone, without the model they belong to")
    configs = [part for name in names for part in _dicts(attributes[name])]
    return attributes.get("keras_version", ""), configs


def _dicts(text: str | bytes) -> list[dict[str, Any]]:
    """Returns every dict in a text of JSON, however deep."""
    found: list[dict[str, Any]] = []
    json.loads(text, object_hook=found.append)  # each without the dicts in it, which came before
    return found


def _refuse_code(path: str, configs: Iterable[Mapping[str, Any]], package: str) -> None:
    """Refuses configs that make Keras run code from the file, or import modules not its own.

    Keras's safe mode knows of less: tf_keras has none for HDF5.
    """
    for part in configs:
        kind, name, module = (part.get(key) for key in ("class_name", "config", "module"))
        # Of the functions of a Lambda of tf_keras, such as its `function_type`.
        types = [value for key, value in part.items() if key.endswith("_type")]
        found = None
        if kind in ("Lambda", "__lambda__") or "lambda" in types:
            found = "a Lambda"
        elif package == "tf_keras" and kind is not None and isinstance(module, str):
            if module.partition(".")[0] not in _MODULES:
                found = f"what is to be imported from {module!r}"
            elif kind == "function" and module == "builtins" and hasattr(builtins, str(name)):
                found = f"a call of Python's {name}"
        if found is not None:
            raise CommandError(
                f"{path} carries code ({found}), which was not run. If you trust where the file "
                f"comes from, add --unsafe."
            )
